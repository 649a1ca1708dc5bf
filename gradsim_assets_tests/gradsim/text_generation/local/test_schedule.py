"""Every row is decoded to its end once, in batches that the budget holds; the tensors that a batch goes on with."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import DynamicCache

from gradsim.text_generation.local.cache import Part, is_plain, roomy
from gradsim.text_generation.local.rows import Row
from gradsim.text_generation.local.schedule import SLICE, decode

END, OTHER = 0, 1


@dataclass
class Pretended:
    """A model that ends each row after as many tokens as that has been given."""

    ends: dict[int, int]
    budget: int
    leaves_columns: bool
    read: list[int] = field(default_factory=list)
    steps: int = 0

    def start(self, rows: Sequence[Row]) -> "PretendedBatch":
        self.read += [row.position for row in rows]
        assert [len(row.ids) for row in rows] == sorted(len(row.ids) for row in rows)
        batch = PretendedBatch(self, list(rows), max(len(row.ids) for row in rows))
        # The first slice's room is taken into account before it is read.
        assert len(rows) == 1 or len(rows) * (batch.width + SLICE) <= self.budget
        batch.advance(1)
        return batch


@dataclass
class PretendedBatch:
    model: Pretended
    rows: list[Row]
    width: int

    @property
    def least_width(self) -> int:
        return self.width if self.model.leaves_columns else 0

    def keep(self, rows: Sequence[Row]) -> None:
        assert not any(row.complete for row in rows)
        assert {row.position for row in rows} <= {row.position for row in self.rows}
        self.rows = list(rows)
        self.width = max(self.least_width, *(len(row.ids) for row in rows))

    def advance(self, steps: int) -> None:
        assert 1 <= steps <= SLICE
        assert len(self.rows) == 1 or len(self.rows) * (self.width + steps) <= self.model.budget
        assert all(steps <= row.room for row in self.rows)
        self.model.steps += steps
        for row in self.rows:
            end = self.model.ends[row.position]
            row.take([END if len(row.new_ids) + step >= end else OTHER for step in range(steps)], END)
        self.width += steps


def decoded(planned: Sequence[tuple[int, int, int]], budget: int, leaves_columns: bool) -> tuple[Pretended, list[Row]]:
    """Rows as they are handed over, of prompt lengths, ends and rooms."""
    rows = [Row(place, [OTHER] * length, length, room) for place, (length, _, room) in enumerate(planned)]
    model = Pretended({place: end for place, (_, end, _) in enumerate(planned)}, budget, leaves_columns)
    handed: list[Row] = []
    decode(rows, model.start, budget, handed.append)
    return model, handed


@given(
    planned=st.lists(st.tuples(st.integers(1, 300), st.integers(0, 500), st.integers(1, 400)), max_size=40),
    budget=st.integers(1, 20_000),
    leaves_columns=st.booleans(),
)
@example(planned=[(20, 10_000, 2_000)] * 30, budget=4_000, leaves_columns=False)
def test_every_row_is_handed_over_once(planned: list[tuple[int, int, int]], budget: int, leaves_columns: bool) -> None:
    model, handed = decoded(planned, budget, leaves_columns)
    assert sorted(row.position for row in handed) == list(range(len(planned)))
    assert set(model.read) == set(range(len(planned)))
    for row in handed:
        length, end, room = planned[row.position]
        assert row.ids == [OTHER] * (length + min(end, room))
        assert row.ended == (end < room)


def test_rows_of_different_rooms_share_a_batch() -> None:
    model, _ = decoded([(length, 1_000, 500 - length) for length in range(10, 30)], 16_384, leaves_columns=False)
    assert model.read == list(range(20))
    assert model.steps == 490


def test_long_answers_are_brought_together() -> None:
    planned = [*[(20, 5, 2_000)] * 19, (20, 400, 2_000)] * 5
    model, handed = decoded(planned, 3_000, leaves_columns=False)
    assert [row.position % 20 for row in handed[-5:]] == [19] * 5
    # The five go on together: one after the other they would take 2,000 steps.
    assert model.steps < 400 + 5 * SLICE
    assert len(model.read) <= 100 + 2 * 5


def test_rows_are_set_aside_rather_than_leaving_the_budget() -> None:
    model, handed = decoded([(20, 10_000, 1_000)] * 40, 4_000, leaves_columns=False)
    assert len(handed) == 40
    # Each is read again about as often as its length doubles, not with every slice.
    assert len(model.read) <= 40 * 5


def cache_of(rows: int, tokens: int, layers: int = 2) -> DynamicCache:
    made = DynamicCache()
    for layer in range(layers):
        made.update(torch.randn(rows, 2, tokens, 3), torch.randn(rows, 2, tokens, 5), layer)
    return made


def layers_of(cache: DynamicCache) -> list[Any]:
    """Its layers, which have keys and values: transformers' annotation includes those that have none."""
    return cache.layers


def test_caches_are_joined_at_their_right() -> None:
    short, long = cache_of(2, 4), cache_of(1, 7)
    expected = [(layer.keys, layer.values) for cache in (short, long) for layer in layers_of(cache)]
    made = roomy([Part(short, [1, 0]), Part(long, [0])], width=7, room=2)
    assert is_plain(made)
    assert made.get_seq_length() == 7
    for number, layer in enumerate(layers_of(made)):
        for kind, states in enumerate((layer.keys, layer.values)):
            of_short, of_long = expected[number][kind], expected[2 + number][kind]
            assert torch.equal(states[:2, :, 3:], of_short[[1, 0]])
            assert torch.equal(states[2], of_long[0])
            assert not states[:2, :, :3].any()
    assert all(layer.keys is None or layer.keys.numel() == 0 for cache in (short, long) for layer in layers_of(cache))


def test_cache_takes_what_it_has_room_for() -> None:
    made = roomy([Part(cache_of(3, 6), [2, 0])], width=4, room=2)
    places = [layer.keys.data_ptr() for layer in layers_of(made)]
    for _ in range(2):
        before = layers_of(made)[0].keys
        keys, values = made.update(torch.ones(2, 2, 1, 3), torch.ones(2, 2, 1, 5), 0)
        assert torch.equal(keys[:, :, :-1], before)
        assert (keys[:, :, -1] == 1).all()
        assert values.shape == (2, 2, keys.shape[2], 5)
    assert places[0] == layers_of(made)[0].keys.data_ptr()
    with pytest.raises(RuntimeError):
        made.update(torch.ones(2, 2, 1, 3), torch.ones(2, 2, 1, 5), 0)
