"""Every layer of every family against plain autograd, one sample at a time."""

import numpy as np
import pytest
import torch

from gradsim.gradients import Projector, compare

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


@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def test_every_device_gives_the_same(device, make_model, make_samples, oracle):
    """Exact and projected dots; on a machine with a GPU also there."""
    model = make_model(dtype=torch.float32)
    queries, originals = make_samples(3, seed=1), make_samples(4, seed=2)
    projectors = [Projector("sjlt", 0.3, 42, "p")]
    expected = oracle(model, queries, originals)
    on_cpu = compare(model, queries, originals, "all", projectors=projectors)

    result = compare(model.to(device), queries, originals, "all", projectors=projectors)
    again = compare(model, queries, originals, "all", projectors=projectors)

    scale = expected.scale.reshape(12, -1)
    assert (np.abs(result.dots - expected.dots.reshape(12, -1)) <= 1e-5 * scale).all()
    assert (np.abs(result.projected["p"].dots - on_cpu.projected["p"].dots) <= 1e-5 * scale).all()
    assert result.dots.tobytes() == again.dots.tobytes()
