"""Eager execution: without compiled graphs, which skip hooks, and without expert kernels that lack a dtype."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel


def uncompiled_model(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model that `torch.compile` wrapped, or the model itself."""
    inner: PreTrainedModel = _unwrapped(model)
    return inner


@contextmanager
def uncompiled_modules(model: nn.Module) -> Iterator[None]:
    """Run a model's compiled modules in eager mode inside the context, under their original names."""
    with ExitStack() as stack:
        # Remove wrappers first, so that the modules inside have their original names.
        for parent in list(model.modules()):
            for name, child in list(parent._modules.items()):
                if _unwrapped(child) is not child:
                    parent._modules[name] = _unwrapped(child)
                    stack.callback(parent._modules.__setitem__, name, child)
        for module in model.modules():
            attributes = vars(module)
            if attributes.get("_compiled_call_impl") is not None:  # by `module.compile()`
                stack.callback(attributes.__setitem__, "_compiled_call_impl", attributes["_compiled_call_impl"])
                attributes["_compiled_call_impl"] = None
            if (written := getattr(attributes.get("forward"), "_torchdynamo_orig_callable", None)) is not None:
                stack.callback(attributes.__setitem__, "forward", attributes["forward"])
                attributes["forward"] = written
        yield


@contextmanager
def experts_that_compute_in(model: PreTrainedModel, dtype: torch.dtype) -> Iterator[None]:
    """Use the eager experts implementation for float64 inside the context; grouped kernels do not support it."""
    if dtype != torch.float64 or not hasattr(model, "set_experts_implementation"):
        yield
        return
    before = model.get_experts_implementation()
    model.set_experts_implementation("eager")
    try:
        yield
    finally:
        model.set_experts_implementation(before)


def _unwrapped(module: Any) -> Any:
    """Return the module inside a `torch.compile` wrapper, or the module itself."""
    while module is not None and "_orig_mod" in module._modules:
        module = module._modules["_orig_mod"]
    return module
