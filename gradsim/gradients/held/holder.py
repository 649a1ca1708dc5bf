"""Hold samples' gradients for their comparisons: filled term by term, compared in groups."""

from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradsim.gradients.held.rows import Rows
from gradsim.gradients.planning.row_layout import Layout, Segment
from gradsim.gradients.projection import ModelProjection
from gradsim.gradients.rules.dots import Products
from gradsim.gradients.rules.terms import Dense, RowSum, Term, gradient, nbytes

Integers = NDArray[np.int64]
_Place = tuple[int, torch.Size, tuple[int, ...]]
"""Storage of a tensor: address, shape and strides."""


@dataclass(frozen=True, eq=False)
class _Sample:
    """Gradients of one held sample.

    Attributes:
        row: index of the row with built gradients and projected vectors.
        factors: terms of the layers that are kept as factors, by layer.
        written: (kind, layer) of the row's segments that this sample has written; others hold stale values.
    """

    row: int
    factors: dict[int, list[Term]] = field(default_factory=dict)
    written: set[tuple[int, int]] = field(default_factory=set)

    @property
    def factor_bytes(self) -> int:
        return sum(nbytes(terms) for terms in self.factors.values())


class Holder:
    """Gradients of the held samples, by sample number.

    Args:
        shapes: layer shapes by name.
        built: whether each layer's gradient is built; other layers are kept as factors.
        projections: projections whose vectors are held as well.
        by_term: (projections, layers) whether each term is projected as it arrives, instead of the whole gradient.
        capacity: maximum number of samples held at once.
        dtype: dtype of all held tensors.
        device: device of all held tensors.

    Attributes:
        nbytes: bytes of the samples that are complete and held on the device.
    """

    def __init__(
        self,
        shapes: Mapping[str, torch.Size],
        built: Sequence[bool],
        projections: Sequence[ModelProjection],
        by_term: NDArray[np.bool_],
        capacity: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._names = list(shapes)
        self._projections = projections
        self._layout = Layout(shapes, built, projections)
        self._rows = Rows(self._layout, capacity, dtype, device)
        self._segment_kinds = torch.tensor([segment.kind for segment in self._layout.segments], device=device)
        self._segment_layers = torch.tensor([segment.layer for segment in self._layout.segments], device=device)
        self._by_term: dict[int, list[int]] = defaultdict(list)
        self._by_gradient: dict[int, list[int]] = defaultdict(list)
        """Projections of each layer that take its terms, and those that take its gradient."""
        for kind, layer in self._layout.projected:
            (self._by_term if by_term[kind - 1, layer] else self._by_gradient)[layer].append(kind)
        self._by_factors = [layer for layer, build in enumerate(built) if not build]
        self._samples: dict[int, _Sample] = {}
        self._spilled: dict[int, tuple[Tensor, dict[int, list[Term]]]] = {}
        """Copies in host memory: row and factors."""
        self._copies: OrderedDict[_Place, tuple[Tensor, Tensor]] = OrderedDict()
        self._copies_kept = 0
        self._dtype = dtype
        self._device = device
        self.nbytes = 0
        """Bytes of the held samples on the device."""

    def __contains__(self, sample: int) -> bool:
        return sample in self._samples

    def open(self, samples: Sequence[int]) -> None:
        """Start to hold the samples of a batch, before their terms arrive."""
        for sample in samples:
            self._samples[sample] = _Sample(self._rows.take())
        # Keep both factors of every sample until the next module's arrive.
        self._copies_kept = 2 * len(samples)

    def take(self, sample: int, layer: int, term: Term | RowSum) -> None:
        """Add a term to a layer's gradient."""
        held = self._samples[sample]
        for kind in self._by_term.get(layer, ()):
            projected = self._projections[kind - 1].project_term(self._names[layer], term.map(self._in_format))
            self._add(held, self._layout.projected[kind, layer], Dense(projected))
        if layer in self._layout.built:
            self._add(held, self._layout.built[layer], term)
        else:
            held.factors.setdefault(layer, []).append(self._kept(term))

    def _add(self, held: _Sample, segment: Segment, term: Term | RowSum) -> None:
        """Add a term to a segment of a sample's row."""
        place = segment.of(self._rows[held.row])
        if not _is_in(place.dtype, term):
            # A matrix product cannot be written in another dtype than that of its factors.
            term = Dense(term.gradient())
        if (segment.kind, segment.layer) in held.written:
            term.add(place)
        else:
            term.write(place)
            held.written.add((segment.kind, segment.layer))

    def close(self, samples: Sequence[int]) -> Tensor:
        """Complete samples after their last term: project them and compute their self dots.

        Returns:
            Self dots in float64, (samples, 1 + projections, layers); the exact ones come first.
        """
        self._copies.clear()
        self._project([self._samples[sample] for sample in samples])
        for sample in samples:
            held = self._samples[sample]
            row = self._rows[held.row]
            for segment in self._layout.segments:
                if (segment.kind, segment.layer) not in held.written:
                    segment.of(row).zero_()
            self.nbytes += self._layout.width * row.itemsize + held.factor_bytes
        return self._self_dots(samples)

    def _self_dots(self, samples: Sequence[int]) -> Tensor:
        found = self._zeros(len(samples))
        if self._layout.segments:
            order = np.argsort([self._samples[sample].row for sample in samples])
            squares = self._rows.squares([self._samples[samples[place]].row for place in order])
            self._put(found, squares[:, np.argsort(order)])
        self._fill_from_factors(found, [(sample, sample) for sample in samples])
        self._fill_kept_whole(found)
        return found

    def drop(self, sample: int) -> None:
        """Free a sample on the device; keep its copy in host memory, if any."""
        held = self._samples.pop(sample)
        self.nbytes -= self._layout.width * self._rows[held.row].itemsize + held.factor_bytes
        self._rows.give_back(held.row)

    def forget(self, sample: int) -> None:
        """Free a sample and its copy in host memory."""
        self.drop(sample)
        self._spilled.pop(sample, None)

    def spill(self, sample: int) -> None:
        """Copy a sample to host memory and free it on the device."""
        held = self._samples[sample]
        factors = {layer: [term.map(_on_host) for term in terms] for layer, terms in held.factors.items()}
        self._spilled[sample] = (_on_host(self._rows[held.row]), factors)
        self.drop(sample)

    def restore(self, sample: int) -> None:
        """Copy a spilled sample back to the device; keep its copy in host memory."""
        row, factors = self._spilled[sample]
        held = _Sample(self._rows.take())
        self._rows[held.row].copy_(row)
        for layer, terms in factors.items():
            held.factors[layer] = [term.map(self._on_device) for term in terms]
        self._samples[sample] = held
        self.nbytes += self._layout.width * row.itemsize + held.factor_bytes

    def dots(self, left: Sequence[int], right: Sequence[int], pairs: Integers) -> Tensor:
        """Return the inner products of pairs of held samples.

        Args:
            left: samples in the first column of `pairs`.
            right: samples in the second column of `pairs`.
            pairs: (n, 2) samples.

        Returns:
            Inner products in float64, (pairs, 1 + projections, layers); the exact ones come first.
        """
        found = self._zeros(len(pairs))
        if self._layout.segments:
            self._fill_from_rows(found, left, right, pairs)
        self._fill_from_factors(found, pairs.tolist())
        self._fill_kept_whole(found)
        return found

    def _zeros(self, count: int) -> Tensor:
        shape = count, 1 + len(self._projections), len(self._names)
        return torch.zeros(shape, dtype=torch.float64, device=self._device)

    def _fill_from_rows(self, found: Tensor, left: Sequence[int], right: Sequence[int], pairs: Integers) -> None:
        first = sorted(left, key=lambda sample: self._samples[sample].row)
        second = sorted(right, key=lambda sample: self._samples[sample].row)
        products = self._rows.inner_products(
            [self._samples[sample].row for sample in first], [self._samples[sample].row for sample in second]
        )
        places = [{sample: place for place, sample in enumerate(group)} for group in (first, second)]
        a, b = (
            torch.tensor([place[sample] for sample in column], device=self._device)
            for place, column in zip(places, pairs.T.tolist(), strict=True)
        )
        self._put(found, products[:, a, b])

    def _put(self, found: Tensor, products: Tensor) -> None:
        """Write products (segments, n) to their places in `found`, (n, 1 + projections, layers)."""
        found[:, self._segment_kinds, self._segment_layers] = products.T

    def _fill_from_factors(self, found: Tensor, pairs: Sequence[Sequence[int]]) -> None:
        """Write the products of layers kept as factors to `found`, (pairs, 1 + projections, layers).

        Few layers are processed at a time, each for all pairs, so that cached factors serve several pairs.
        """
        for layers in self._layers_sharing_factors(pairs[0][0]):
            for place, (a, b) in enumerate(pairs):
                products = Products()
                for layer in layers:
                    found[place, 0, layer] = products.layer_dot(self._factors(a, layer), self._factors(b, layer))

    def _layers_sharing_factors(self, sample: int) -> list[list[int]]:
        """Return the layers kept as factors, in groups of consecutive layers that share a factor."""
        groups: list[list[int]] = []
        shared: set[int] = set()
        for layer in self._by_factors:
            factors = {id(tensor) for term in self._factors(sample, layer) for tensor in term.tensors}
            if shared & factors:
                groups[-1].append(layer)
                shared |= factors
            else:
                groups.append([layer])
                shared = factors
        return groups

    def _fill_kept_whole(self, found: Tensor) -> None:
        """Copy the exact dots of layers that a projection keeps whole."""
        for kind, projection in enumerate(self._projections, start=1):
            whole = [layer for layer, name in enumerate(self._names) if projection.keeps_whole(name)]
            found[:, kind, whole] = found[:, 0, whole]

    def _project(self, samples: Sequence[_Sample]) -> None:
        """Project the gradients of layers that were not projected term by term."""
        for layer, kinds in self._by_gradient.items():
            segment = self._layout.built.get(layer)
            if segment:
                written = [held for held in samples if (0, layer) in held.written]
                self._project_together(layer, kinds, written, [segment.of(self._rows[held.row]) for held in written])
                continue
            for held in samples:  # one at a time: gradients may be large
                if layer in held.factors:
                    self._project_together(layer, kinds, [held], [gradient(held.factors[layer])])

    def _project_together(
        self, layer: int, kinds: Sequence[int], samples: Sequence[_Sample], gradients: Sequence[Tensor]
    ) -> None:
        if not samples:
            return
        for kind in kinds:
            projected = self._projections[kind - 1].project(self._names[layer], gradients)
            for held, values in zip(samples, projected, strict=True):
                self._add(held, self._layout.projected[kind, layer], Dense(values))

    def _on_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device)

    def _factors(self, sample: int, layer: int) -> Sequence[Term]:
        return self._samples[sample].factors.get(layer, ())

    def _kept(self, term: Term | RowSum) -> Term:
        """Return a copy of a term with its own storage, so that the batch's tensors can be freed."""
        if isinstance(term, RowSum):
            return Dense(term.gradient())
        return term.map(self._copied)

    def _in_format(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._dtype) if tensor.is_floating_point() else tensor

    def _copied(self, tensor: Tensor) -> Tensor:
        """Return a copy, shared by consecutive layers that share a factor, such as q, k and v."""
        place = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if place not in self._copies:
            # Keep the source alive, so that no other tensor can reuse its address.
            dtype = self._dtype if tensor.is_floating_point() else tensor.dtype
            copy = torch.empty(tensor.shape, dtype=dtype, device=tensor.device).copy_(tensor)
            self._copies[place] = (tensor, copy)
            if len(self._copies) > self._copies_kept:
                self._copies.popitem(last=False)
        return self._copies[place][1]


def _is_in(dtype: torch.dtype, term: Term | RowSum) -> bool:
    tensors = (term.rows,) if isinstance(term, RowSum) else term.tensors
    return all(tensor.dtype == dtype for tensor in tensors if tensor.is_floating_point())


def _on_host(tensor: Tensor) -> Tensor:
    """Return a copy in host memory, pinned if the tensor is on a GPU."""
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    return copy.copy_(tensor)
