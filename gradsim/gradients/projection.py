"""Random projections of layers' gradients: one interface, and its kinds.

A projection R of a layer keeps inner products on average, E<Rg, Rg'> = <g, g'>, and is the same in every process, on
every device and for every partition: it follows from (seed, kind, layer's name, dimension) alone. A new kind is one
class and one line in `_KINDS`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradsim.errors import GradientError
from gradsim.gradients.arithmetic import segment_sums


@dataclass(frozen=True)
class Projector:
    """What `compare` is asked to project.

    Attributes:
        kind: "sjlt".
        dimensions: a share of each layer's parameters (see `published_dimension`), or every layer's dimension by name.
        seed: of the study.
        name: under which the results stand.
    """

    kind: str
    dimensions: float | Mapping[str, int]
    seed: int
    name: str

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise GradientError(f"projector {self.name!r} is of kind {self.kind!r}: choose one of {', '.join(_KINDS)}")
        if isinstance(self.dimensions, Mapping):
            for layer, dimension in self.dimensions.items():
                if dimension < 1:
                    raise GradientError(
                        f"projector {self.name!r} gives layer {layer} {dimension} dimensions: give at least 1"
                    )
        elif not 0 < self.dimensions <= 1:
            raise GradientError(
                f"projector {self.name!r} has a share of {self.dimensions}: give a number above 0 and at most 1"
            )

    def layer_dimensions(self, elements: Mapping[str, int]) -> dict[str, int]:
        """Dimension of every layer, given the elements of each; a layer not larger than its dimension is kept whole.

        Raises:
            GradientError: dimensions by name that name other layers.
        """
        if not isinstance(self.dimensions, Mapping):
            share = self.dimensions
            wanted = {layer: published_dimension(share, n) for layer, n in elements.items()}
        else:
            for layer in (*elements, *self.dimensions):
                if layer not in self.dimensions:
                    raise GradientError(f"projector {self.name!r} gives layer {layer} no dimension: name every layer")
                if layer not in elements:
                    raise GradientError(
                        f"projector {self.name!r} names layer {layer}, which the model lacks: leave it out"
                    )
            wanted = dict(self.dimensions)
        return {layer: min(wanted[layer], n) for layer, n in elements.items()}


def published_dimension(share: float, elements: int) -> int:
    """Dimension of a layer for a share of its parameters: max(512, 512·round(share·n/512)), as published."""
    return max(512, 512 * round(share * elements / 512))


class LayerProjection(Protocol):
    """A projection of one layer. Kinds are made from (elements, dimension, key, device)."""

    def __init__(self, elements: int, dimension: int, key: int, device: torch.device) -> None: ...

    def project(self, gradient: Tensor) -> Tensor:
        """Gradient of any shape with `elements` elements -> (dimension,), of its type."""
        ...

    @staticmethod
    def nbytes(elements: int, dimension: int) -> int:
        """Bytes that the projection itself takes on the device."""
        ...


# Products that are added up in float32 before float64 takes over.
_LONGEST_FLOAT32_SUM = 1024


class Sjlt:
    """Sparse Johnson-Lindenstrauss with one non-zero a column: each coordinate is added to one bucket, with a sign.

    The variance of a projected inner product d of vectors with self products q and o is at most (q·o + d²)/k. The
    coordinates are sorted by sign and bucket once, so that projecting is a gather and sums of runs, in the same order
    on every device, without atomic additions.
    """

    def __init__(self, elements: int, dimension: int, key: int, device: torch.device) -> None:
        slots = torch.from_numpy(signed_buckets(elements, dimension, key)).to(device)
        order = torch.sort(slots, stable=True).indices
        self._order = order.to(_index_type(elements))
        self._lengths = torch.bincount(slots, minlength=2 * dimension)
        self._long_sums = elements > _LONGEST_FLOAT32_SUM * dimension

    def project(self, gradient: Tensor) -> Tensor:
        """(elements,) -> (dimension,)."""
        values = gradient.reshape(-1).index_select(0, self._order)
        if self._long_sums:
            values = values.double()
        plus, minus = segment_sums(values, self._lengths).chunk(2)
        return (plus - minus).to(gradient.dtype)

    @staticmethod
    def nbytes(elements: int, dimension: int) -> int:
        """The sorted coordinates and the lengths of the runs."""
        return elements * _index_type(elements).itemsize + 2 * dimension * 8


_KINDS: dict[str, type[LayerProjection]] = {"sjlt": Sjlt}


class Projection:
    """A projector at work on a model's layers; each layer's projection is made once, when it is first needed."""

    def __init__(self, projector: Projector, elements: Mapping[str, int], device: torch.device) -> None:
        self.name = projector.name
        self._projector = projector
        self._elements = dict(elements)
        self._device = device
        self._made: dict[str, LayerProjection] = {}
        self.dimensions = projector.layer_dimensions(elements)

    @property
    def projected_elements(self) -> int:
        """Elements of one sample's projected vectors; layers that are kept whole need none of their own."""
        return sum(k for layer, k in self.dimensions.items() if not self.keeps_whole(layer))

    @property
    def layout_bytes(self) -> int:
        """Bytes of all layers' projections on the device."""
        kind = _KINDS[self._projector.kind]
        return sum(
            kind.nbytes(self._elements[layer], k) for layer, k in self.dimensions.items() if not self.keeps_whole(layer)
        )

    def keeps_whole(self, layer: str) -> bool:
        """Whether a layer is not projected, so that its dots are the exact ones."""
        return self.dimensions[layer] == self._elements[layer]

    def project(self, layer: str, gradient: Tensor) -> Tensor:
        """The projected gradient of a layer that is not kept whole, (k,)."""
        if layer not in self._made:
            k = self.dimensions[layer]
            key = stable_key(self._projector.seed, self._projector.kind, layer, k)
            kind = _KINDS[self._projector.kind]
            self._made[layer] = kind(self._elements[layer], k, key, self._device)
        return self._made[layer].project(gradient)


def make_projections(projectors: Sequence[Projector], parameters: Mapping[str, nn.Parameter]) -> list[Projection]:
    """Projectors for a model with these layers.

    Raises:
        GradientError: two of one name, or one that does not fit the layers.
    """
    names = [projector.name for projector in projectors]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise GradientError(f"two projectors have the name {name!r}: name each differently")
    elements = {layer: parameter.numel() for layer, parameter in parameters.items()}
    device = next(iter(parameters.values())).device
    return [Projection(projector, elements, device) for projector in projectors]


def stable_key(*parts: int | str) -> int:
    """64 bits from SHA-256 of the parts as JSON: the same in every process."""
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little")


def signed_buckets(elements: int, dimension: int, key: int) -> NDArray[np.int64]:
    """For every coordinate its bucket, in [0, k) with sign +, in [k, 2k) with sign -.

    SplitMix64 (Steele, Lea and Flood, 2014) started at `key`: its upper 32 bits, scaled to k, are the bucket, its
    lowest bit is the sign. Integer arithmetic only, coordinate by coordinate.
    """
    slots = np.empty(elements, dtype=np.int64)
    for start in range(0, elements, _CHUNK):
        counters = np.arange(start, min(start + _CHUNK, elements), dtype=np.uint64)
        bits = _splitmix64(counters, key)
        buckets = ((bits >> np.uint64(32)) * np.uint64(dimension)) >> np.uint64(32)
        signs = bits & np.uint64(1)
        slots[start : start + _CHUNK] = buckets + signs * np.uint64(dimension)
    return slots


_CHUNK = 1 << 20


def _splitmix64(counters: NDArray[np.uint64], key: int) -> NDArray[np.uint64]:
    z = (counters + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _index_type(elements: int) -> torch.dtype:
    return torch.int32 if elements <= torch.iinfo(torch.int32).max else torch.int64
