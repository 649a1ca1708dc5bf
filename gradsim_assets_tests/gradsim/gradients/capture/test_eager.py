"""Models that do not run as they are written: compiled ones, and experts whose kernels lack a precision."""

import numpy as np
import pytest
import torch

from gradsim.gradients import Projector, compare, compare_tiles
from gradsim.gradients.reference import reference_gradient
from gradsim.gradients.vectors import projected_gradients

pytestmark = pytest.mark.slow


def compile_whole(model, **settings):
    return torch.compile(model, **settings)


def compile_in_place(model, **settings):
    model.compile(**settings)
    return model


def compile_forward(model, **settings):
    model.forward = torch.compile(model.forward, **settings)
    return model


def compile_module(model, **settings):
    model.model.layers[1].mlp = torch.compile(model.model.layers[1].mlp, **settings)
    return model


def compile_modules_in_place(model, **settings):
    for layer in model.model.layers:
        layer.compile(**settings)
    return model


@pytest.mark.parametrize(
    "compile_model", [compile_whole, compile_in_place, compile_forward, compile_module, compile_modules_in_place]
)
def test_compiled_models_run_uncompiled(compile_model, make_model, make_samples):
    queries, originals = make_samples(2, seed=1), make_samples(2, seed=2)
    expected = compare(make_model(), queries, originals, "all", precision="float64")
    graphs_run = []

    def backend(graph, _):
        def run(*inputs):
            graphs_run.append(graph)
            return graph(*inputs)

        return run

    model = compile_model(make_model(), backend=backend)
    model(input_ids=torch.tensor([[1, 2, 3]]))
    assert graphs_run
    graphs_run.clear()
    names = [name for name, _ in model.named_parameters()]
    attributes = [dict(vars(module)) for module in model.modules()]

    result = compare(model, queries, originals, "all", precision="float64")

    assert not graphs_run
    assert result.layers == expected.layers
    assert result.passes == expected.passes
    np.testing.assert_array_equal(result.dots, expected.dots)
    assert [name for name, _ in model.named_parameters()] == names
    assert [dict(vars(module)) for module in model.modules()] == attributes
    model(input_ids=torch.tensor([[1, 2, 3]]))
    assert graphs_run


def test_compiled_models_in_tiles_vectors_and_the_oracle(make_model, make_samples):
    samples = make_samples(2, seed=1)
    projector = Projector("sjlt", 0.3, 42, "p")
    plain, compiled = make_model(), compile_whole(compile_module(make_model(), backend="eager"), backend="eager")
    assert compare_tiles(compiled, samples, samples, "all").layers == list(dict(plain.named_parameters()))
    for (_, vector), (_, expected_vector) in zip(
        projected_gradients(compiled, samples, projector, precision="float64"),
        projected_gradients(plain, samples, projector, precision="float64"),
        strict=True,
    ):
        np.testing.assert_array_equal(vector, expected_vector)
    expected = reference_gradient(plain, samples[0])
    found = reference_gradient(compiled, samples[0])
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[layer], expected[layer]) for layer in expected)


@pytest.mark.parametrize("kind", ["mixtral, stacked experts", "gpt_oss, transposed experts with biases"])
def test_grouped_experts_in_float64(kind, make_model, make_samples, oracle):
    queries, originals = make_samples(2, seed=1), make_samples(2, seed=2)
    expected = oracle(make_model(kind), queries, originals)
    model = make_model(kind)
    model.set_experts_implementation("grouped_mm")  # transformers' default
    own = oracle(model, queries, originals)

    result = compare(model, queries, originals, "all", precision="float64")

    assert model.config._experts_implementation == "grouped_mm"
    error = np.abs(result.dots.reshape(expected.dots.shape) - expected.dots)
    assert (error <= 1e-10 * expected.scale + 1e-28).all()
    np.testing.assert_array_equal(own.dots, expected.dots)


def test_grouped_experts_of_a_float32_model_stay_in_float32(make_model, make_samples):
    """And come back after a comparison in float64 that an error ends."""
    model = make_model("mixtral, stacked experts", torch.float32)
    model.set_experts_implementation("grouped_mm")
    seen = []
    model.register_forward_pre_hook(lambda *_: seen.append(model.config._experts_implementation))
    samples = make_samples(2, seed=1)
    compare(model, samples, samples, "all")
    assert set(seen) == {"grouped_mm"}
    seen.clear()
    compare(model, samples, samples, "all", precision="float64")
    assert set(seen) == {"eager"}
    assert model.config._experts_implementation == "grouped_mm"

    def fail(done, total):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        compare(model, samples, samples, "all", precision="float64", progress=fail)
    assert model.config._experts_implementation == "grouped_mm"
