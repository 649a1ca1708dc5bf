"""One call of a module in a forward pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Call:
    """What a module was called with; tensors are detached from the graph."""

    arguments: tuple[Any, ...]
    keywords: dict[str, Any]

    @property
    def input(self) -> Tensor:
        """The first argument."""
        first: Tensor = (*self.arguments, *self.keywords.values())[0]
        return first

    def rows(self) -> Tensor:
        """The input as (T, K): batch and positions in one dimension."""
        return self.input.reshape(-1, self.input.shape[-1])


def output_with(module: nn.Module, parameters: Mapping[str, Tensor], call: Call) -> Tensor:
    """Return what a call gives with other parameters, without the hooks on the module."""
    named = {f"module.{name}": parameter for name, parameter in parameters.items()}
    output: Tensor = torch.func.functional_call(_Plain(module), named, call.arguments, call.keywords)
    return output


class _Plain(nn.Module):
    """Calls a module's forward without the hooks on it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        return self.module.forward(*arguments, **keywords)
