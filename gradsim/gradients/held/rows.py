"""The rows of the samples that are held, in one tensor, and the inner products of many rows at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from gradsim.gradients.planning.row_layout import Layout, Segment
from gradsim.gradients.rules.arithmetic import CHUNK, chunk_products, chunk_squares, segment_sums

# Elements of a row that are compared at a time. On a processor, so few that those of a batch stay in its cache while
# the queries' pass by; a GPU should compute and not launch.
_SPAN = {"cpu": 1 << 18}
_SPAN_ON_ACCELERATOR = 1 << 21

# Rows that do not lie next to each other are copied together, so many at most: one product of five by two reads every
# row once, ten products of one by one do not. So few that no budget needs to know.
_GATHERED = 8


@dataclass(frozen=True, eq=False)
class _Span:
    """A part of a row that is compared at a time: some whole segments, or a part of one.

    Attributes:
        elements: which of the row.
        segments: numbers of the segments.
        chunks: (segments,) how many chunks of `CHUNK` elements each has in the span.
    """

    elements: slice
    segments: slice
    chunks: Tensor

    def sums(self, products: Tensor) -> Tensor:
        """(chunks, ...) -> (segments, ...) in float64."""
        if len(self.chunks) == 1:
            return products.sum(dim=0, keepdim=True, dtype=torch.float64)
        return segment_sums(products.double(), self.chunks)


class Rows:
    """Rows of a layout, taken and given back by number.

    Args:
        layout: of every row.
        capacity: how many rows there can be.
        dtype: of the elements.
        device: where they lie.
    """

    def __init__(self, layout: Layout, capacity: int, dtype: torch.dtype, device: torch.device) -> None:
        self.layout = layout
        self._values = torch.empty(capacity, layout.width, dtype=dtype, device=device)
        for segment in layout.segments:  # what lies between segments adds nothing
            self._values[:, segment.start + segment.elements : segment.end] = 0
        self._free = list(range(capacity))[::-1]
        self._spans = list(_spans(layout.segments, _SPAN.get(device.type, _SPAN_ON_ACCELERATOR), device))

    def take(self) -> int:
        """The number of a free row, the lowest; what is in it has to be written over."""
        return self._free.pop()

    def give_back(self, row: int) -> None:
        """A row that nobody needs any more."""
        self._free.append(row)
        self._free.sort(reverse=True)

    def __getitem__(self, row: int) -> Tensor:
        """(width,), a view."""
        return self._values[row]

    def inner_products(self, left: Sequence[int], right: Sequence[int]) -> Tensor:
        """Of all rows of one group with all of another, both ascending: float64 (segments, left, right)."""
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
        """Of each row with itself, rows ascending: float64 (segments, rows)."""
        products = self._zeros(len(rows))
        for span in self._spans:
            values = self._values[:, span.elements]
            for here, at in _runs(rows):
                products[span.segments, here] += span.sums(chunk_squares(values[at]))
        return products

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(len(self.layout.segments), *shape, dtype=torch.float64, device=self._values.device)


def _spans(segments: Sequence[Segment], most: int, device: torch.device) -> Iterator[_Span]:
    """Whole segments as long as they fit, and parts of those that are too large."""
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
        places: where they stand in the list of all rows.
        rows: their numbers.
    """

    places: slice
    rows: slice | Tensor

    def of(self, values: Tensor) -> Tensor:
        """(capacity, n) -> (group, n): a view where they lie next to each other, else a copy."""
        return values[self.rows] if isinstance(self.rows, slice) else values.index_select(0, self.rows)


def _groups(rows: Sequence[int], device: torch.device) -> Iterator[_Group]:
    """Ascending row numbers, in parts: rows next to each other, or so few that they may be copied."""
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
    """Ascending row numbers as ranges: (places in the list, rows)."""
    breaks = [place for place, (a, b) in enumerate(pairwise(rows), start=1) if b != a + 1]
    for first, end in pairwise([0, *breaks, len(rows)]):
        yield slice(first, end), slice(rows[first], rows[end - 1] + 1)
