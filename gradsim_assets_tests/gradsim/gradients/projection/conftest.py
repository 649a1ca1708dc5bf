"""Projections of single layers, made from seeds."""

from collections.abc import Callable

import pytest
import torch

from gradsim.gradients.projection import KINDS
from gradsim.gradients.projection.kind import LayerProjection, LayerSketch
from gradsim.gradients.projection.randomness import stable_key

CPU = torch.device("cpu")

# Kinds that are the same on every device; `traker` is the reference that is not.
PORTABLE = tuple(kind for kind in KINDS if kind != "traker")


def make_projection(
    kind: str, shape: tuple[int, ...], wanted: int, seed: int = 0, nonzeros: int = 1, device: torch.device = CPU
) -> LayerProjection:
    of_shape = KINDS[kind].of_shape(shape)
    dimension = of_shape.dimension(shape, wanted)
    return of_shape(LayerSketch(shape, dimension, stable_key(seed, kind), nonzeros), device)


@pytest.fixture
def projection() -> Callable[..., LayerProjection]:
    return make_projection


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `kind` runs for every kind, one that takes `portable` for those that run alike everywhere."""
    for name, kinds in (("kind", tuple(KINDS)), ("portable", PORTABLE)):
        named = [marker.args[0] for marker in metafunc.definition.iter_markers("parametrize")]
        if name in metafunc.fixturenames and not any(name in each for each in named):
            metafunc.parametrize(name, kinds)
