"""Choose some of a job's rows, and measure how much their logits in a batch differ from their logits alone."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedConfig, PreTrainedModel

from gradsim.models.fresh_state import FreshState
from gradsim.models.limits import length_boundaries
from gradsim.text_generation.local.decoding import Decoder
from gradsim.text_generation.local.rows import Row

STEPS = 4
"""New tokens of each probe."""

_LOW_PRECISION = 1e-4
"""Rounding error above which even identical rows in a batch change logits visibly."""

_TF32_ROUNDING = 2.0**-10


class Trace(NamedTuple):
    """A row with the logits (vocabulary,) of each of its new tokens."""

    row: Row
    logits: list[torch.Tensor]


class Measured:
    """Comparisons of a model's logits in different batches.

    Attributes:
        model: model in eval mode.
    """

    def __init__(self, model: PreTrainedModel, state: FreshState) -> None:
        self.model = model
        self._state = state
        self._alone: dict[tuple[int, ...], Trace] = {}
        self._rounding = _rounding(model)

    def is_exact(self, batch: Sequence[Row], *, read_again: bool) -> bool:
        """Return whether rows in a batch get the same logits as from `generate` alone, up to rounding.

        Args:
            batch: rows sorted by length.
            read_again: whether to test also that an unfinished row can leave the batch and be reread in another one.
        """
        traces = self._together(batch, read_again)
        alone = [self._trace_alone(row) for row in batch]
        worst = max(_difference(one, other) for one, other in zip(traces, alone, strict=True))
        return worst <= self._tolerance() or (
            self._rounding > _LOW_PRECISION and worst <= 4 * self._harmless_difference(batch[0])
        )

    def repeats(self, row: Row, after: Row) -> bool:
        """Return whether a row gets the same logits again after another row was decoded."""
        self._trace_alone(row)
        self._trace_alone(after)
        return _difference(self._read_alone(row, steps=1), self._trace_alone(row)) <= self._tolerance()

    def is_causal(self, row: Row) -> bool:
        """Return whether changing a row's last token leaves the logits at earlier positions unchanged."""
        ids = lengthened(row, 2).ids
        logits = []
        for last in (ids[-1], int(ids[-1] == 0)):
            self._state.restore()
            input_ids = torch.tensor([[*ids[:-1], last]], device=self.model.device)
            with torch.inference_mode():
                output = self.model(input_ids=input_ids, attention_mask=torch.ones_like(input_ids))
            logits.append(output.logits[0, :-1].float().flatten())
        return _relative(logits[0], logits[1]) <= self._tolerance()

    def _tolerance(self) -> float:
        return math.sqrt(self._rounding) / 3

    def _harmless_difference(self, row: Row) -> float:
        """Return the difference that rounding causes when a row shares a batch with a copy of itself."""
        return _difference(self._together([row, row], read_again=False)[0], self._trace_alone(row))

    def _trace_alone(self, row: Row) -> Trace:
        key = tuple(row.ids)
        if key not in self._alone:
            self._alone[key] = self._read_alone(row)
        return self._alone[key]

    def _read_alone(self, row: Row, steps: int = STEPS) -> Trace:
        """Decode a row alone in one call of `generate`."""
        decoder = _Watched(self.model, self._state)
        row = row.with_ids(row.ids)
        self._state.restore()
        [new_ids], _ = decoder.continued([row], len(row.ids), steps)
        row.take(new_ids, decoder.end)
        return Trace(row, [logits[0] for logits in decoder.seen()])

    def _together(self, rows: Sequence[Row], read_again: bool) -> list[Trace]:
        """Decode rows in one batch; the middle row leaves before the last step."""
        rows = [row.with_ids(row.ids) for row in rows]
        decoder = _Watched(self.model, self._state)
        traces = [Trace(row, []) for row in rows]
        batch = decoder.start(rows)
        _note(traces, [torch.cat(decoder.seen())[-len(rows) :]])  # rows of different lengths may be read in groups
        batch.keep(rows)
        batch.advance(2)  # the second step uses the first one's cache, even if none is kept between slices
        _note(traces, decoder.seen())
        middle = len(rows) // 2
        staying = traces[:middle] + traces[middle + 1 :] if len(rows) > 1 else traces
        batch.keep([trace.row for trace in staying])
        batch.advance(1)
        _note(staying, decoder.seen())
        if read_again and len(rows) > 1:
            decoder.start([rows[middle]])
            _note([traces[middle]], decoder.seen()[-1:])
        return traces


def _note(traces: Sequence[Trace], steps: Sequence[torch.Tensor]) -> None:
    """Append the logits (rows, vocabulary) of each step to the traces."""
    for logits in steps:
        for trace, own in zip(traces, logits, strict=True):
            trace.logits.append(own)


class _Watched(Decoder):
    """Decoder that records logits and never ends an answer."""

    def __init__(self, model: PreTrainedModel, state: FreshState) -> None:
        super().__init__(model, state, end=None)
        self._seen = _Seen()

    def processors(self, rows: Sequence[Row]) -> LogitsProcessorList:
        """Return a processor that records logits."""
        return LogitsProcessorList([self._seen])

    def seen(self) -> list[torch.Tensor]:
        """Return the logits (rows, vocabulary) of each step since the last call."""
        seen, self._seen.logits = self._seen.logits, []
        return seen


class _Seen(LogitsProcessor):
    def __init__(self) -> None:
        self.logits: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        self.logits.append(scores)
        return scores


def _difference(one: Trace, other: Trace) -> float:
    """Return the largest relative difference of any step, up to the first step after different tokens."""
    worst = 0.0
    for step, logits in enumerate(zip(one.logits, other.logits, strict=False)):
        if one.row.new_ids[:step] != other.row.new_ids[:step]:
            break
        worst = max(worst, _relative(*logits))
    return worst


def _relative(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the RMS difference relative to the standard deviation of `other`; infinity if not comparable."""
    change = torch.where(one == other, 0, one - other).double()
    if not change.any():
        return 0.0
    spread = other[other.isfinite()].double().std(correction=0)
    return float(torch.nan_to_num(change.square().mean().sqrt() / spread, nan=torch.inf))


def _rounding(model: PreTrainedModel) -> float:
    """Return the relative rounding error of the model's arithmetic."""
    tf32 = model.device.type == "cuda" and torch.get_float32_matmul_precision() != "highest"
    return max(torch.finfo(model.dtype).eps, _TF32_ROUNDING if tf32 else 0.0)


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
    return sorted((replace(row.with_ids(row.ids[:most]), room=STEPS) for row in probes), key=lambda row: len(row.ids))


def lengthened(row: Row, length: int) -> Row:
    """Return a row of at least `length` tokens, extended by repeating its own."""
    times = -(-length // len(row.ids))
    return row.with_ids((row.ids * times)[:length]) if times > 1 else row


def _last_length(row: Row) -> int:
    """Return the number of tokens that the model reads to generate the last one."""
    return len(row.ids) + row.room - 1
