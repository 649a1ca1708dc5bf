"""Common code of the adapters: each reads a folder, and writes one file with dots, seconds and a note.

This module runs in the peers' environments, so it imports neither gradsim nor a peer. Call an adapter as

    python benchmarks/peers/run_NAME.py INPUT_FOLDER OUTPUT.npz [--repeat N] [--batch N]

INPUT_FOLDER contains `model/` and, for a model with an adapter, `adapter/`, both written by `save_pretrained`, and
`samples.json` with lists `queries` and `originals` of objects with `id`, `input_ids`, `labels`, and the side of the
`padding`. Label -100 is masked; labels are not shifted.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

MASKED = -100
WARM_UP_SAMPLES = 2
# Size of query gradients that a peer holds while originals are processed. More queries are processed in groups, and the
# originals then run once for each group, as the peers recommend if memory is short.
QUERY_BYTES = 4 << 30
SUM = " + "
"""Joins the names of parameters that a peer combines into one number."""


class Sample(NamedTuple):
    """Token ids and labels of one sample, of equal length."""

    input_ids: list[int]
    labels: list[int]


class Answer(NamedTuple):
    """Result of a peer.

    Attributes:
        layers: parameter names as in `model.named_parameters()`, joined by `SUM` if one number stands for several.
        dots: (queries, originals, layers) inner products.
    """

    layers: list[str]
    dots: NDArray[np.float64]


class Setting(NamedTuple):
    """Inputs of an adapter.

    Attributes:
        model: the model in eval mode; only parameters that are layers require a gradient.
        batch: number of samples per batch.
        queries_at_once: number of query gradients held at once.
        padding: side of the padding, "right" or "left", for peers that leave padding to their caller.
    """

    model: PreTrainedModel
    batch: int
    queries_at_once: int
    padding: str

    def padded(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Return arguments of the model and `labels`, as a batch of shape (samples, longest).

        Causal attention and the loss ignore padding on the right; padding on the left needs a mask. The positions are
        those of each sample alone. Without them, a table of learned positions runs once for the whole batch.
        """
        width = max(len(sample.input_ids) for sample in samples)

        def rows(values: Sequence[list[int]], filler: int) -> Tensor:
            padding = [[filler] * (width - len(row)) for row in values]
            left, right = (padding, values) if self.padding == "left" else (values, padding)
            return torch.tensor([[*start, *end] for start, end in zip(left, right, strict=True)])

        mask = rows([[1] * len(sample.input_ids) for sample in samples], 0)
        batch = {
            "input_ids": rows([sample.input_ids for sample in samples], 0),
            # Nothing precedes the first token, so that nothing predicts it.
            "labels": rows([[MASKED, *sample.labels[1:]] for sample in samples], MASKED),
            "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
        }
        return batch | {"attention_mask": mask} if self.padding == "left" else batch


Pairwise = Callable[[list[Sample], list[Sample]], Answer]


def serve(prepare: Callable[[Setting], Pairwise], *, batch: int, note: str) -> None:
    """Read the input, let the peer compute every pair `--repeat` times, and write the output.

    Args:
        prepare: returns the function that is timed; like loading the model, `prepare` itself is not timed.
        batch: default number of samples per batch.
        note: settings and omissions, for readers of the result; `{batch}` and `{groups}` are filled in.
    """
    parser = argparse.ArgumentParser(description="Compute gradient dots of all query-original pairs with a peer.")
    parser.add_argument("input", type=Path, help="folder with model/ and samples.json")
    parser.add_argument("output", type=Path, help="NumPy archive to write")
    parser.add_argument("--repeat", type=int, default=1, help="number of timed repetitions (1)")
    parser.add_argument("--batch", type=int, default=batch, help=f"samples per batch ({batch})")
    arguments = parser.parse_args()

    model = _model(arguments.input)
    content = json.loads((arguments.input / "samples.json").read_text(encoding="utf-8"))
    queries, originals = (
        [Sample(row["input_ids"], row["labels"]) for row in content[group]] for group in ("queries", "originals")
    )
    gradient_bytes = sum(parameter.numel() * 4 for parameter in model.parameters())
    at_once = _queries_at_once(len(queries), QUERY_BYTES // gradient_bytes, arguments.batch)
    pairwise = prepare(Setting(model, arguments.batch, at_once, content["padding"]))

    # Sorted by length, so that a batch has similar lengths and little padding.
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


def sum_of_mean_losses(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Return the sum of each sample's mean cross-entropy, so that no sample's gradient depends on the others."""
    inputs = {name: values for name, values in batch.items() if name != "labels"}
    logits = model(**inputs, use_cache=False).logits[:, :-1]
    labels = batch["labels"][:, 1:]
    losses = nn.functional.cross_entropy(logits.transpose(1, 2), labels, ignore_index=MASKED, reduction="none")
    means: Tensor = losses.sum(1) / (labels != MASKED).sum(1)
    return means.sum()


def layer_names(model: nn.Module, *module_types: type[nn.Module]) -> dict[str, str]:
    """Return the layer of each module of these types that has one: its trainable weight and bias, joined by `SUM`.

    A tied weight has the one name that it has in `model.named_parameters()`, in each of its modules.
    """
    names = {parameter: name for name, parameter in model.named_parameters() if parameter.requires_grad}
    found = {
        path: SUM.join(names[parameter] for parameter in module.parameters(recurse=False) if parameter in names)
        for path, module in model.named_modules()
        if isinstance(module, module_types)
    }
    return {path: layer for path, layer in found.items() if layer}


def groups(samples: list[Sample], size: int) -> Iterator[list[Sample]]:
    """Yield the samples in order, `size` at a time."""
    for start in range(0, len(samples), size):
        yield samples[start : start + size]


def _queries_at_once(queries: int, fitting: int, batch: int) -> int:
    """Return all queries, or as many whole batches as fit, or less than a batch."""
    if fitting >= queries:
        return queries
    return max(1, fitting - fitting % batch if fitting > batch else fitting)


def _model(folder: Path) -> PreTrainedModel:
    model: Any = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    if (folder / "adapter").is_dir():
        from peft import PeftModel  # noqa: PLC0415 - slow to import

        model = PeftModel.from_pretrained(model, folder / "adapter", is_trainable=True).get_base_model()
    assert isinstance(model, PreTrainedModel)
    model.eval()
    return model


def _by_length(samples: list[Sample]) -> list[int]:
    return sorted(range(len(samples)), key=lambda position: len(samples[position].input_ids))
