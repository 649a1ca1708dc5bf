"""Adapter of bergson: what `build` and `score` run, unprojected, in memory, with one scorer per layer."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bergson import CollectorComputer, GradientProcessor, IndexConfig, InMemoryCollector, Scorer
from bergson.data import allocate_batches
from bergson.score.score_writer import InMemorySequenceScoreWriter
from datasets import Dataset
from exchange import SUM, Answer, Pairwise, Sample, Setting, groups, layer_names, serve
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

NOTE = (
    "query gradients by InMemoryCollector, originals scored as they stream (as `bergson build` and `bergson score` do, "
    "without files and model loading), projection_dim 0, no normalizer, mean loss, batches of {batch} of the longest "
    "samples or as many tokens, {groups} pass(es) over the originals; "
    "linear modules of the base model: neither embedding nor output head"
)


class LayerScorers:
    """A collector's scorer that delegates to one scorer per layer; the package's own sums over modules.

    Attributes:
        elements: number of elements of each module's weight and, if it has one, bias, by the parameter's name.
        scorers: the scorer of each layer.
    """

    streaming = True

    def __init__(self, elements: dict[str, dict[str, int]], gradients: dict[str, Tensor], originals: int) -> None:
        self.elements = elements
        self.scorers = {
            layer: Scorer(
                {layer: gradient},
                [layer],
                InMemorySequenceScoreWriter(originals, len(gradient)),
                torch.device("cpu"),
                torch.float32,
            )
            for module, whole in gradients.items()
            for layer, gradient in self.parts(module, whole).items()
        }

    def parts(self, module: str, gradient: Tensor) -> dict[str, Tensor]:
        """Return a module's (queries, elements) gradients for each of its layers, with 0 for the other layer.

        The package appends the gradient of the bias to that of the weight as a last column.
        """
        weight, *bias = self.elements[module]
        if not bias:
            return {weight: gradient}
        columns = gradient.reshape(len(gradient), self.elements[module][bias[0]], -1)
        is_bias = torch.arange(columns.shape[-1]) == columns.shape[-1] - 1
        return {weight: (columns * ~is_bias).flatten(1), bias[0]: (columns * is_bias).flatten(1)}

    @property
    def writer(self) -> "LayerScorers":
        return self

    @property
    def scores(self) -> dict[str, Tensor]:
        """(originals, queries) scores of each layer."""
        return {name: scorer.writer.scores for name, scorer in self.scorers.items()}

    def accumulate(self, name: str, gradient: Any) -> None:
        for layer in self.elements[name]:
            self.scorers[layer].accumulate(layer, gradient)

    def __call__(self, indices: list[int], _: Any) -> None:
        for scorer in self.scorers.values():
            scorer(indices, {})


def prepare(setting: Setting) -> Pairwise:
    model = setting.model
    prefix = f"{model.base_model_prefix}."
    parameters = dict(model.named_parameters())
    elements = {
        path.removeprefix(prefix): {name: parameters[name].numel() for name in layer.split(SUM)}
        for path, layer in layer_names(model, nn.Linear, Conv1D).items()
        if path.startswith(prefix)
    }
    layers = [name for of_module in elements.values() for name in of_module]
    # As the package's own loading: weights need no gradient, but the backward pass must reach every layer.
    model.requires_grad_(False)
    model.get_input_embeddings().requires_grad_(True)

    def collect(samples: list[Sample], folder: str, scorer: LayerScorers | None) -> InMemoryCollector:
        longest = max(len(sample.input_ids) for sample in samples)
        configuration = IndexConfig(
            str(Path(folder) / "run"),
            projection_dim=0,
            loss_reduction="mean",
            token_batch_size=setting.batch * longest,
        )
        configuration.partial_run_path.mkdir(exist_ok=True)
        data = Dataset.from_dict(
            {
                "input_ids": [sample.input_ids for sample in samples],
                "labels": [sample.labels for sample in samples],
                "length": [len(sample.input_ids) for sample in samples],
            }
        )
        collector = InMemoryCollector(
            model=model.base_model,
            target_modules=set(elements),
            data=data,
            cfg=configuration,
            processor=GradientProcessor(include_bias=True),
            scorer=scorer,
        )
        batches = allocate_batches(data["length"][:], configuration.token_batch_size)
        CollectorComputer(
            model, data, collector=collector, batches=batches, cfg=configuration
        ).run_with_collector_hooks()
        return collector

    def pairwise(queries: list[Sample], originals: list[Sample]) -> Answer:
        dots = np.zeros((len(queries), len(originals), len(layers)))
        start = 0
        with tempfile.TemporaryDirectory() as folder:
            for group in groups(queries, setting.queries_at_once):
                gradients = collect(group, folder, None).gradients
                scores = collect(originals, folder, LayerScorers(elements, gradients, len(originals))).scores
                for layer, found in scores.items():
                    dots[start : start + len(group), :, layers.index(layer)] = found.double().numpy().T
                start += len(group)
        return Answer(layers, dots)

    return pairwise


if __name__ == "__main__":
    serve(prepare, batch=8, note=NOTE)
