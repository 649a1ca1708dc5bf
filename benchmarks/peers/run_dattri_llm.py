"""Adapter of dattri-LLM: its live TracIn attributor, the plain inner product of gradients, kept per layer."""

import tempfile
from typing import Any

import numpy as np
import torch
from dattri_llm import REGISTER_ALL, AttributionArguments, AttributionTask, HookManagerConfig, TracInAttributor
from dattri_llm.gradient import ops
from dattri_llm.gradient.streaming import GradientStreamer
from exchange import Answer, Pairwise, Sample, Setting, layer_names, serve, sum_of_mean_losses
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

NOTE = (
    "TracInAttributor.attribute, live, batches of {batch}, capture_style auto, linear layers by the capture that skips "
    "gradients of weights (invasive_linear_io); a tied weight is scored as two weights, without cross terms; weight "
    "and bias as one number"
)


class LayerDots(TracInAttributor):  # type: ignore[misc]
    """The attributor, which sums over layers, with a record of each layer's share.

    The package intends `inner_product` and the two `generate_...` methods to be overridden.
    """

    def __init__(self, arguments: AttributionArguments, task: AttributionTask, setting: Setting) -> None:
        super().__init__(arguments, task=task)
        self.collate = setting.padded
        self.blocks: list[dict[str, Tensor]] = []

    def inner_product(self, train_rep: Any, test_rep: Any, *, dense_cache: Any = None) -> Tensor:
        per_layer: dict[str, Tensor] = ops.layerwise_cross_dot(
            train_rep, test_rep, dense_cache=dense_cache, reduce="none"
        )
        self.blocks.append(per_layer)
        return torch.stack(list(per_layer.values())).sum(0)

    def generate_train_rep(self, train_dataset: Any, *, hook_config: Any = None, **_: Any) -> GradientStreamer:
        return GradientStreamer(
            self.task.model,
            train_dataset,
            self.args,
            batch_size=self.args.per_device_train_batch_size,
            loss_fn=self.train_loss_fn(),
            config=hook_config,
            collate_fn=self.collate,
        )

    def generate_test_rep(self, test_dataset: Any, *, hook_manager: Any = None, **_: Any) -> GradientStreamer:
        return GradientStreamer(
            self.task.model,
            test_dataset,
            self.args,
            batch_size=self.args.per_device_eval_batch_size,
            loss_fn=self.test_loss_fn(),
            hook_manager=hook_manager,
            collate_fn=self.collate,
        )


def prepare(setting: Setting) -> Pairwise:
    model = setting.model
    hooked = layer_names(model, nn.Embedding, nn.LayerNorm, Conv1D)
    layer_of = hooked | layer_names(model, nn.Linear)
    layers = list(dict.fromkeys(layer_of.values()))
    hooks = HookManagerConfig(
        hook_types=dict.fromkeys(hooked, "linear_io"),
        invasive_linear_io=REGISTER_ALL,
        capture_style="auto",
    )

    def pairwise(queries: list[Sample], originals: list[Sample]) -> Answer:
        dots = np.zeros((len(queries), len(originals), len(layers)))
        with tempfile.TemporaryDirectory() as folder:
            arguments = AttributionArguments(
                output_dir=folder,
                per_device_train_batch_size=setting.batch,
                per_device_eval_batch_size=setting.batch,
                use_cpu=True,
            )
            attributor = LayerDots(arguments, AttributionTask(sum_of_mean_losses, model), setting)
            attributor.attribute(originals, queries, hook_config=hooks)
        # Blocks are original-major, in the order of the samples.
        original = query = 0
        for block in attributor.blocks:
            for module, found in block.items():
                height, width = found.shape
                part = dots[query : query + width, original : original + height, layers.index(layer_of[module])]
                part += found.double().numpy().T
            query += width
            if query == len(queries):
                original, query = original + height, 0
        return Answer(layers, dots)

    return pairwise


if __name__ == "__main__":
    serve(prepare, batch=8, note=NOTE)
