"""Lengths at which a model's forward may change what it computes."""

from collections.abc import Iterator, Mapping
from typing import Any

from transformers import PreTrainedConfig

# Parts of the keys under which configurations name lengths: the original context of scaled rotary embeddings, sliding
# windows, chunks of attention, the context itself.
_WORDS = ("position", "window", "chunk", "context", "n_ctx", "seq_len")


def length_boundaries(configuration: PreTrainedConfig) -> tuple[int, ...]:
    """Return all lengths in tokens that a configuration names, ascending."""
    return tuple(sorted(set(_lengths(configuration.to_dict()))))


def _lengths(values: Mapping[str, Any]) -> Iterator[int]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _lengths(value)
        elif type(value) is int and value > 0 and any(word in str(key) for word in _WORDS):
            yield value
