"""Restore the state that a model keeps between calls, so that no call depends on earlier ones.

A forward pass may replace buffers and attributes of its modules. Dynamic rotary embeddings, for example, remember the
longest sequence so far, which changes the results for later, shorter inputs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

_SIMPLE = (bool, int, float, str, type(None), torch.Tensor)
_ABSENT = object()


class FreshState:
    """Snapshot of the buffers and simple attributes of a model's modules.

    Simple attributes are tensors, numbers, strings and `None`. Parameters, lists and other objects are not restored.
    In-place changes of tensors are detected by the tensor's version counter. Writes to `tensor.data`, and batch
    normalization in training mode, do not increment it and go unnoticed.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = [_ModuleState(module) for module in model.modules()]

    def restore(self) -> None:
        """Restore everything. Leaves unchanged tensors alone, because autograd may still need them."""
        for state in self._modules:
            state.restore()


@contextmanager
def fresh_state(model: nn.Module) -> Iterator[FreshState]:
    """Yield a snapshot of the model's state, and restore it on exit.

    >>> with fresh_state(model) as state:
    ...     for batch in batches:
    ...         model(batch)
    ...         state.restore()
    """
    state = FreshState(model)
    try:
        yield state
    finally:
        state.restore()


class _ModuleState:
    """State of one module, without its submodules."""

    def __init__(self, module: nn.Module) -> None:
        self._attributes = module.__dict__
        self._count = len(self._attributes)
        self._simple = {name: value for name, value in self._attributes.items() if isinstance(value, _SIMPLE)}
        self._others = self._attributes.keys() - self._simple.keys()
        self._buffers = module._buffers
        self._original_buffers = dict(module._buffers)
        self._not_persistent = module._non_persistent_buffers_set
        self._original_not_persistent = set(module._non_persistent_buffers_set)
        tensors = {id(value): value for value in self._values() if isinstance(value, torch.Tensor)}
        self._contents = [_Contents(tensor) for tensor in tensors.values()]

    def restore(self) -> None:
        attributes = self._attributes
        for name, value in self._simple.items():
            if attributes.get(name, _ABSENT) is not value:
                attributes[name] = value
        if len(attributes) != self._count:
            for name in attributes.keys() - self._simple.keys() - self._others:
                if isinstance(attributes[name], _SIMPLE):
                    del attributes[name]
        if self._buffers_changed():
            self._buffers.clear()
            self._buffers.update(self._original_buffers)
            self._not_persistent.clear()
            self._not_persistent.update(self._original_not_persistent)
        for contents in self._contents:
            contents.restore()

    def _values(self) -> Iterator[Any]:
        yield from self._simple.values()
        yield from self._original_buffers.values()

    def _buffers_changed(self) -> bool:
        buffers = self._buffers
        return len(buffers) != len(self._original_buffers) or any(
            buffers.get(name, _ABSENT) is not buffer for name, buffer in self._original_buffers.items()
        )


class _Contents:
    """Contents of a tensor."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor
        self._copy = tensor.detach().clone()
        self._version = _version(tensor)

    def restore(self) -> None:
        if self._changed():
            # Inference tensors can only be modified in inference mode.
            with torch.inference_mode():
                self._tensor.copy_(self._copy)
            self._version = _version(self._tensor)

    def _changed(self) -> bool:
        if self._version is None:
            return not torch.equal(self._tensor, self._copy)
        return self._tensor._version != self._version


def _version(tensor: torch.Tensor) -> int | None:
    """Return the tensor's version counter, or None for an inference tensor, which has none."""
    return None if tensor.is_inference() else tensor._version
