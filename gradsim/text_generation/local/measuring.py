"""How much the logits of a row differ in company from those that it gets alone."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel

from gradsim.models.fresh_state import FreshState
from gradsim.text_generation.local.decoding import Decoder
from gradsim.text_generation.local.probes import STEPS, lengthened
from gradsim.text_generation.local.rows import Row

_LOW_PRECISION = 1e-4
"""Rounding above which even harmless company shows."""

_TF32_ROUNDING = 2.0**-10


class Trace(NamedTuple):
    """A row with the logits (vocabulary) that each of its new tokens was chosen by."""

    row: Row
    logits: list[torch.Tensor]


class Measured:
    """A model that is compared with itself on some rows.

    Attributes:
        model: in eval mode.
    """

    def __init__(self, model: PreTrainedModel, state: FreshState) -> None:
        self.model = model
        self._state = state
        self._alone: dict[tuple[int, ...], Trace] = {}
        self._rounding = _rounding(model)

    def is_exact(self, batch: Sequence[Row], *, read_again: bool) -> bool:
        """Whether rows in one batch get the logits that `generate` gives them alone, up to rounding.

        Args:
            batch: sorted by length.
            read_again: whether rows may leave the batch before their end and be read again in another.
        """
        traces = self._together(batch, read_again)
        alone = [self._trace_alone(row) for row in batch]
        worst = max(_difference(one, other) for one, other in zip(traces, alone, strict=True))
        return worst <= self._tolerance() or (
            self._rounding > _LOW_PRECISION and worst <= 4 * self._harmless_difference(batch[0])
        )

    def repeats(self, row: Row, after: Row) -> bool:
        """Whether a row gets the same logits again after another one."""
        self._trace_alone(row)
        self._trace_alone(after)
        return _difference(self._read_alone(row, steps=1), self._trace_alone(row)) <= self._tolerance()

    def is_causal(self, row: Row) -> bool:
        """Whether the logits of a row's first tokens are the same whatever the last one is."""
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
        """What rounding alone makes of a row beside itself."""
        return _difference(self._together([row, row], read_again=False)[0], self._trace_alone(row))

    def _trace_alone(self, row: Row) -> Trace:
        key = tuple(row.ids)
        if key not in self._alone:
            self._alone[key] = self._read_alone(row)
        return self._alone[key]

    def _read_alone(self, row: Row, steps: int = STEPS) -> Trace:
        """What one call of `generate` makes of it."""
        decoder = _Watched(self.model, self._state)
        row = row.with_ids(row.ids)
        self._state.restore()
        [new_ids], _ = decoder.continued([row], len(row.ids), steps)
        row.take(new_ids, decoder.end)
        return Trace(row, [logits[0] for logits in decoder.seen()])

    def _together(self, rows: Sequence[Row], read_again: bool) -> list[Trace]:
        """What becomes of rows in a batch that the middle one leaves before the last step."""
        rows = [row.with_ids(row.ids) for row in rows]
        decoder = _Watched(self.model, self._state)
        traces = [Trace(row, []) for row in rows]
        batch = decoder.start(rows)
        _note(traces, [torch.cat(decoder.seen())[-len(rows) :]])  # rows of different lengths may be read in parts
        batch.keep(rows)
        batch.advance(2)  # the second goes on from the first, even where nothing is kept between slices
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
    """Add the logits (rows, vocabulary) of some steps."""
    for logits in steps:
        for trace, own in zip(traces, logits, strict=True):
            trace.logits.append(own)


class _Watched(Decoder):
    """Keeps the logits of what it decodes; no token ends an answer."""

    def __init__(self, model: PreTrainedModel, state: FreshState) -> None:
        super().__init__(model, state, end=None)
        self._seen = _Seen()

    def processors(self, rows: Sequence[Row]) -> LogitsProcessorList:
        """Return one that keeps logits."""
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
    """The largest of all steps, up to the first at which the tokens before are not the same."""
    worst = 0.0
    for step, logits in enumerate(zip(one.logits, other.logits, strict=False)):
        if one.row.new_ids[:step] != other.row.new_ids[:step]:
            break
        worst = max(worst, _relative(*logits))
    return worst


def _relative(one: torch.Tensor, other: torch.Tensor) -> float:
    """The root mean square of a difference by the spread of logits; infinite where they are not comparable."""
    change = torch.where(one == other, 0, one - other).double()
    if not change.any():
        return 0.0
    spread = other[other.isfinite()].double().std(correction=0)
    return float(torch.nan_to_num(change.square().mean().sqrt() / spread, nan=torch.inf))


def _rounding(model: PreTrainedModel) -> float:
    """The relative error of the model's numbers."""
    tf32 = model.device.type == "cuda" and torch.get_float32_matmul_precision() != "highest"
    return max(torch.finfo(model.dtype).eps, _TF32_ROUNDING if tf32 else 0.0)
