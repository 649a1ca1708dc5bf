"""What the adapters have in common: they are given a folder, and leave one file with dots, seconds and a note.

It runs in the peers' environments, so it imports nothing of gradsim and nothing of a peer. An adapter is called as

    python benchmarks/peers/run_NAME.py INPUT_FOLDER OUTPUT.npz [--repeat N] [--batch N]

INPUT_FOLDER holds `model/` (written by `save_pretrained`) and `samples.json` with lists `queries` and `originals` of
objects `id`, `input_ids`, `labels`; label -100 is masked, labels are not shifted.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

MASKED = -100
WARM_UP_SAMPLES = 2
# Query gradients that a peer keeps while the originals go by. More queries are taken in groups, and the originals are
# then run once for each group, as the peers themselves advise where memory is short.
QUERY_BYTES = 4 << 30


class Sample(NamedTuple):
    """Token ids and labels of one sample, of one length."""

    input_ids: list[int]
    labels: list[int]


class Answer(NamedTuple):
    """What a peer says.

    Attributes:
        layers: names of the parameters, as `model.named_parameters()` has them.
        dots: (queries, originals, layers)
    """

    layers: list[str]
    dots: NDArray[np.float64]


class Setting(NamedTuple):
    """What an adapter gets: the model in eval mode, samples in a batch, queries whose gradients are held at once."""

    model: PreTrainedModel
    batch: int
    queries_at_once: int


Pairwise = Callable[[list[Sample], list[Sample]], Answer]


def serve(prepare: Callable[[Setting], Pairwise], *, batch: int, note: str) -> None:
    """Read the input, let the peer compute every pair as often as wanted, and write the output.

    Args:
        prepare: makes the function that is timed; what it does itself is not timed, like the loading of the model.
        batch: samples in a batch, unless the command line says otherwise.
        note: settings and what is left out, for the reader of the result; `{batch}` and `{groups}` are filled in.
    """
    parser = argparse.ArgumentParser(description="All query-original pairs of single-sample gradient dots by a peer.")
    parser.add_argument("input", type=Path, help="folder with model/ and samples.json")
    parser.add_argument("output", type=Path, help="NumPy archive to write")
    parser.add_argument("--repeat", type=int, default=1, help="how often the whole computation is done and timed")
    parser.add_argument("--batch", type=int, default=batch, help=f"samples in a batch ({batch})")
    arguments = parser.parse_args()

    model = _model(arguments.input / "model")
    queries, originals = _samples(arguments.input / "samples.json")
    gradient_bytes = sum(parameter.numel() * 4 for parameter in model.parameters())
    at_once = _queries_at_once(len(queries), QUERY_BYTES // gradient_bytes, arguments.batch)
    pairwise = prepare(Setting(model, arguments.batch, at_once))

    # The shortest come first, so that a batch holds samples of like lengths and little padding.
    query_order, original_order = _by_length(queries), _by_length(originals)
    sorted_queries = [queries[position] for position in query_order]
    sorted_originals = [originals[position] for position in original_order]
    pairwise(sorted_queries[-WARM_UP_SAMPLES:], sorted_originals[-WARM_UP_SAMPLES:])

    seconds = []
    for _ in range(arguments.repeat):
        started = time.perf_counter()
        answer = pairwise(sorted_queries, sorted_originals)
        seconds.append(time.perf_counter() - started)

    dots = np.empty_like(answer.dots)
    dots[np.ix_(query_order, original_order)] = answer.dots
    np.savez(
        arguments.output,
        layers=np.array(answer.layers),
        dots=dots,
        seconds=np.array(seconds),
        threads=np.array(torch.get_num_threads()),
        note=np.array(note.format(batch=arguments.batch, groups=-(-len(queries) // at_once))),
    )


def padded(samples: Sequence[Sample]) -> dict[str, Tensor]:
    """A batch, padded at the right: under causal attention no real token sees it, and no loss is taken there."""
    width = max(len(sample.input_ids) for sample in samples)
    return {
        name: torch.tensor([row + [filler] * (width - len(row)) for row in rows])
        for name, filler, rows in (
            ("input_ids", 0, [sample.input_ids for sample in samples]),
            ("labels", MASKED, [sample.labels for sample in samples]),
        )
    }


def sum_of_mean_losses(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Each sample's mean cross-entropy over its own labels, summed: so no sample's gradient depends on the others."""
    logits = model(input_ids=batch["input_ids"], use_cache=False).logits[:, :-1]
    labels = batch["labels"][:, 1:]
    losses = nn.functional.cross_entropy(logits.transpose(1, 2), labels, ignore_index=MASKED, reduction="none")
    means: Tensor = losses.sum(1) / (labels != MASKED).sum(1)
    return means.sum()


def weight_names(model: nn.Module, module_type: type[nn.Module]) -> dict[str, str]:
    """Module name -> name of its weight in `named_parameters()`, which has a tied weight only once.

    Raises:
        ValueError: a module of the type has a bias: the peers put weight and bias into one number.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    found: dict[str, str] = {}
    for name, module in model.named_modules():
        if isinstance(module, module_type):
            if getattr(module, "bias", None) is not None:
                raise ValueError(f"{name} has a bias, which the peers do not keep apart: give a model without")
            weight = module.weight
            assert isinstance(weight, nn.Parameter)
            found[name] = names[weight]
    return found


def groups(samples: list[Sample], size: int) -> Iterator[list[Sample]]:
    """The samples in order, `size` at a time."""
    for start in range(0, len(samples), size):
        yield samples[start : start + size]


def _queries_at_once(queries: int, fitting: int, batch: int) -> int:
    """All, or as many whole batches as fit, or less than a batch."""
    if fitting >= queries:
        return queries
    return max(1, fitting - fitting % batch if fitting > batch else fitting)


def _model(folder: Path) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert isinstance(model, PreTrainedModel)
    model.eval()
    return model


def _samples(path: Path) -> tuple[list[Sample], list[Sample]]:
    content = json.loads(path.read_text(encoding="utf-8"))
    queries, originals = (
        [Sample(row["input_ids"], row["labels"]) for row in content[group]] for group in ("queries", "originals")
    )
    return queries, originals


def _by_length(samples: list[Sample]) -> list[int]:
    return sorted(range(len(samples)), key=lambda position: len(samples[position].input_ids))
