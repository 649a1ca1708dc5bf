"""Samples that no chat template renders: texts as they are, and token ids."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from gradsim.study.datasets import MASKED_TOKENS, TEXT, TOKENS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Tokens(NamedTuple):
    """Token ids of a sample, and which of them the loss covers."""

    ids: list[int]
    covered: list[bool]


def verbatim_tokens(messages: Sequence[Mapping[str, str]], tokenizer: "PreTrainedTokenizerBase") -> Tokens | None:
    """Return the tokens of a text or of token ids; None for a conversation.

    A text has the special tokens that the tokenizer adds by itself, but no second BOS if it begins with one.

    Args:
        messages: Messages with role and content.
        tokenizer: Tokenizer of any family.
    """
    if messages[0].get("role") == TEXT:
        ids = list(tokenizer(messages[0]["content"], verbose=False)["input_ids"])
        if len(ids) > 1 and ids[0] == ids[1] == tokenizer.bos_token_id:
            del ids[0]
        return Tokens(ids, [True] * len(ids))
    if messages[0].get("role") in (TOKENS, MASKED_TOKENS):
        runs = [(message["role"] == TOKENS, token_ids(message["content"])) for message in messages]
        return Tokens([token for _, ids in runs for token in ids], [counts for counts, ids in runs for _ in ids])
    return None


def token_ids(content: str) -> list[int]:
    """Return the token ids in the content of a message that holds token ids."""
    return [int(token) for token in content.split()]


def decoded(messages: Sequence[Mapping[str, str]], tokenizer: "PreTrainedTokenizerBase") -> list[Mapping[str, str]]:
    """Return messages with token ids decoded to text, and all others unchanged."""
    return [
        {**message, "content": str(tokenizer.decode(token_ids(message["content"])))}
        if message["role"] in (TOKENS, MASKED_TOKENS)
        else message
        for message in messages
    ]
