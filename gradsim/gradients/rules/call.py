"""One call of a module in a forward pass."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor


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
