"""Gradient checkpointing in eval mode: blocks keep only their input and are recomputed in the backward pass."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


@contextmanager
def checkpointed_blocks(model: nn.Module, *, enabled: bool) -> Iterator[None]:
    """Checkpoint the model's blocks inside the context, if enabled.

    Has no effect on models without transformers' `GradientCheckpointingLayer`. transformers itself checkpoints only in
    training mode, which would also enable dropout.
    """
    with ExitStack() as stack:
        for block in model.modules() if enabled else ():
            if isinstance(block, GradientCheckpointingLayer):
                stack.enter_context(_checkpointed(block))
        yield


@contextmanager
def _checkpointed(block: nn.Module) -> Iterator[None]:
    forward = block.forward
    replaced = vars(block).get("forward")

    def run(*arguments: Any, **keywords: Any) -> Any:
        # Reentrant checkpointing propagates gradients to positional arguments only.
        if not torch.is_grad_enabled() or not _requires_grad(arguments) or _requires_grad(keywords):
            return forward(*arguments, **keywords)
        return checkpoint(
            lambda *given: forward(*given, **keywords), *arguments, use_reentrant=True, preserve_rng_state=False
        )

    block.forward = run
    try:
        yield
    finally:
        if replaced is None:
            del block.forward
        else:
            block.forward = replaced


def _requires_grad(value: Any) -> bool:
    match value:
        case Tensor():
            return value.requires_grad
        case dict():
            return any(map(_requires_grad, value.values()))
        case tuple() | list():
            return any(map(_requires_grad, value))
    return False
