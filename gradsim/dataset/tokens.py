"""Rows of token ids: which of their tokens the loss covers."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from gradsim.dataset.files import RowError
from gradsim.errors import enumerated
from gradsim.study.datasets import MASKED_TOKENS, TOKEN_MASKS, TOKENS

_MASKED_LABEL = -100


def token_messages(row: Mapping[str, Any]) -> list[dict[str, str | None]]:
    """Return the token ids of a row as messages, one for each run of tokens with or without a loss.

    Args:
        row: Values by column of the format `tokens`.

    Raises:
        RowError: The columns contradict each other, or the training saw more than one text of consecutive tokens.
    """
    tokens = _integers(row, "input_ids")
    if tokens is None:
        raise RowError("has no input_ids")
    if min(tokens, default=0) < 0:
        raise RowError(f"has the token {min(tokens)}")
    length = _length_without_padding(row, len(tokens))
    positions = _integers(row, "position_ids", len(tokens))
    if positions and positions[:length] != list(range(length)):
        raise RowError("has position_ids other than 0, 1, 2, ..., as several texts in one row have")
    if len(_integers(row, "seq_lengths") or []) > 1:
        raise RowError("has several texts (seq_lengths)")
    covered = _covered(row, tokens)
    if any(covered[length:]):
        raise RowError("has labels where attention_mask is 0")
    if not length:
        raise RowError("has no tokens")
    runs = groupby(zip(covered[:length], tokens, strict=False), key=itemgetter(0))
    return [
        {"role": TOKENS if counts else MASKED_TOKENS, "content": " ".join(str(token) for _, token in run)}
        for counts, run in runs
    ]


def _length_without_padding(row: Mapping[str, Any], length: int) -> int:
    mask = _integers(row, "attention_mask", length)
    if mask is None:
        return length
    kept = sum(mask)
    if mask != [1] * kept + [0] * (length - kept):
        raise RowError("has an attention_mask other than ones and then zeros, so padding moves its tokens")
    return kept


def _covered(row: Mapping[str, Any], tokens: Sequence[int]) -> list[bool]:
    """Return which tokens the loss covers: those with a label, or those that no mask leaves out."""
    masks = {column: mask for column in TOKEN_MASKS if (mask := _integers(row, column, len(tokens))) is not None}
    covered = [all(bits) for bits in zip(*masks.values(), strict=True)]
    labels = _integers(row, "labels", len(tokens))
    if labels is not None:
        for position, (label, token) in enumerate(zip(labels, tokens, strict=True)):
            if label not in (token, _MASKED_LABEL):
                raise RowError(
                    f"has the label {label} at position {position}, which is neither {_MASKED_LABEL} nor the token "
                    f"there ({token})"
                )
        labelled = [label != _MASKED_LABEL for label in labels]
        if masks and labelled != covered:
            raise RowError(f"has labels that contradict {enumerated([*masks], 'and')}")
        return labelled
    if not masks:
        raise RowError(f"has neither labels nor {enumerated(TOKEN_MASKS, 'or')}")
    return covered


def _integers(row: Mapping[str, Any], column: str, length: int | None = None) -> list[int] | None:
    """Return a list of integers of a certain length, with truth values as 0 and 1; None if the row has none."""
    values = row.get(column)
    if values is None:
        return None
    if not (isinstance(values, list) and all(isinstance(value, int) for value in values)):
        raise RowError(f"has {column} that are not a list of integers")
    if length is not None and len(values) != length:
        raise RowError(f"has {len(values)} {column}, but {length} input_ids")
    return values
