"""Check that a model's weights match its configuration."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from gradsim.errors import ModelError


def require_matching_weights(model: PreTrainedModel, report: Mapping[str, Any], name: str) -> None:
    """Require that the loaded weights match the model's configuration.

    transformers initializes missing weights randomly and ignores unexpected ones, which can silently change the model.

    Args:
        model: loaded model.
        report: loading info from transformers.
        name: name of the model in error messages.

    Raises:
        ModelError: Weights are missing, mismatched in shape, or unexpected in a module, or tied weights are not equal.
    """
    if report["mismatched_keys"]:
        weight, stored, expected = min(report["mismatched_keys"])
        raise ModelError(
            f"model {name}: its weights contain {weight} of shape {tuple(stored)}, but its config.json specifies "
            f"{tuple(expected)}; correct config.json, or download or train it again"
        )
    if report["missing_keys"]:
        missing = min(report["missing_keys"])
        fix = "download or train it again"
        if report["missing_keys"] == _head_weights(model):
            fix = f"set tie_word_embeddings to true in its config.json if the head is the input embedding, or {fix}"
        raise ModelError(f"model {name}: its weights do not contain {missing}; {fix}")
    untied = model.get_expanded_tied_weights_keys(all_submodels=True).keys() - model.all_tied_weights_keys.keys()
    if untied:
        raise ModelError(
            f"model {name}: its config.json ties {min(untied)} to another weight, but its files contain different "
            "values for the two; set tie_word_embeddings to false in its config.json if it was trained untied"
        )
    if left_over := min(_within_modules(model, report["unexpected_keys"]), default=None):
        raise ModelError(
            f"model {name}: its weights contain {left_over}, which the model described by its config.json does not "
            "have; correct config.json, or merge an adapter into the model"
        )


def _head_weights(model: PreTrainedModel) -> set[str]:
    head: Any = model.get_output_embeddings()
    return {name for name, parameter in model.named_parameters() if head is not None and parameter is head.weight}


def _within_modules(model: nn.Module, weights: Iterable[str]) -> set[str]:
    """Return the unexpected weights that belong to a missing block or to a module with weights of its own.

    Other unexpected weights are harmless: heads for other tasks, and masks from old checkpoints.
    """
    modules: dict[str, nn.Module] = dict(model.named_modules())

    def has_weights_or_blocks(module: nn.Module) -> bool:
        return isinstance(module, nn.ModuleList) or any(True for _ in module.parameters(recurse=False))

    def owner(weight: str) -> nn.Module:
        while weight not in modules:
            weight = weight.rpartition(".")[0]
        return modules[weight]

    return {weight for weight in weights if has_weights_or_blocks(owner(weight))}
