"""Limits of a model's input, read off its configuration and its embedding tables."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

# Most families answer to the first name, whatever they call it themselves; MPT and Whisper do not.
_CONTEXT_NAMES = ("max_position_embeddings", "max_seq_len", "max_target_positions")


def context_length(configuration: PreTrainedConfig) -> int | None:
    """Return the longest input in tokens that a model is made for; None where its configuration names none."""
    text = configuration.get_text_config()
    lengths = (getattr(text, name, None) for name in _CONTEXT_NAMES)
    return next((length for length in lengths if isinstance(length, int) and length > 0), None)


def has_rotary_positions(configuration: PreTrainedConfig) -> bool:
    """Return whether positions are rotary and computed as needed, so that inputs may exceed the context.

    A model that looks positions up in a table of the context's length, as GPT-2 and GPT-J do, cannot go past it.
    """
    return getattr(configuration.get_text_config(), "rope_parameters", None) is not None


def learned_positions(model: PreTrainedModel) -> int | None:
    """Return the longest input that the model's table of learned positions holds; None where it has no such table.

    The table is an embedding, other than the input's, with as many rows as the context has tokens. Some families add
    rows in front, which the table counts as its offset (OPT), or begin behind the padding's row (RoBERTa).
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
    """Return the longest input in tokens that a model is made for and has learned positions for; None: any."""
    lengths = (context_length(model.config), learned_positions(model))
    return min((length for length in lengths if length is not None), default=None)


def vocabulary_size(model: PreTrainedModel) -> int:
    """Return how many input ids a model knows: the rows of its input embedding, whatever its tokenizer has."""
    words: Any = model.get_input_embeddings()
    return int(words.weight.shape[0])


# Parts of the keys under which configurations name lengths: the original context of scaled rotary embeddings, sliding
# windows, chunks of attention, the context itself.
_LENGTH_WORDS = ("position", "window", "chunk", "context", "n_ctx", "seq_len")


def length_boundaries(configuration: PreTrainedConfig) -> tuple[int, ...]:
    """Return all lengths in tokens that a configuration names, ascending: there the forward may change."""
    return tuple(sorted(set(_lengths(configuration.to_dict()))))


def _lengths(values: Mapping[str, Any]) -> Iterator[int]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _lengths(value)
        elif type(value) is int and value > 1 and any(word in str(key) for word in _LENGTH_WORDS):
            yield value
