"""Selection of a job's prompts for measuring whether answers depend on the rest of the batch."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import replace

from transformers import PreTrainedConfig

from gradsim.models.limits import length_boundaries
from gradsim.text_generation.local.rows import Row

STEPS = 4
"""New tokens of each probe."""


def sections(rows: Sequence[Row], thresholds: Sequence[int]) -> list[list[Row]]:
    """Divide rows by the positions of their first and last steps relative to the thresholds."""
    parts: dict[tuple[int, int], list[Row]] = {}
    for row in rows:
        first, last = len(row.ids), _last_length(row)
        parts.setdefault((bisect_left(thresholds, first), bisect_left(thresholds, last)), []).append(row)
    return list(parts.values())


def probes_of(rows: Sequence[Row], configuration: PreTrainedConfig) -> list[Row]:
    """Return the shortest, the median, its longer neighbor, the longest, and rows around the model's length thresholds.

    A row that may cross a threshold during decoding is extended with its own tokens, so that it crosses immediately.

    Returns:
        Copies with room for `STEPS` tokens, sorted by length.
    """
    if not rows:
        return []
    rows = sorted(rows, key=lambda row: len(row.ids))
    lengths = [len(row.ids) for row in rows]
    middle = len(rows) // 2
    chosen = {0, middle, min(bisect_right(lengths, lengths[middle]), len(rows) - 1), len(rows) - 1}
    crossing: list[Row] = []
    for threshold in length_boundaries(configuration):
        longer = bisect_right(lengths, threshold)
        if longer < len(rows):
            chosen |= {max(longer - 1, 0), longer}
        crossing += [lengthened(row, threshold - 1) for row in rows[:longer] if _last_length(row) > threshold][-1:]
    most = max(1, max(len(row.ids) + row.room for row in rows) - STEPS)
    probes = [*(rows[place] for place in chosen), *crossing]
    return sorted(
        (replace(row.with_ids(row.ids[:most]), room=STEPS) for row in probes),
        key=lambda row: len(row.ids),
    )


def lengthened(row: Row, length: int) -> Row:
    """Return a row of at least `length` tokens, extended by repeating its own."""
    times = -(-length // len(row.ids))
    return row.with_ids((row.ids * times)[:length]) if times > 1 else row


def _last_length(row: Row) -> int:
    """Return the number of tokens that the model reads to generate the last one."""
    return len(row.ids) + row.room - 1
