"""Random projections: published sizes, unbiased, of the promised variance, the same everywhere."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradsim.errors import GradientError
from gradsim.gradients import Projector, compare
from gradsim.gradients.projection import (
    Projection,
    Sjlt,
    make_projections,
    published_dimension,
    signed_buckets,
    stable_key,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize(("share", "total"), [(0.01, 11_778_048), (0.05, 58_841_600)])
def test_published_sizes(golden, share, total):
    elements = json.loads((golden / "published/analysis/parameters_per_layer.json").read_text())
    dimensions = Projector("sjlt", share, 42, "p").layer_dimensions(elements)
    assert sum(dimensions.values()) == total


@given(st.floats(0.001, 1), st.integers(1, 10**9))
def test_published_dimension_is_a_positive_multiple_of_512(share, elements):
    dimension = published_dimension(share, elements)
    assert dimension >= 512
    assert dimension % 512 == 0
    assert abs(dimension - share * elements) <= 256 or dimension == 512


def test_layers_not_larger_than_their_dimension_are_whole():
    dimensions = Projector("sjlt", 0.5, 42, "p").layer_dimensions({"small": 100, "equal": 512, "large": 4096})
    assert dimensions == {"small": 100, "equal": 512, "large": 2048}


def test_every_coordinate_goes_to_one_bucket_with_a_sign():
    projection = Sjlt(40, 8, key=7, device=CPU)
    columns = torch.stack([projection.project(row) for row in torch.eye(40)])
    assert columns.shape == (40, 8)
    assert (columns.count_nonzero(dim=1) == 1).all()
    assert set(columns.sum(dim=1).tolist()) == {-1.0, 1.0}


def test_slots_are_uniform_and_independent_of_chunks(monkeypatch):
    slots = signed_buckets(200_000, 10, key=3)
    counts = np.bincount(slots, minlength=20)
    assert np.abs(counts - 10_000).max() < 5 * np.sqrt(10_000)
    monkeypatch.setattr("gradsim.gradients.projection._CHUNK", 7_001)
    assert np.array_equal(signed_buckets(200_000, 10, key=3), slots)


def test_unbiased_with_the_variance_of_theory():
    """Mean over seeds within four standard errors of d; variance at most (q·o + d²)/k, and near it."""
    k, seeds = 16, 4000
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(60, generator=generator, dtype=torch.float64)
    b = 0.5 * a + torch.randn(60, generator=generator, dtype=torch.float64)
    d, q, o = float(a @ b), float(a @ a), float(b @ b)
    dots = np.array(
        [
            float(projection.project(a) @ projection.project(b))
            for projection in (Sjlt(60, k, stable_key(seed), CPU) for seed in range(seeds))
        ]
    )
    theory = (q * o + d * d) / k
    assert abs(dots.mean() - d) < 4 * np.sqrt(theory / seeds)
    assert 0.85 * theory < dots.var() < 1.1 * theory


def test_long_sums_are_accurate():
    values = torch.rand(300_000, generator=torch.Generator().manual_seed(0))
    projected = Sjlt(300_000, 2, key=1, device=CPU).project(values)
    slots = torch.from_numpy(signed_buckets(300_000, 2, key=1))
    exact = torch.zeros(4, dtype=torch.float64).index_add_(0, slots, values.double())
    torch.testing.assert_close(projected.double(), exact[:2] - exact[2:], rtol=2e-7, atol=0)


def test_projection_depends_on_seed_kind_layer_and_dimension():
    keys = {
        stable_key(42, "sjlt", "layer", 512),
        stable_key(43, "sjlt", "layer", 512),
        stable_key(42, "mask", "layer", 512),
        stable_key(42, "sjlt", "other", 512),
        stable_key(42, "sjlt", "layer", 1024),
    }
    assert len(keys) == 5


PROGRAM = """
import torch
from gradsim.gradients import Projector
from gradsim.gradients.projection import Projection
projection = Projection(Projector("sjlt", {"layer": 5}, 42, "p"), {"layer": 40}, torch.device("cpu"))
print(projection.project("layer", torch.arange(40.0)).tolist())
"""


def test_the_same_in_every_process_and_version():
    environment = {**os.environ, "PYTHONHASHSEED": "123"}
    output = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    ).stdout
    # As first computed: stored projections must not change their meaning.
    assert json.loads(output) == [37.0, 79.0, 87.0, 153.0, 68.0]


def test_projected_dots_of_a_comparison(make_model, make_samples, oracle):
    """Whole layers give the exact dots, the others R g · R g', all from one pass."""
    model = make_model()
    queries, originals = make_samples(2, seed=1), make_samples(3, seed=2)
    elements = {name: parameter.numel() for name, parameter in model.named_parameters()}
    dimensions = {name: 100 if n > 2000 else n for name, n in elements.items()}
    projector = Projector("sjlt", dimensions, 42, "small")

    result = compare(model, queries, originals, "all", precision="float64", projectors=[projector])

    from gradsim.gradients.reference import reference_gradient

    projection = Projection(projector, elements, CPU)
    projected = [
        [
            gradient.flatten() if projection.keeps_whole(layer) else projection.project(layer, gradient)
            for layer, gradient in reference_gradient(model, sample).items()
        ]
        for sample in (*queries, *originals)
    ]
    assert sum(map(projection.keeps_whole, elements)) not in (0, len(elements))
    small = result.projected["small"]
    for pair, (q, o) in enumerate((q, o) for q in range(2) for o in range(3)):
        expected = [float(a @ b) for a, b in zip(projected[q], projected[2 + o], strict=True)]
        np.testing.assert_allclose(small.dots[pair], expected, rtol=1e-10, atol=1e-18)
    expected = [[float(v @ v) for v in vectors] for vectors in projected]
    np.testing.assert_allclose(small.query_self_dots, expected[:2], rtol=1e-10)
    np.testing.assert_allclose(small.original_self_dots, expected[2:], rtol=1e-10)
    np.testing.assert_allclose(result.dots, oracle(model, queries, originals).dots.reshape(6, -1), atol=1e-12)


def projector(**changes):
    return Projector(**{"kind": "sjlt", "dimensions": 0.1, "seed": 42, "name": "p", **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "dense"}, "projector 'p' is of kind 'dense': choose one of sjlt"),
        ({"dimensions": 0.0}, "projector 'p' has a share of 0.0: give a number above 0 and at most 1"),
        ({"dimensions": 1.5}, "projector 'p' has a share of 1.5: give a number above 0 and at most 1"),
        ({"dimensions": {"a": 0}}, "projector 'p' gives layer a 0 dimensions: give at least 1"),
    ],
)
def test_bad_projectors(changes, message):
    with pytest.raises(GradientError) as error:
        projector(**changes)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("dimensions", "message"),
    [
        ({"a": 1}, "projector 'p' gives layer b no dimension: name every layer"),
        ({"a": 1, "b": 1, "c": 1}, "projector 'p' names layer c, which the model lacks: leave it out"),
    ],
)
def test_dimensions_that_do_not_fit_the_model(dimensions, message):
    with pytest.raises(GradientError) as error:
        projector(dimensions=dimensions).layer_dimensions({"a": 5, "b": 5})
    assert str(error.value) == message


def test_names_must_differ():
    parameters = {"a": torch.nn.Parameter(torch.zeros(3))}
    with pytest.raises(GradientError) as error:
        make_projections([projector(), projector(seed=1)], parameters)
    assert str(error.value) == "two projectors have the name 'p': name each differently"
