"""Gradient checkpointing in eval mode: blocks run again in the backward pass, and keep only their input till then."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


@contextmanager
def checkpointed_blocks(model: nn.Module, *, enabled: bool) -> Iterator[None]:
    """Within, the model's blocks are checkpointed; a model without transformers' checkpointing blocks runs as ever.

    transformers itself checkpoints in training mode only, which would bring dropout with it.
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
        # Reentrant checkpointing sends gradients back to positional arguments only.
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
