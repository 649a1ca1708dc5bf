"""Batches of rows in transformers' `generate`.

Its own work is a tenth of a step of a tiny model with one row on a processor (0.88 ms, of which a plain loop takes
0.80) and nothing to speak of with 32, so that no loop of our own is worth its place: it knows how each family wants its
masks, positions and past.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from transformers import Cache, GenerationConfig, LogitsProcessorList, PreTrainedModel

from gradsim.models.fresh_state import FreshState
from gradsim.text_generation.local.cache import Part, is_plain, roomy
from gradsim.text_generation.local.rows import Row
from gradsim.text_generation.local.sampling import Noise, as_int64
from gradsim.text_generation.local.schedule import SLICE


class Decoder:
    """A model, and how tokens are chosen.

    Attributes:
        plain: whether the model's past is keys and values alone, so that rows that were read apart can go on together;
            taken for granted until a past is seen.
        end: the token that ends an answer; None: none does.
    """

    def __init__(
        self, model: PreTrainedModel, state: FreshState, *, end: int | None, temperature: float | None = None
    ) -> None:
        self.plain = True
        self.end = end
        self._model = model
        self._state = state
        self._temperature = temperature
        # Mamba and its like keep theirs under other names: they read every slice from the beginning.
        self._takes_past = "past_key_values" in inspect.signature(model.forward).parameters

    def start(self, rows: Sequence[Row]) -> "DecodedBatch":
        """Start a batch with a fresh model state; see `schedule.decode`."""
        self._state.restore()
        return DecodedBatch(self, rows)

    def continued(self, rows: Sequence[Row], width: int, steps: int, past: Any = None) -> tuple[list[list[int]], Any]:
        """So many new ids for each row, and the past without the last of them.

        After its end token a row goes on with more of these; fewer than `steps` come where all have ended.

        Args:
            rows: at most as long as `width`, which they are padded to.
            width: that of the past and a token more.
            steps: at least one.
            past: as this returned it; none where nothing is known of the rows yet.
        """
        padding = [width - len(row.ids) for row in rows]
        padding_token = self.end or 0
        input_ids = [[padding_token] * blank + row.ids for blank, row in zip(padding, rows, strict=True)]
        attention_mask = [[0] * blank + [1] * (width - blank) for blank in padding]
        configuration = GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=steps,
            eos_token_id=self.end,
            pad_token_id=padding_token,
            return_dict_in_generate=True,
        )
        generate: Any = self._model.generate
        device = self._model.device
        with torch.inference_mode():
            output = generate(
                torch.tensor(input_ids, device=device),
                attention_mask=torch.tensor(attention_mask, device=device),
                generation_config=configuration,
                logits_processor=self.processors(rows),
                **({} if past is None else {"past_key_values": past}),
            )
        new_ids: list[list[int]] = output.sequences[:, width:].tolist()
        past = output.get("past_key_values")
        return new_ids, past if self._takes_past and isinstance(past, Cache) else None

    def processors(self, rows: Sequence[Row]) -> LogitsProcessorList:
        """Return what changes logits before the likeliest token of each row is taken."""
        if self._temperature is None:
            return LogitsProcessorList()
        device = self._model.device
        seeds = torch.tensor([as_int64(row.seed or 0) for row in rows], device=device)
        drawn = torch.tensor([len(row.new_ids) for row in rows], device=device)
        return LogitsProcessorList([Noise(self._temperature, seeds, drawn)])


class DecodedBatch:
    """Rows that are decoded together, with their model state; see `schedule.Batch`."""

    def __init__(self, decoder: Decoder, rows: Sequence[Row]) -> None:
        self.rows = list(rows)
        self._decoder = decoder
        self._width = _widest(rows)
        self._room = SLICE
        new_ids, self._past = self._read()
        self._add(new_ids)

    @property
    def least_width(self) -> int:
        """Of a past that is not plain no columns can be left out."""
        return 0 if self._decoder.plain or self._past is None else self._width

    def keep(self, rows: Sequence[Row]) -> None:
        """Go on with these alone, in this order."""
        places = [self.rows.index(row) for row in rows]
        changed = places != list(range(len(self.rows)))
        self.rows = list(rows)
        if self._decoder.plain:
            if changed or self._room < SLICE:
                self._width, self._room = _widest(rows), SLICE
                self._past = roomy([Part(self._past, places)], self._width - 1, self._room)
        elif self._past is None:
            self._width = _widest(rows)
        elif changed:
            self._past.reorder_cache(torch.tensor(places))

    def advance(self, steps: int) -> None:
        """Add so many tokens to each row."""
        new_ids, self._past = self._decoder.continued(self.rows, self._width, steps, self._past)
        self._room -= steps
        self._add(new_ids)

    def _add(self, new_ids: Sequence[Sequence[int]]) -> None:
        for row, ids in zip(self.rows, new_ids, strict=True):
            row.take(ids, self._decoder.end)
        self._width += len(new_ids[0])

    def _read(self) -> tuple[list[list[int]], Any]:
        """The first new id of each row, and the past."""
        if self._decoder.plain:
            groups = _of_like_length(self.rows)
            read = [self._decoder.continued(group, _widest(group), 1) for group in groups]
            if all(is_plain(past) for _, past in read):
                parts = [Part(past, range(len(group))) for group, (_, past) in zip(groups, read, strict=True)]
                return [ids for new_ids, _ in read for ids in new_ids], roomy(parts, self._width, self._room)
            self._decoder.plain = False
        return self._decoder.continued(self.rows, self._width, 1)


def _of_like_length(rows: Sequence[Row]) -> list[list[Row]]:
    """Neighbours of rows that are sorted by length, none more than twice as long as another: little padding is read."""
    groups: list[list[Row]] = []
    for row in rows:
        if groups and len(row.ids) <= 2 * len(groups[-1][0].ids):
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def _widest(rows: Sequence[Row]) -> int:
    return max(len(row.ids) for row in rows)
