"""Store the rows of held samples in one tensor, and compute inner products of many rows at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from gradsim.gradients.planning.row_layout import Layout, Segment
from gradsim.gradients.rules.arithmetic import CHUNK, chunk_products, chunk_squares, segment_sums

# Row elements compared at a time. On a CPU, a batch's spans stay in the cache while the queries' rows stream through; a
# GPU needs larger products to hide kernel launches.
_SPAN = {"cpu": 1 << 18}
_SPAN_ON_ACCELERATOR = 1 << 21

# Maximum number of scattered rows gathered into a copy: one product of five by two rows reads each row once, ten
# products of single rows do not. The copy is too small to count towards the memory budget.
_GATHERED = 8


@dataclass(frozen=True, eq=False)
class _Span:
    """Part of a row that is compared at a time: several whole segments, or a part of one.

    Attributes:
        elements: range of the row's elements.
        segments: range of the segments' numbers.
        chunks: (segments,) number of `CHUNK`-element chunks of each segment in the span.
    """

    elements: slice
    segments: slice
    chunks: Tensor

    def sums(self, products: Tensor) -> Tensor:
        """Sum products (chunks, ...) by segment; return (segments, ...) in float64."""
        if len(self.chunks) == 1:
            return products.sum(dim=0, keepdim=True, dtype=torch.float64)
        return segment_sums(products.double(), self.chunks)


class Rows:
    """Pool of rows with a common layout.

    Args:
        layout: layout of every row.
        capacity: number of rows.
        dtype: dtype of the elements.
        device: device of the rows.
    """

    def __init__(self, layout: Layout, capacity: int, dtype: torch.dtype, device: torch.device) -> None:
        self.layout = layout
        self._values = torch.empty(capacity, layout.width, dtype=dtype, device=device)
        for segment in layout.segments:  # padding must not contribute to products
            self._values[:, segment.start + segment.elements : segment.end] = 0
        self._free = list(range(capacity))[::-1]
        self._spans = list(_spans(layout.segments, _SPAN.get(device.type, _SPAN_ON_ACCELERATOR), device))

    def take(self) -> int:
        """Reserve the free row with the lowest number and return the number; its contents are stale."""
        return self._free.pop()

    def give_back(self, row: int) -> None:
        """Return a row to the pool."""
        self._free.append(row)
        self._free.sort(reverse=True)

    def __getitem__(self, row: int) -> Tensor:
        """Return a row as a view, (width,)."""
        return self._values[row]

    def inner_products(self, left: Sequence[int], right: Sequence[int]) -> Tensor:
        """Return the inner products of all left with all right rows, in float64 (segments, left, right).

        Args:
            left: ascending row numbers.
            right: ascending row numbers.
        """
        products = self._zeros(len(left), len(right))
        groups = [list(_groups(rows, self._values.device)) for rows in (left, right)]
        for span in self._spans:
            values = self._values[:, span.elements]
            for second in groups[1]:
                others = second.of(values)
                for first in groups[0]:
                    found = span.sums(chunk_products(first.of(values), others))
                    products[span.segments, first.places, second.places] += found
        return products

    def squares(self, rows: Sequence[int]) -> Tensor:
        """Return the inner product of each row with itself, in float64 (segments, rows); row numbers must ascend."""
        products = self._zeros(len(rows))
        for span in self._spans:
            values = self._values[:, span.elements]
            for here, at in _runs(rows):
                products[span.segments, here] += span.sums(chunk_squares(values[at]))
        return products

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(len(self.layout.segments), *shape, dtype=torch.float64, device=self._values.device)


def _spans(segments: Sequence[Segment], most: int, device: torch.device) -> Iterator[_Span]:
    """Yield spans of at most `most` elements: as many whole segments as fit, or parts of larger ones."""
    first = 0
    while first < len(segments):
        start, end = segments[first].start, first + 1
        if segments[first].end - start > most:
            for part in range(start, segments[first].end, most):
                until = min(part + most, segments[first].end)
                yield _Span(slice(part, until), slice(first, end), torch.tensor([(until - part) // CHUNK]))
        else:
            while end < len(segments) and segments[end].end - start <= most:
                end += 1
            chunks = [(segment.end - segment.start) // CHUNK for segment in segments[first:end]]
            yield _Span(slice(start, segments[end - 1].end), slice(first, end), torch.tensor(chunks, device=device))
        first = end


@dataclass(frozen=True, eq=False)
class _Group:
    """Rows that are multiplied together.

    Attributes:
        places: range of positions in the list of all rows.
        rows: numbers of the rows.
    """

    places: slice
    rows: slice | Tensor

    def of(self, values: Tensor) -> Tensor:
        """Return the group's rows of values (capacity, n) as (group, n): a view if they are adjacent, else a copy."""
        return values[self.rows] if isinstance(self.rows, slice) else values.index_select(0, self.rows)


def _groups(rows: Sequence[int], device: torch.device) -> Iterator[_Group]:
    """Split ascending row numbers into groups: adjacent rows, or at most `_GATHERED` scattered ones."""
    runs: list[tuple[slice, slice]] = []

    def group() -> _Group:
        places = slice(runs[0][0].start, runs[-1][0].stop)
        return _Group(places, runs[0][1] if len(runs) == 1 else torch.tensor(rows[places], device=device))

    for places, run in _runs(rows):
        if runs and places.stop - runs[0][0].start > _GATHERED:
            yield group()
            runs.clear()
        runs.append((places, run))
    yield group()


def _runs(rows: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """Yield runs of adjacent rows among ascending row numbers, as (positions in the list, row numbers)."""
    breaks = [place for place, (a, b) in enumerate(pairwise(rows), start=1) if b != a + 1]
    for first, end in pairwise([0, *breaks, len(rows)]):
        yield slice(first, end), slice(rows[first], rows[end - 1] + 1)
