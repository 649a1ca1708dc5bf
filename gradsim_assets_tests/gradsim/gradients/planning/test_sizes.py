"""Predicted sizes, the choice of forms, and the memory that is free."""

import numpy as np
import pytest
import torch

from gradsim.gradients import compare
from gradsim.gradients.capture.memory import default_budget, free_bytes
from gradsim.gradients.planning.sizes import Costs, LayerShape, Lengths, forms, sample_bytes

LINEAR = LayerShape(elements=100 * 50, per_token=1, width=150)
HEAD = LayerShape(elements=1000 * 50, per_label=1, width=1050)
EMBEDDING = LayerShape(elements=1000 * 50, lookups=1, lookup_width=50, vocabulary=1000)
BIAS = LayerShape(elements=100)
SMALLEST = float("inf")


def costs_of(shapes, *tokens):
    return Costs.of(shapes, Lengths(np.array(tokens), np.array(tokens) // 2), itemsize=4)


def test_bytes_of_factors_and_of_rows():
    costs = costs_of([LINEAR, HEAD, EMBEDDING, BIAS], 10, 2000)
    assert sample_bytes(costs, np.ones(4, dtype=bool), 4 * 105_100).tolist() == [4 * 105_100] * 2
    short, long = sample_bytes(costs, np.array([False, False, False, True]), 400).tolist()
    assert short == 400 + 10 * 150 * 4 + 5 * 1050 * 4 + 10 * (50 * 4 + 8)
    assert long == 400 + 2000 * 150 * 4 + 1000 * 1050 * 4 + 1000 * (50 * 4 + 8)


@pytest.mark.parametrize(("tokens", "built"), [(33, [0, 0, 0, 1]), (34, [1, 0, 0, 1]), (2000, [1, 1, 1, 1])])
def test_smallest_forms(tokens, built):
    costs = costs_of([LINEAR, HEAD, EMBEDDING, BIAS], tokens, tokens)
    assert forms(costs, np.array([(0, 1)]), projected=False, per_byte=SMALLEST).tolist() == built


@pytest.mark.parametrize("tokens", [2, 5, 10, 20, 60])
@pytest.mark.parametrize("partners", [1, 2, 5, 20])
def test_fastest_form_follows_the_rule_of_two_h_over_t(tokens, partners):
    """Equal lengths, every sample in as many pairs: ghost while these are fewer than about 2·H/T.

    Exactly: with a self dot, which counts at both ends, and with the cost of the product of built gradients.
    """
    n = 40
    pairs = np.array([(i, (i + step) % n) for i in range(n) for step in range(1, partners + 1)])
    built = forms(costs_of([LINEAR], *[tokens] * n), pairs, projected=False, per_byte=0)
    ends = 2 * partners + 2
    harmonic = 5000 / 150
    ghost_cost, built_cost = ends * tokens / (2 * harmonic), 1 + ends / (2 * tokens)
    assert built.tolist() == [built_cost <= ghost_cost]


def test_the_dearer_a_byte_the_smaller_the_forms():
    """Short samples in many pairs: building is faster, and takes more bytes."""
    costs, pairs = costs_of([LINEAR], *[20] * 10), np.array([(i, j) for i in range(10) for j in range(10)])
    chosen = [bool(forms(costs, pairs, projected=False, per_byte=x)[0]) for x in (0, 1, 10, 100, 1000, SMALLEST)]
    assert chosen == sorted(chosen, reverse=True)
    assert (chosen[0], chosen[-1]) == (True, False)


def test_ghost_operations_of_layers_with_as_many_rows_as_others_and_with_none():
    shapes = [HEAD, LINEAR, BIAS, LayerShape(elements=30 * 20, per_token=1, width=50), EMBEDDING]
    found = costs_of(shapes, 10, 30).ghost(np.array([(0, 1), (1, 1)]))
    tokens, labels = 10 * 30 + 30 * 30, 5 * 15 + 15 * 15
    assert found.tolist() == [2 * labels * 1050, 2 * tokens * 150, 0, 2 * tokens * 50, 0]


def test_projection_builds_anyway_so_that_built_is_cheaper():
    costs, pairs = costs_of([LINEAR], 9, 9), np.array([(0, 1)])
    assert not forms(costs, pairs, projected=False, per_byte=0).any()
    assert forms(costs, pairs, projected=True, per_byte=0).all()


def test_embeddings_keep_their_rows_and_vectors_are_built():
    pairs = np.array([(0, 1)] * 100)
    assert forms(costs_of([EMBEDDING, BIAS], 500, 500), pairs, projected=False, per_byte=0).tolist() == [False, True]


def test_prediction_is_exact_for_built_gradients(make_model, make_samples):
    """All layers of this model but the tied embedding are built when every sample is in many pairs."""
    model = make_model(dtype=torch.float32)
    samples = make_samples(6, 1, 30, 40)
    result = compare(model, samples, samples, "all")
    assert result.plan.built.all()
    assert result.peak_bytes == result.plan.peak_bytes == 6 * sum(p.nbytes for p in model.parameters())


def test_default_budget_leaves_a_margin():
    cpu = torch.device("cpu")
    assert 0 < default_budget(cpu) < free_bytes(cpu)
