"""Compare tiny random models of every causal type of the installed transformers with plain autograd in float64.

    python benchmarks/families.py                          # all types, 15 minutes on one core
    python benchmarks/families.py --types llama,gpt2 --time
    python benchmarks/families.py --write docs/models.md   # and write the page

Each type runs in its own process with a limit of two minutes. It is compared in float32 and float64, with all free
memory and with the smallest budget that `compare` accepts, which checkpoints blocks. Prints a line of JSON for each
type, and the number of types for each outcome.
"""

import argparse
import copy
import inspect
import multiprocessing
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import floor
import numpy as np
import torch
import transformers
from families_page import write_page
from measuring import emit, in_turn
from numpy.typing import NDArray
from tiny_models import TAKES_NO_TOKENS, TYPES, VOCABULARY, make_model
from torch import Tensor
from transformers import PreTrainedModel
from workload import MASKED, Sample

from gradsim.errors import GradsimError, MemoryBudgetError
from gradsim.gradients import Comparison, FallbackWarning, compare
from gradsim.gradients.capture.capture import GradientCapture

TOLERANCES = {"float32": 1e-5, "float64": 1e-10}
# Some lengths are repeated, so that batches occur with and without padding.
QUERY_LENGTHS, ORIGINAL_LENGTHS = (6, 23, 23, 46), (9, 17, 17, 31, 46)
TIMED_SAMPLES, ROUNDS = 32, 3
SECONDS_PER_TYPE = 120
# A layer's norm counts as at least this share of the whole gradient's; below it, everything is rounding error.
LEAST_SHARE = 1e-6
# Errors up to this multiple of plain autograd's errors are attributed to the model's own rounding.
LIKE_ITS_OWN = 5

Floats = NDArray[np.float64]
# Processes are forked from a server that has only the heavy imports loaded.
PROCESSES = multiprocessing.get_context("forkserver")


@dataclass
class Finding:
    """Result for a model type.

    Attributes:
        type: the model type.
        outcome: one of `OUTCOMES`.
        attention: the attention implementation.
        by_autograd: layers that autograd computes.
        errors: worst error for each precision, relative to the product of the layer's norms.
        together: maximum number of samples in one pass.
        slowdown: time of `compare` relative to plain batched training passes of the samples.
        notes: failures, each with the runs in which it occurred.
    """

    type: str
    outcome: str = "rules"
    attention: str = ""
    by_autograd: list[str] = field(default_factory=list)
    errors: dict[str, float] = field(default_factory=dict)
    together: int = 0
    slowdown: float | None = None
    notes: dict[str, list[str]] = field(default_factory=dict)

    def fails(self, outcome: str, note: str, run: str = "") -> None:
        """Record a failure; the worst one determines the outcome."""
        self.outcome = max(self.outcome, outcome, key=OUTCOMES.index)
        self.notes.setdefault(note, []).append(run)


# From best to worst. "rules" and "autograd" are exact; "ill-conditioned" exceeds the tolerance, as plain autograd does.
OUTCOMES = ("rules", "autograd", "not measured", "ill-conditioned", "refused", "wrong", "crash")


@dataclass(frozen=True)
class Reference:
    """Inner products by plain autograd: (queries, originals, layers) and (samples, layers)."""

    layers: list[str]
    dots: Floats
    query_self_dots: Floats
    original_self_dots: Floats


@dataclass(frozen=True)
class Problem:
    """Model, samples, and their correct inner products."""

    model: PreTrainedModel
    queries: list[Sample]
    originals: list[Sample]
    reference: Reference

    def rounding_errors(self, precision: str) -> Floats:
        """Return the worst error of plain autograd in a precision, for every layer.

        Errors are measured against float64. For float64 itself, the weights are perturbed by a relative 1e-12, three
        times; this changes results by more than 1e-10 only if a model computes partly in float32.
        """
        if precision == "float32":
            return self._errors_of(self.model, torch.float32)
        errors = [self._errors_of(_nudged(self.model, seed), torch.float64) for seed in range(3)]
        worst: Floats = np.max(errors, axis=0)
        return worst

    def _errors_of(self, model: PreTrainedModel, dtype: torch.dtype) -> Floats:
        return relative_errors(make_reference(model, self.queries, self.originals, dtype), self.reference)


def _nudged(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    random = torch.Generator().manual_seed(seed)
    changed: PreTrainedModel = copy.deepcopy(model).double()
    with torch.no_grad():
        for parameter in changed.parameters():
            signs = torch.randn(parameter.shape, generator=random, dtype=parameter.dtype).sign()
            parameter.mul_(1 + 1e-12 * signs)
    return changed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", type=lambda names: names.split(","), default=TYPES, help="separated by commas")
    parser.add_argument("--time", action="store_true", help="compare the time with plain batched training passes")
    parser.add_argument("--processes", type=int, choices=(1, 2), default=2)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the results as a Markdown page")
    arguments = parser.parse_args()
    PROCESSES.set_forkserver_preload(["transformers.modeling_utils", "gradsim.gradients"])
    with ThreadPoolExecutor(arguments.processes) as pool:
        found = pool.map(lambda name: measure_apart(name, timed=arguments.time), arguments.types)
        findings = [emit(asdict(finding)) for finding in found]
    print(dict(Counter(finding["outcome"] for finding in findings)))
    if arguments.write:
        write_page(arguments.write, findings)


def measure_apart(model_type: str, *, timed: bool) -> Finding:
    """Measure a type in its own process; report a crash or a timeout as the result."""
    receiving, sending = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=_send_finding, args=(sending, model_type, timed))
    process.start()
    sending.close()
    finding = Finding(model_type)
    try:
        if receiving.poll(SECONDS_PER_TYPE):
            finding = receiving.recv()
        else:
            finding.fails("crash", f"no answer within {SECONDS_PER_TYPE} s")
    except EOFError:
        process.join()
        finding.fails("crash", f"the process exited with status {process.exitcode}")
    finally:
        process.kill()
        process.join()
    return finding


def _send_finding(sending: Connection, model_type: str, timed: bool) -> None:
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    sending.send(measure(model_type, timed=timed))


def measure(model_type: str, *, timed: bool = False) -> Finding:
    """Compare a type's tiny model with plain autograd in every precision, with all free memory and with the minimum."""
    finding = Finding(model_type)
    try:
        problem = make_problem(model_type)
    except Exception as error:  # noqa: BLE001 - transformers and models may raise anything
        finding.fails("not measured", _one_line(error))
        return finding
    finding.attention = problem.model.config._attn_implementation
    for precision in TOLERANCES:
        for run in (precision, f"{precision} with the least memory"):
            _compare(finding, problem, precision, run)
    if finding.outcome == "rules" and finding.by_autograd:
        finding.outcome = "autograd"
    if timed and finding.outcome in ("rules", "autograd"):
        finding.slowdown = time_against_training(problem.model)
    return finding


def make_problem(model_type: str) -> Problem:
    """Return a type's model, samples and reference, in float32 if the model does not support float64."""
    if model_type in TAKES_NO_TOKENS:
        raise ValueError(TAKES_NO_TOKENS[model_type])
    model = make_model(model_type)
    queries, originals = random_samples(QUERY_LENGTHS, seed=1), random_samples(ORIGINAL_LENGTHS, seed=2)
    try:
        reference = make_reference(model, queries, originals, torch.float64)
    except RuntimeError:
        reference = make_reference(model, queries, originals, torch.float32)
    return Problem(model, queries, originals, reference)


def _compare(finding: Finding, problem: Problem, precision: str, run: str) -> None:
    """Compare once, and record the result in the finding."""
    done_before = 0

    def progress(done: int, _: int) -> None:
        nonlocal done_before
        finding.together, done_before = max(finding.together, done - done_before), done

    way = compare if run == precision else compare_with_least_memory
    layers = problem.reference.layers
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = way(
                problem.model, problem.queries, problem.originals, "all", precision=precision, progress=progress
            )
        by_autograd = layers_by_autograd(problem.model, [str(each.message) for each in caught if is_fallback(each)])
        errors = relative_errors(result, problem.reference)
    except GradsimError as error:
        finding.fails("refused", _one_line(error), run)
        return
    except Exception as error:  # noqa: BLE001 - the page reports any other exception
        finding.fails("crash", _one_line(error), run)
        return
    finding.by_autograd = sorted({*finding.by_autograd, *by_autograd}, key=layers.index)
    finding.errors[precision] = max(finding.errors.get(precision, 0.0), float(errors.max()))
    beyond = errors > TOLERANCES[precision]
    if beyond.any():
        is_rounding = (errors <= LIKE_ITS_OWN * problem.rounding_errors(precision))[beyond].all()
        note = f"{beyond.sum()} of {len(layers)} layers, most in `{layers[errors.argmax()]}`"
        if is_rounding:
            note += f", like plain autograd in {precision}"
        finding.fails("ill-conditioned" if is_rounding else "wrong", note, run)


def is_fallback(warning: warnings.WarningMessage) -> bool:
    return issubclass(warning.category, FallbackWarning)


def compare_with_least_memory(model: PreTrainedModel, *arguments: object, **keywords: object) -> Comparison:
    """Compare with the smallest memory budget that `compare` reports."""
    budget = 1
    while True:
        try:
            return compare(model, *arguments, memory_budget=budget, **keywords)  # type: ignore[arg-type]
        except MemoryBudgetError as error:
            asked = re.search(r"at least (\d+)", str(error))
            if asked is None or int(asked[1]) <= budget:
                raise
            budget = int(asked[1])


def layers_by_autograd(model: PreTrainedModel, warned: Sequence[str]) -> set[str]:
    """Return layers without a rule, and layers with a rule that was dropped with a warning."""
    capture = GradientCapture(model)
    without_rule = {capture.layers[layer] for layer in capture.without_rule}
    dropped = {word for message in warned for word in re.split(r"[\s,:]+", message)}
    return without_rule | (dropped & set(capture.layers))


def relative_errors(result: Comparison | Reference, reference: Reference) -> Floats:
    """Return the worst error of every layer, relative to the product of the two norms; infinite for NaN."""
    if result.layers != reference.layers:
        raise ValueError(f"layers are {result.layers[:2]}, expected {reference.layers[:2]}")
    query, original = _norms(reference.query_self_dots), _norms(reference.original_self_dots)
    errors = [
        np.abs(result.dots.reshape(reference.dots.shape) - reference.dots) / (query[:, None] * original[None]),
        np.abs(result.query_self_dots - reference.query_self_dots) / query**2,
        np.abs(result.original_self_dots - reference.original_self_dots) / original**2,
    ]
    worst: Floats = np.concatenate([error.reshape(-1, len(reference.layers)) for error in errors]).max(0)
    return np.where(np.isnan(worst), np.inf, worst)


def _norms(self_dots: Floats) -> Floats:
    norms: Floats = np.maximum(np.sqrt(self_dots), LEAST_SHARE * np.sqrt(self_dots.sum(-1, keepdims=True)))
    return norms


def make_reference(
    model: PreTrainedModel, queries: Sequence[Sample], originals: Sequence[Sample], dtype: torch.dtype
) -> Reference:
    """Return all inner products, in float64, of gradients that plain autograd computes in another format."""
    of_queries = [plain_gradients(model, query, dtype) for query in queries]
    of_originals = [plain_gradients(model, original, dtype) for original in originals]
    reference = Reference(
        list(of_queries[0]),
        np.array([[_dots(query, original) for original in of_originals] for query in of_queries]),
        np.array([_dots(query, query) for query in of_queries]),
        np.array([_dots(original, original) for original in of_originals]),
    )
    if not np.isfinite(reference.dots).all():
        raise ArithmeticError("gradients are not finite")
    return reference


def plain_gradients(model: PreTrainedModel, sample: Sample, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the gradient of a sample's mean cross-entropy by autograd, on a fresh copy of the model."""
    fresh = copy.deepcopy(model).to(dtype).eval().requires_grad_(True)  # type: ignore[arg-type]
    if hasattr(fresh, "set_experts_implementation"):
        fresh.set_experts_implementation("eager")  # the default grouped products do not support float64
    accepted = inspect.signature(fresh.forward).parameters
    keywords = {"use_cache": False} if "use_cache" in accepted else {}
    logits = fresh(input_ids=torch.tensor([sample.input_ids]), **keywords).logits[0, :-1].double()
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(sample.labels[1:]), ignore_index=MASKED)
    parameters = dict(fresh.named_parameters())
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True, materialize_grads=True)
    return {name: gradient.to_dense().double() for name, gradient in zip(parameters, gradients, strict=True)}


def _dots(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[float]:
    return [float((a[layer] * b[layer]).sum()) for layer in a]


def random_samples(lengths: Sequence[int], seed: int) -> list[Sample]:
    """Return samples of these lengths with repeated tokens, including padding tokens, and the first third masked."""
    random = np.random.default_rng(seed)
    samples = []
    for number, length in enumerate(lengths):
        tokens = random.integers(0, VOCABULARY // 2, length).tolist()
        prompt = length // 3
        samples.append(Sample(f"{seed}_{number}", tokens, [MASKED] * prompt + tokens[prompt:]))
    return samples


def time_against_training(model: PreTrainedModel) -> float:
    """Return the time of `compare` relative to plain batched training passes, both medians of three rounds."""
    lengths = np.random.default_rng(0).integers(6, 47, 2 * TIMED_SAMPLES).tolist()
    queries, originals = random_samples(lengths[:TIMED_SAMPLES], 1), random_samples(lengths[TIMED_SAMPLES:], 2)
    samples = [*queries, *originals]
    batch_tokens = floor.fastest_batch_tokens(model, samples)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        ours, plain = in_turn(
            lambda: compare(model, queries, originals, "all"),
            lambda: floor.run(model, samples, batch_tokens),
            ROUNDS,
        )
    return median(ours) / median(plain)


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0].strip()}"


if __name__ == "__main__":
    main()
