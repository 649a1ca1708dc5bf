"""Adapter of kronfluence: pairwise scores with identity curvature, one matrix per linear module."""

import atexit
import logging
import shutil
import tempfile
from typing import Any

import numpy as np
from exchange import Answer, Pairwise, Sample, Setting, layer_names, serve, sum_of_mean_losses
from kronfluence.analyzer import Analyzer, prepare_model
from kronfluence.arguments import FactorArguments, ScoreArguments
from kronfluence.task import Task
from kronfluence.utils.dataset import DataLoaderKwargs
from torch import Tensor, nn

NOTE = (
    'compute_pairwise_scores, strategy "identity", compute_per_module_scores, query gradients of batches of {batch} '
    "accumulated to {groups} pass(es) over the originals, batches of {batch}; linear modules only, so of a tied "
    "embedding only the output side; weight and bias as one number"
)


class SumOfMeans(Task):  # type: ignore[misc]
    """Task with the same loss on both sides.

    Attributes:
        modules: names of the modules to track.
    """

    def __init__(self, modules: list[str]) -> None:
        super().__init__()
        self.modules = modules

    def get_influence_tracked_modules(self) -> list[str]:
        return self.modules

    def compute_train_loss(self, batch: Any, model: nn.Module, sample: bool = False) -> Tensor:
        assert not sample
        loss: Tensor = sum_of_mean_losses(model, batch)
        return loss

    def compute_measurement(self, batch: Any, model: nn.Module) -> Tensor:
        return self.compute_train_loss(batch, model)


def prepare(setting: Setting) -> Pairwise:
    layer_of = layer_names(setting.model, nn.Linear)
    layers = list(dict.fromkeys(layer_of.values()))
    task = SumOfMeans(list(layer_of))
    model = prepare_model(setting.model, task)
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    analyzer = Analyzer(
        "pairwise", model, task, cpu=True, log_level=logging.ERROR, disable_tqdm=True, output_dir=folder
    )
    # Fits nothing, but the scores need the settings on disk. Identity uses no samples, so any list works.
    analyzer.fit_all_factors("identity", [Sample([0], [0])], 1, factor_args=FactorArguments(strategy="identity"))
    batch = min(setting.batch, setting.queries_at_once)
    scoring = ScoreArguments(
        compute_per_module_scores=True, query_gradient_accumulation_steps=-(-setting.queries_at_once // batch)
    )

    def pairwise(queries: list[Sample], originals: list[Sample]) -> Answer:
        analyzer.compute_pairwise_scores(
            "dots",
            "identity",
            queries,
            originals,
            per_device_query_batch_size=batch,
            per_device_train_batch_size=setting.batch,
            dataloader_kwargs=DataLoaderKwargs(collate_fn=setting.padded),
            score_args=scoring,
            overwrite_output_dir=True,
        )
        dots = np.zeros((len(queries), len(originals), len(layers)))
        for module, found in analyzer.load_pairwise_scores("dots").items():
            dots[:, :, layers.index(layer_of[module])] += found.double().numpy()
        return Answer(layers, dots)

    return pairwise


if __name__ == "__main__":
    serve(prepare, batch=8, note=NOTE)
