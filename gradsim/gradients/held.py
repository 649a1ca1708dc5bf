"""A captured sample as it is held for its comparisons."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradsim.gradients.arithmetic import inner
from gradsim.gradients.projection import Projection
from gradsim.gradients.rules.dots import layer_dot
from gradsim.gradients.rules.terms import Dense, LayerTerms, gradient, nbytes


@dataclass(frozen=True, eq=False)
class Held:
    """The gradients of one sample.

    Attributes:
        layers: terms of every layer.
        projected: for every projection a vector of every layer; None where the layer is kept whole or its gradient
            is zero, so that the exact dot holds.
    """

    layers: list[LayerTerms]
    projected: list[list[Tensor | None]]

    @property
    def nbytes(self) -> int:
        """Bytes that the sample takes."""
        vectors = (vector for vectors in self.projected for vector in vectors)
        return sum(map(nbytes, self.layers)) + sum(v.nbytes for v in vectors if v is not None)


def hold(
    terms: list[LayerTerms],
    built: Sequence[bool],
    projections: Sequence[Projection],
    names: Sequence[str],
) -> Held:
    """Keep a captured sample: each layer built or as factors, and its projected vectors.

    Empties the list of terms on the way, so that a layer's factors are gone when its gradient is there.
    """
    layers: list[LayerTerms] = []
    projected: list[list[Tensor | None]] = [[] for _ in projections]
    terms.reverse()
    for name, build in zip(names, built, strict=True):
        kept = terms.pop()
        projecting = [not projection.keeps_whole(name) for projection in projections]
        whole = gradient(kept) if kept and (build or any(projecting)) else None
        for vectors, projection, wanted in zip(projected, projections, projecting, strict=True):
            vectors.append(projection.project(name, whole) if whole is not None and wanted else None)
        if build and whole is not None:
            kept = (Dense(whole),)
        layers.append(tuple(term.map(_with_own_storage) for term in kept))
    return Held(layers, projected)


def dots(a: Held, b: Held, device: torch.device) -> Tensor:
    """Inner products of two samples in float64, (1 + projections, layers): the exact ones first."""
    zero = torch.zeros((), dtype=torch.float64, device=device)
    exact = [layer_dot(x, y, zero) for x, y in zip(a.layers, b.layers, strict=True)]
    rows = [exact]
    for vectors, others in zip(a.projected, b.projected, strict=True):
        rows.append(
            [
                whole if v is None or w is None else inner(v, w)
                for whole, v, w in zip(exact, vectors, others, strict=True)
            ]
        )
    return torch.stack([torch.stack(row) for row in rows])


def _with_own_storage(tensor: Tensor) -> Tensor:
    """A tensor that is not a small view of a large one, which would stay in memory with it."""
    is_view = 8 * tensor.untyped_storage().nbytes() > 9 * tensor.nbytes
    return tensor.clone() if is_view else tensor
