"""Keys and values of past tokens, in tensors with room for more.

transformers' own dynamic cache copies all it holds for every token; at 32 rows of 400 tokens that was two fifths of a
tiny model's time on two cores. Its static cache has room, but all of it is attended to.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class RoomyLayer(DynamicLayer):
    """One layer's keys and values (rows, heads, tokens, head size), which are the first tokens of larger tensors."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, tokens: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True
        self._all_keys, self._all_values = keys, values
        self.keys, self.values = keys[:, :, :tokens], values[:, :, :tokens]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new tokens behind those that are there; an error where no room is left."""
        before, more = self.get_seq_length(), key_states.shape[-2]
        self._all_keys.narrow(-2, before, more).copy_(key_states)
        self._all_values.narrow(-2, before, more).copy_(value_states)
        self.keys = self._all_keys[:, :, : before + more]
        self.values = self._all_values[:, :, : before + more]
        return self.keys, self.values


class Part(NamedTuple):
    """Rows of a cache."""

    cache: DynamicCache
    rows: Sequence[int]


def is_plain(cache: object) -> bool:
    """Whether a cache is the keys and values of all tokens in every layer; others hold windows, or other states."""
    return isinstance(cache, DynamicCache) and all(type(layer) in {DynamicLayer, RoomyLayer} for layer in cache.layers)


def roomy(parts: Sequence[Part], width: int, room: int) -> DynamicCache:
    """Rows of plain caches one below the other, each its last tokens, at the right of `width`, with room for more.

    The caches given are emptied layer by layer, so that not two are ever held whole.
    """
    made = DynamicCache()
    for number in range(len(parts[0].cache.layers)):
        layers: list[Any] = [part.cache.layers[number] for part in parts]
        rows = [torch.tensor(part.rows, device=layer.keys.device) for part, layer in zip(parts, layers, strict=True)]
        keys = _copied([layer.keys for layer in layers], rows, width, room)
        values = _copied([layer.values for layer in layers], rows, width, room)
        made.layers.append(RoomyLayer(keys, values, width))
        for cache in {id(part.cache): part.cache for part in parts}.values():
            cache.layers[number] = DynamicLayer()
    return made


def _copied(tensors: Sequence[torch.Tensor], rows: Sequence[torch.Tensor], width: int, room: int) -> torch.Tensor:
    _, heads, _, size = tensors[0].shape
    # Zeros: what a mask hides is multiplied by zero, which would not hide what is no number.
    made = tensors[0].new_zeros(sum(map(len, rows)), heads, width + room, size)
    start = 0
    for tensor, chosen in zip(tensors, rows, strict=True):
        kept = min(width, tensor.shape[-2])
        made[start : start + len(chosen), :, width - kept : width] = tensor[:, :, -kept:].index_select(0, chosen)
        start += len(chosen)
    return made
