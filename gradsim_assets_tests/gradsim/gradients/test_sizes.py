"""Predicted sizes, the choice of forms, and the memory that is free."""

import numpy as np
import pytest
import torch

from gradsim.gradients import compare
from gradsim.gradients.memory import default_budget, free_bytes
from gradsim.gradients.sizes import LayerShape, Lengths, fastest_forms, sample_bytes, smallest_forms

LINEAR = LayerShape(elements=100 * 50, per_token=1, width=150)
HEAD = LayerShape(elements=1000 * 50, per_label=1, width=1050)
EMBEDDING = LayerShape(elements=1000 * 50, lookups=1, lookup_width=50, vocabulary=1000)
BIAS = LayerShape(elements=100)


def lengths(*tokens):
    return Lengths(np.array(tokens), np.array(tokens) // 2)


def test_bytes_of_factors_and_of_gradients():
    shapes = [LINEAR, HEAD, EMBEDDING, BIAS]
    factors, built = np.zeros((2, 4), dtype=bool), np.ones((2, 4), dtype=bool)
    of = lengths(10, 2000)
    assert sample_bytes(shapes, of, built, 4).tolist() == [4 * 105_100] * 2
    short, long = sample_bytes(shapes[:3], of, factors[:, :3], 4).tolist()
    assert short == 10 * 150 * 4 + 5 * 1050 * 4 + 10 * (50 * 4 + 8)
    assert long == 2000 * 150 * 4 + 1000 * 1050 * 4 + 1000 * (50 * 4 + 8)


def test_smallest_forms():
    forms = smallest_forms([LINEAR, HEAD, EMBEDDING, BIAS], lengths(33, 34, 2000), 4)
    assert forms.tolist() == [
        [False, False, False, True],
        [True, False, False, True],
        [True, True, True, True],
    ]


@pytest.mark.parametrize("tokens", [2, 5, 10, 20, 60])
@pytest.mark.parametrize("partners", [1, 2, 5, 20])
def test_fastest_form_follows_the_rule_of_two_h_over_t(tokens, partners):
    """Equal lengths, every sample in as many pairs: ghost while these are fewer than about 2·H/T.

    Exactly: with a self dot, which counts at both ends, and with the cost of the product of built gradients.
    """
    n = 40
    pairs = np.array([(i, (i + step) % n) for i in range(n) for step in range(1, partners + 1)])
    built = fastest_forms([LINEAR], lengths(*[tokens] * n), pairs, projected=False)
    ends = 2 * partners + 2
    harmonic = 5000 / 150
    ghost_cost, built_cost = ends * tokens / (2 * harmonic), 1 + ends / (2 * tokens)
    assert built.all() == built.any() == (built_cost <= ghost_cost)


def test_projection_builds_anyway_so_that_built_is_cheaper():
    pairs = np.array([(0, 1)])
    assert not fastest_forms([LINEAR], lengths(9, 9), pairs, projected=False).any()
    assert fastest_forms([LINEAR], lengths(9, 9), pairs, projected=True).all()


def test_embeddings_keep_their_rows_and_vectors_are_built():
    pairs = np.array([(0, 1)] * 100)
    forms = fastest_forms([EMBEDDING, BIAS], lengths(500, 500), pairs, projected=False)
    assert forms.tolist() == [[False, True]] * 2


def test_prediction_is_exact_for_built_gradients(make_model, make_samples):
    """All layers of this model but the tied embedding are built when every sample is in many pairs."""
    model = make_model(dtype=torch.float32)
    samples = make_samples(6, 1, 30, 40)
    result = compare(model, samples, samples, "all")
    assert result.plan.forms.all()
    assert result.peak_bytes == result.plan.peak_bytes == 6 * sum(p.nbytes for p in model.parameters())


def test_default_budget_leaves_a_margin():
    cpu = torch.device("cpu")
    free = free_bytes(cpu)
    assert 0 < default_budget(cpu, 10**6) < free
    assert default_budget(cpu, 10**15) == 0
