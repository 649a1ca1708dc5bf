"""Conversations as token ids and labels: chat templates, tokenization, and the tokens that the loss covers."""

from gradsim.chat.tokenization import (
    MASKED,
    TOKENIZED_SCHEMA,
    TokenizedSample,
    TokenizedTable,
    prompt_ids,
    require_embeddings,
    tokenize,
    tokenize_table,
)
from gradsim.chat.tulu import render
from gradsim.chat.verbatim import decoded, token_ids

__all__ = [
    "MASKED",
    "TOKENIZED_SCHEMA",
    "TokenizedSample",
    "TokenizedTable",
    "decoded",
    "prompt_ids",
    "render",
    "require_embeddings",
    "token_ids",
    "tokenize",
    "tokenize_table",
]
