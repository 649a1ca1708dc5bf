"""Record of a module call in a forward pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Call:
    """Arguments of a module call; tensors are detached from the graph."""

    arguments: tuple[Any, ...]
    keywords: dict[str, Any]

    @property
    def input(self) -> Tensor:
        """First argument of the call."""
        first: Tensor = (*self.arguments, *self.keywords.values())[0]
        return first

    def rows(self) -> Tensor:
        """Return the input as (T, K), with batch and positions flattened into one dimension."""
        return self.input.reshape(-1, self.input.shape[-1])


def output_with(module: nn.Module, parameters: Mapping[str, Tensor], call: Call) -> Tensor:
    """Return the output of a call with other parameters, bypassing the hooks of the module."""
    named = {f"module.{name}": parameter for name, parameter in parameters.items()}
    output: Tensor = torch.func.functional_call(_Plain(module), named, call.arguments, call.keywords)
    return output


class _Plain(nn.Module):
    """Wrapper that calls a module's forward without its hooks."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        return self.module.forward(*arguments, **keywords)
