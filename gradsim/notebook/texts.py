"""Texts of samples, to be read by people."""

from collections.abc import Mapping, Sequence

import polars as pl

from gradsim import chat, models
from gradsim.dataset.turns import kind_of
from gradsim.tables import Store


def readable(store: Store, samples: pl.DataFrame) -> pl.DataFrame:
    """Return a study's samples or queries with token ids decoded to text.

    Raises:
        ModelError: The tokenizer that decodes token ids is not available.
    """
    if all(kind_of(messages) != "tokens" for messages in samples["messages"].head(1).to_list()):
        return samples
    tokenizer = models.RunningModel(store.model_configuration()).tokenizer
    texts = [chat.decoded(messages, tokenizer) for messages in samples["messages"].to_list()]
    return samples.with_columns(pl.Series("messages", texts, samples.schema["messages"]))


def text_of(messages: Sequence[Mapping[str, str]]) -> str:
    """Return readable messages as one text, in which each message of a conversation begins with its role."""
    if kind_of(messages) == "conversations":
        return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)
    return "".join(message["content"] for message in messages)
