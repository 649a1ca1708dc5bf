"""Adapter of bergson: what `build` and `score` run, unprojected, in memory, with one scorer per module."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bergson import CollectorComputer, GradientProcessor, IndexConfig, InMemoryCollector, Scorer
from bergson.data import allocate_batches
from bergson.score.score_writer import InMemorySequenceScoreWriter
from datasets import Dataset
from exchange import Answer, Pairwise, Sample, Setting, groups, serve, weight_names
from torch import Tensor, nn

NOTE = (
    "query gradients by InMemoryCollector, originals scored as they stream (as `bergson build` and `bergson score` do, "
    "without files and model loading), projection_dim 0, no normalizer, mean loss, batches of {batch} of the longest "
    "samples or as many tokens, {groups} pass(es) over the originals; "
    "linear modules of the base model: neither embedding nor output head"
)


class ModuleScorers:
    """A collector's scorer that delegates to one scorer per module; the package's own sums over modules."""

    streaming = True

    def __init__(self, gradients: dict[str, Tensor], originals: int) -> None:
        self.scorers = {
            name: Scorer(
                {name: gradient},
                [name],
                InMemorySequenceScoreWriter(originals, len(gradient)),
                torch.device("cpu"),
                torch.float32,
            )
            for name, gradient in gradients.items()
        }

    @property
    def writer(self) -> "ModuleScorers":
        return self

    @property
    def scores(self) -> dict[str, Tensor]:
        """(originals, queries) scores of each module."""
        return {name: scorer.writer.scores for name, scorer in self.scorers.items()}

    def accumulate(self, name: str, gradient: Any) -> None:
        self.scorers[name].accumulate(name, gradient)

    def __call__(self, indices: list[int], _: Any) -> None:
        for scorer in self.scorers.values():
            scorer(indices, {})


def prepare(setting: Setting) -> Pairwise:
    model = setting.model
    # As the package's own loading: weights need no gradient, but the backward pass must reach every layer.
    model.requires_grad_(False)
    model.get_input_embeddings().requires_grad_(True)
    prefix = f"{model.base_model_prefix}."
    weights = {
        name.removeprefix(prefix): weight
        for name, weight in weight_names(model, nn.Linear).items()
        if name.startswith(prefix)
    }
    layers = [name for name, _ in model.named_parameters() if name in weights.values()]

    def collect(samples: list[Sample], folder: str, scorer: ModuleScorers | None) -> InMemoryCollector:
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
            model=model.base_model, data=data, cfg=configuration, processor=GradientProcessor(), scorer=scorer
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
                scores = collect(originals, folder, ModuleScorers(gradients, len(originals))).scores
                for module, found in scores.items():
                    dots[start : start + len(group), :, layers.index(weights[module])] = found.double().numpy().T
                start += len(group)
        return Answer(layers, dots)

    return pairwise


if __name__ == "__main__":
    serve(prepare, batch=8, note=NOTE)
