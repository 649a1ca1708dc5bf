"""Input limits of a model, read from its configuration and its embedding tables."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

# Most architectures provide the first name, often as an alias; MPT and Whisper do not.
_CONTEXT_NAMES = ("max_position_embeddings", "max_seq_len", "max_target_positions")


def context_length(configuration: PreTrainedConfig) -> int | None:
    """Return the context length of a model in tokens, or None if its configuration does not specify one."""
    text = configuration.get_text_config()
    lengths = (getattr(text, name, None) for name in _CONTEXT_NAMES)
    return next((length for length in lengths if isinstance(length, int) and length > 0), None)


def has_rotary_positions(configuration: PreTrainedConfig) -> bool:
    """Return whether the model computes rotary positions on the fly, so that inputs may exceed the context length.

    Models that look positions up in a table of the context length, such as GPT-2 and GPT-J, cannot exceed it.
    """
    return getattr(configuration.get_text_config(), "rope_parameters", None) is not None


def learned_positions(model: PreTrainedModel) -> int | None:
    """Return the longest input that the model's table of learned positions supports, or None without such a table.

    The table is an embedding, other than the input embedding, with one row per token of the context. Some architectures
    prepend extra rows, counted by the table's `offset` (OPT), or start after the padding row (RoBERTa).
    """
    words: Any = model.get_input_embeddings()
    context = context_length(model.config)
    lengths = [
        context - (0 if module.padding_idx is None else module.padding_idx + 1)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        and module.weight is not words.weight
        and module.num_embeddings - getattr(module, "offset", 0) == context
    ]
    return min(lengths, default=None)


def longest_input(model: PreTrainedModel) -> int | None:
    """Return the longest supported input in tokens, by context length and learned positions, or None if unlimited."""
    lengths = (context_length(model.config), learned_positions(model))
    return min((length for length in lengths if length is not None), default=None)


def vocabulary_size(model: PreTrainedModel) -> int:
    """Return the number of valid input ids: the rows of the input embedding, regardless of the tokenizer."""
    words: Any = model.get_input_embeddings()
    return int(words.weight.shape[0])


# Substrings of configuration keys for lengths: the original context of scaled rotary embeddings, sliding windows,
# attention chunks, the context length itself.
_LENGTH_WORDS = ("position", "window", "chunk", "context", "n_ctx", "seq_len")


def length_boundaries(configuration: PreTrainedConfig) -> tuple[int, ...]:
    """Return all lengths in tokens that a configuration specifies, ascending; the forward pass may change at each."""
    return tuple(sorted(set(_lengths(configuration.to_dict()))))


def _lengths(values: Mapping[str, Any]) -> Iterator[int]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _lengths(value)
        elif type(value) is int and value > 1 and any(word in str(key) for word in _LENGTH_WORDS):
            yield value
