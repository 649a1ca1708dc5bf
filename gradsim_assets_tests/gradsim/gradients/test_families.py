"""Every layer of every family against plain autograd, one sample at a time."""

import numpy as np
import pytest
import torch

from gradsim.gradients import compare

pytestmark = pytest.mark.filterwarnings("ignore::gradsim.gradients.FallbackWarning")


def test_float64_is_autograd(model_kind, make_model, make_samples, oracle):
    model = make_model(model_kind)
    queries, originals = make_samples(3, seed=1), make_samples(4, seed=2)
    expected = oracle(model, queries, originals)

    result = compare(model, queries, originals, "all", precision="float64")

    assert result.layers == [name for name, _ in model.named_parameters()]
    # Some gradients are zero in exact arithmetic (biases of keys): what is left of them is rounding of this size.
    rounding = 1e-28
    error = np.abs(result.dots.reshape(expected.dots.shape) - expected.dots)
    assert (error <= 1e-10 * expected.scale + rounding).all()
    np.testing.assert_allclose(result.query_self_dots, expected.query_self_dots, rtol=1e-10, atol=rounding)
    np.testing.assert_allclose(result.original_self_dots, expected.original_self_dots, rtol=1e-10, atol=rounding)


def test_float32_is_within_the_tolerance(model_kind, make_model, make_samples, oracle):
    model = make_model(model_kind, torch.float32)
    queries, originals = make_samples(3, seed=1), make_samples(4, seed=2)
    expected = oracle(model, queries, originals)

    result = compare(model, queries, originals, "all")

    rounding = 1e-14
    error = np.abs(result.dots.reshape(expected.dots.shape) - expected.dots)
    assert (error <= 1e-5 * expected.scale + rounding).all()
    error = np.abs(result.query_self_dots - expected.query_self_dots)
    assert (error <= 1e-5 * expected.query_self_dots + rounding).all()
