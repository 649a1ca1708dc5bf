"""Models as they are written: neither compiled, whose graphs call no hooks, nor with experts that lack a precision."""

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
    """Run all of a model as it was before it or its modules were compiled, under the names of that time."""
    with ExitStack() as stack:
        # Wrappers go first, so that the modules within them are reached by their own names.
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
    """Run stacks of experts one by one in float64, which the kernels that group them do not know."""
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
    """Return the module within what `torch.compile` made of it, or the module itself."""
    while module is not None and "_orig_mod" in module._modules:
        module = module._modules["_orig_mod"]
    return module
