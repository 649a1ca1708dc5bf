"""Projected dots of a comparison, against plain autograd's gradients projected one by one."""

import itertools

import numpy as np
import pytest
import torch

from gradsim.gradients import Projector, compare
from gradsim.gradients.projection import KINDS, ModelProjection
from gradsim.gradients.reference import reference_gradient

CPU = torch.device("cpu")


def projected_by_hand(model, projector, samples):
    """Each sample's projected gradient, layer by layer; whole layers as they are."""
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    projection = ModelProjection(projector, shapes, CPU)
    whole = [projection.keeps_whole(layer) for layer in shapes]
    assert any(whole) != all(whole)
    return [
        [
            gradient.flatten() if projection.keeps_whole(layer) else projection.project(layer, [gradient])[0]
            for layer, gradient in reference_gradient(model, sample).items()
        ]
        for sample in samples
    ]


def small(model, kind, dimension=100):
    """Large layers to `dimension`, others whole."""
    elements = {name: parameter.numel() for name, parameter in model.named_parameters()}
    return Projector(kind, {name: dimension if n > 2000 else n for name, n in elements.items()}, 42, "small")


@pytest.mark.parametrize(
    ("kind", "model_name"),
    [
        *((kind, "olmo, tied") for kind in KINDS),
        # Of other shapes of layers, a kind that takes their sides apart and one that does not.
        *itertools.product(
            ("logra", "sjlt"), ("gpt2, untied", "mixtral, stacked experts", "mamba, convolutions and states")
        ),
    ],
)
def test_projected_dots(make_model, make_samples, oracle, kind, model_name):
    """Whole layers give the exact dots, the others R g · R g', all from one pass."""
    model = make_model(model_name)
    queries, originals = make_samples(2, seed=1), make_samples(3, seed=2)
    projector = small(model, kind)

    result = compare(model, queries, originals, "all", precision="float64", projectors=[projector])

    # traker computes in float32.
    tolerance = 1e-10 if kind != "traker" else 1e-6
    projected = projected_by_hand(model, projector, (*queries, *originals))
    norms = np.array([[float(v.norm()) for v in vectors] for vectors in projected])
    found = result.projected["small"]
    for pair, (q, o) in enumerate((q, o) for q in range(2) for o in range(3)):
        expected = [float(a @ b) for a, b in zip(projected[q], projected[2 + o], strict=True)]
        assert (np.abs(found.dots[pair] - expected) <= tolerance * norms[q] * norms[2 + o] + 1e-18).all()
    np.testing.assert_allclose(found.query_self_dots, norms[:2] ** 2, rtol=2 * tolerance)
    np.testing.assert_allclose(found.original_self_dots, norms[2:] ** 2, rtol=2 * tolerance)
    np.testing.assert_allclose(result.dots, oracle(model, queries, originals).dots.reshape(6, -1), atol=1e-12)


def test_several_projectors_beside_each_other(make_model, make_samples):
    model = make_model()
    samples = make_samples(2, seed=1), make_samples(3, seed=2)
    projectors = [Projector(kind, 0.3, 42, kind) for kind in KINDS]
    together = compare(model, *samples, "all", projectors=projectors)
    for projector in projectors:
        alone = compare(model, *samples, "all", projectors=[projector])
        np.testing.assert_allclose(
            together.projected[projector.name].dots, alone.projected[projector.name].dots, rtol=1e-6, atol=1e-12
        )


def by_term(model, samples, kind, **keywords):
    queries, originals = samples
    result = compare(model, queries, originals, "all", projectors=[Projector(kind, 0.3, 42, "p")], **keywords)
    return result, result.plan.alternative.by_term[0]


def test_factors_are_projected_where_that_costs_less(make_model, make_samples):
    """Long samples are built and projected, short ones are projected from their factors; the numbers agree."""
    model = make_model(dtype=torch.float64)
    short = make_samples(2, 1, 3, 3), make_samples(2, 2, 3, 3)
    result, of_terms = by_term(model, short, "logra", precision="float64")
    assert of_terms.any()
    assert not by_term(model, short, "sjlt")[1].any()
    expected = compare(model, *short, [(0, 0)], precision="float64", projectors=[Projector("logra", 0.3, 42, "p")])
    np.testing.assert_allclose(result.projected["p"].dots[0], expected.projected["p"].dots[0], rtol=1e-9, atol=1e-18)


def test_a_kind_that_takes_factors_needs_no_gradient(make_model, make_samples):
    """The layers that are kept as factors without projections still are."""
    model = make_model()
    short = make_samples(1, 1, 3, 3), make_samples(1, 2, 3, 3)
    without = compare(model, *short, "all").plan.built
    assert not without.all()
    assert (by_term(model, short, "logra")[0].plan.built == without).all()


@pytest.mark.parametrize(
    ("kind", "budget"), [*((kind, 1.0) for kind in KINDS if kind != "traker"), ("logra", 4.0), ("sjlt", 4.0)]
)
def test_within_a_budget(make_model, make_samples, least_budget, kind, budget):
    """Originals that run again give the same projected dots."""
    model = make_model(dtype=torch.float32)
    samples = make_samples(3, 1), make_samples(4, 2)
    projectors = [Projector(kind, 0.3, 42, "p")]
    least = least_budget(model, *samples, "all", projectors=projectors)
    whole = compare(model, *samples, "all", projectors=projectors)
    tight = compare(model, *samples, "all", projectors=projectors, memory_budget=int(least * budget))
    norms = np.sqrt(whole.projected["p"].query_self_dots[:, None] * whole.projected["p"].original_self_dots[None])
    difference = np.abs(tight.projected["p"].dots - whole.projected["p"].dots)
    assert (difference <= 1e-5 * norms.reshape(difference.shape) + 1e-18).all()
