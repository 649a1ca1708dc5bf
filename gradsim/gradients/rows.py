"""The rows of the samples that are held, in one tensor, and the inner products of many rows at once."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from gradsim.gradients.arithmetic import many_inner
from gradsim.gradients.layout import Layout

# Elements of a row that are compared at a time. On a processor, so few that those of a batch stay in its cache while
# the queries' pass by; a GPU should compute and not launch.
_PIECE = {"cpu": 1 << 18}
_PIECE_ON_ACCELERATOR = 1 << 23


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
        piece = _PIECE.get(device.type, _PIECE_ON_ACCELERATOR)
        self._pieces = [
            (number, start, min(start + piece, segment.end))
            for number, segment in enumerate(layout.segments)
            for start in range(segment.start, segment.end, piece)
        ]

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
        """Of all rows of one group with all of another: float64 (segments, left, right)."""
        products = torch.zeros(
            len(self.layout.segments), len(left), len(right), dtype=torch.float64, device=self._values.device
        )
        runs = [(places, others) for others in _runs(right) for places in _runs(left)]
        for segment, start, end in self._pieces:
            values = self._values[:, start:end]
            for (here, at), (there, to) in runs:
                products[segment, here, there] += many_inner(values[at], values[to])
        return products


def _runs(rows: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """Ascending row numbers as ranges: (places in the list, rows)."""
    breaks = [place for place, (a, b) in enumerate(pairwise(rows), start=1) if b != a + 1]
    for first, end in pairwise([0, *breaks, len(rows)]):
        yield slice(first, end), slice(rows[first], rows[end - 1] + 1)
