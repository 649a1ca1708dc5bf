"""Every causal model type of the installed transformers, tiny and random, against plain autograd in float64.

    python benchmarks/families.py                          # all types, a quarter of an hour on one core
    python benchmarks/families.py --types llama,gpt2 --time
    python benchmarks/families.py --write docs/models.md   # and write the page

Each type runs in a process of its own that may take two minutes. It is compared in float32 and in float64, with all
the memory that is free and with the least that `compare` accepts, where blocks are checkpointed. Prints a line of JSON
for each type, and how many there are of each outcome.
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
# Some lengths twice, so that samples run together with and without padding.
QUERY_LENGTHS, ORIGINAL_LENGTHS = (6, 23, 23, 46), (9, 17, 17, 31, 46)
TIMED_SAMPLES, ROUNDS = 32, 3
SECONDS_PER_TYPE = 120
# A layer's norm counts as at least this share of the whole gradient's: below it there is rounding.
LEAST_SHARE = 1e-6
# Rounding like that of the model itself is at most so many times as large.
LIKE_ITS_OWN = 5

Floats = NDArray[np.float64]
# A server that has the heavy imports, and nothing else, forks the processes.
PROCESSES = multiprocessing.get_context("forkserver")


@dataclass
class Finding:
    """What a type gave.

    Attributes:
        outcome: one of `OUTCOMES`.
        by_autograd: the layers that autograd computes.
        errors: the worst for each precision, over the product of the layer's norms.
        together: most samples that ran in one pass.
        slowdown: the time of `compare` over that of plain batched training passes of the samples.
        notes: what went wrong, and the runs in which it did.
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
        """Take a failure down; the worst decides the outcome."""
        self.outcome = max(self.outcome, outcome, key=OUTCOMES.index)
        self.notes.setdefault(note, []).append(run)


# From the best to the worst. Exact are "rules" and "autograd"; "ill-conditioned" is beyond the tolerance, but so is
# plain autograd.
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
    """A model, samples, and what their inner products are."""

    model: PreTrainedModel
    queries: list[Sample]
    originals: list[Sample]
    reference: Reference

    def rounding_errors(self, precision: str) -> Floats:
        """Return the worst error of plain autograd in a precision, for every layer.

        Errors are measured against float64. There, the weights are changed by 1e-12 of themselves, three times, which
        changes numbers by more than 1e-10 only where a model computes partly in float32.
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
    parser.add_argument("--types", type=lambda names: names.split(","), default=TYPES, help="with commas between them")
    parser.add_argument("--time", action="store_true", help="time compare beside plain batched training passes")
    parser.add_argument("--processes", type=int, choices=(1, 2), default=2)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write what was found as a page in Markdown")
    arguments = parser.parse_args()
    PROCESSES.set_forkserver_preload(["transformers.modeling_utils", "gradsim.gradients"])
    with ThreadPoolExecutor(arguments.processes) as pool:
        found = pool.map(lambda name: measure_apart(name, timed=arguments.time), arguments.types)
        findings = [emit(asdict(finding)) for finding in found]
    print(dict(Counter(finding["outcome"] for finding in findings)))
    if arguments.write:
        write_page(arguments.write, findings)


def measure_apart(model_type: str, *, timed: bool) -> Finding:
    """Measure a type in a process of its own, whose end or silence is a finding."""
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
        finding.fails("crash", f"the process ended with status {process.exitcode}")
    finally:
        process.kill()
        process.join()
    return finding


def _send_finding(sending: Connection, model_type: str, timed: bool) -> None:
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    sending.send(measure(model_type, timed=timed))


def measure(model_type: str, *, timed: bool = False) -> Finding:
    """Compare a type's tiny model with plain autograd in every precision, with much memory and with little."""
    finding = Finding(model_type)
    try:
        problem = make_problem(model_type)
    except Exception as error:  # noqa: BLE001 - whatever transformers or a model's own code raises
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
    """Make a type's model and samples, and compute what is right, in float32 if the model refuses float64."""
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
    """Compare once, and add what comes of it to the finding."""
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
    except Exception as error:  # noqa: BLE001 - whatever else comes is a fault that the page names
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
    """Compare with the memory budget that `compare` itself says is the least."""
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
    """Return the layers without a rule, and those whose rule was dropped with a warning."""
    capture = GradientCapture(model)
    without_rule = {capture.layers[layer] for layer in capture.without_rule}
    dropped = {word for message in warned for word in re.split(r"[\s,:]+", message)}
    return without_rule | (dropped & set(capture.layers))


def relative_errors(result: Comparison | Reference, reference: Reference) -> Floats:
    """Return the worst error of every layer, over the product of the two norms; infinite where numbers are missing."""
    if result.layers != reference.layers:
        raise ValueError(f"layers are {result.layers[:2]}, not {reference.layers[:2]}")
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
    """Compute all inner products, in float64, from gradients that plain autograd computes in another format."""
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
    """Gradient of a sample's mean cross-entropy by autograd, on a copy of the model that no sample has touched."""
    fresh = copy.deepcopy(model).to(dtype).eval().requires_grad_(True)  # type: ignore[arg-type]
    if hasattr(fresh, "set_experts_implementation"):
        fresh.set_experts_implementation("eager")  # grouped products, the default, know no float64
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
    """Samples of these lengths: tokens that repeat, padding among them, the first third masked."""
    random = np.random.default_rng(seed)
    samples = []
    for number, length in enumerate(lengths):
        tokens = random.integers(0, VOCABULARY // 2, length).tolist()
        prompt = length // 3
        samples.append(Sample(f"{seed}_{number}", tokens, [MASKED] * prompt + tokens[prompt:]))
    return samples


def time_against_training(model: PreTrainedModel) -> float:
    """Return the seconds of `compare` over those of plain batched training passes, each the median of three."""
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
