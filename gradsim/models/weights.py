"""Whether a model's weights are those that its configuration asks for."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from gradsim.errors import ModelError


def require_matching_weights(model: PreTrainedModel, report: Mapping[str, Any], name: str) -> None:
    """Refuse weights with which a model computes something else than its files mean.

    transformers fills in what is missing at random, and leaves out what it has no place for.

    Args:
        model: as it was loaded.
        report: transformers' account of the loading.
        name: what errors call the model.

    Raises:
        ModelError: weights are missing, of another shape, or left over in a module; or a tied head is not tied.
    """
    if report["mismatched_keys"]:
        weight, stored, expected = min(report["mismatched_keys"])
        raise ModelError(
            f"model {name}: its weights hold {weight} of shape {tuple(stored)} where its config.json means "
            f"{tuple(expected)}; correct config.json, or download or train it again"
        )
    if report["missing_keys"]:
        missing = min(report["missing_keys"])
        fix = "download or train it again"
        if report["missing_keys"] == _head_weights(model):
            fix = f"set tie_word_embeddings to true in its config.json if the head is the input embedding, or {fix}"
        raise ModelError(f"model {name}: its weights lack {missing}; {fix}")
    untied = model.get_expanded_tied_weights_keys(all_submodels=True).keys() - model.all_tied_weights_keys.keys()
    if untied:
        raise ModelError(
            f"model {name}: its config.json ties {min(untied)} to another weight, but its weights hold two different "
            "ones; set tie_word_embeddings to false in its config.json if the model was trained so"
        )
    if left_over := min(_within_modules(model, report["unexpected_keys"]), default=None):
        raise ModelError(
            f"model {name}: its weights hold {left_over}, for which the model of its config.json has no place; "
            "correct config.json, or merge an adapter into the model"
        )


def _head_weights(model: PreTrainedModel) -> set[str]:
    head: Any = model.get_output_embeddings()
    return {name for name, parameter in model.named_parameters() if head is not None and parameter is head.weight}


def _within_modules(model: nn.Module, weights: Iterable[str]) -> set[str]:
    """Return the weights of blocks that the model lacks, and those in or below a module that has weights of its own.

    Others are those of heads for other tasks, and masks that old checkpoints hold.
    """
    modules: dict[str, nn.Module] = dict(model.named_modules())

    def has_weights_or_blocks(module: nn.Module) -> bool:
        return isinstance(module, nn.ModuleList) or any(True for _ in module.parameters(recurse=False))

    def owner(weight: str) -> nn.Module:
        while weight not in modules:
            weight = weight.rpartition(".")[0]
        return modules[weight]

    return {weight for weight in weights if has_weights_or_blocks(owner(weight))}
