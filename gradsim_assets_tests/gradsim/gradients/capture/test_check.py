"""The safety net: models in which a rule does not hold are exact all the same."""

import logging
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from gradsim.gradients import FallbackWarning, compare


@pytest.fixture
def samples(make_samples):
    return make_samples(4, seed=1)


def assert_exact(model, samples, oracle):
    result = compare(model, samples[:2], samples[2:], "all", precision="float64")
    expected = oracle(model, samples[:2], samples[2:])
    error = np.abs(result.dots.reshape(expected.dots.shape) - expected.dots)
    assert (error <= 1e-10 * expected.scale).all()
    assert (expected.scale > 0).all()
    return result


def test_weight_that_is_used_functionally_elsewhere(make_model, samples, oracle):
    model = make_model("llama, untied")
    query, key = (getattr(model.model.layers[0].self_attn, name) for name in ("q_proj", "o_proj"))
    key.register_forward_hook(lambda module, arguments, output: output + nn.functional.linear(output, query.weight))
    with pytest.warns(FallbackWarning) as warned:
        assert_exact(model, samples, oracle)
    assert [str(warning.message) for warning in warned] == [
        "the gradient rules of 1 layers do not hold in this model, so autograd computes them, more slowly: "
        "model.layers.0.self_attn.q_proj.weight"
    ]


def test_hooks_of_the_user_that_change_inputs_and_outputs(make_model, samples, oracle, recwarn):
    model = make_model("llama, untied")
    layer = model.model.layers[0]
    layer.mlp.up_proj.register_forward_pre_hook(lambda module, arguments: (2 * arguments[0],))
    layer.mlp.down_proj.register_forward_hook(lambda module, arguments, output: output * output)
    layer.input_layernorm.register_forward_hook(lambda module, arguments, output: output + 1)
    model.model.embed_tokens.register_forward_hook(lambda module, arguments, output: 3 * output)
    assert_exact(model, samples, oracle)
    assert not [warning for warning in recwarn if warning.category is FallbackWarning]


def test_modules_that_are_shared_between_layers(make_model, samples, oracle, recwarn):
    model = make_model("llama, tied, all biases")
    model.model.layers[1] = model.model.layers[0]
    assert_exact(model, samples, oracle)
    assert not [warning for warning in recwarn if warning.category is FallbackWarning]


def test_outputs_that_are_changed_in_place(make_model, samples, oracle, recwarn):
    model = make_model("llama, untied")

    def double(module, arguments, output):
        output.mul_(2)

    model.model.layers[0].mlp.down_proj.register_forward_hook(double)
    model.model.embed_tokens.register_forward_hook(double)
    assert_exact(model, samples, oracle)
    assert not [warning for warning in recwarn if warning.category is FallbackWarning]


def test_plain_gradients_do_not_stand_together(make_model, samples, monkeypatch):
    model = make_model("llama, tied, all biases")
    checked, storages = [], []

    def agrees(terms, expected):
        checked.append(expected.shape)
        storages.append(weakref.ref(expected.untyped_storage()))
        alive = {storage.data_ptr() for reference in storages if (storage := reference()) is not None}
        assert alive == {expected.data_ptr()}
        assert all(parameter.grad is None for parameter in model.parameters())
        return True

    monkeypatch.setattr("gradsim.gradients.capture.check.terms_agree", agrees)
    compare(model, samples[:2], samples[2:], "all")
    # The first piece alone and in the batch, the second in the batch.
    assert sorted(checked) == sorted(3 * [parameter.shape for parameter in model.parameters()])


def test_layers_without_a_rule_are_listed_once(make_model, samples, caplog):
    model = make_model("mixtral, stacked experts")
    with caplog.at_level(logging.INFO, logger="gradsim"):
        compare(model, samples, samples, "all", precision="float64")
    lines = [record.message for record in caplog.records if record.name.startswith("gradsim")]
    assert len(lines) == 1
    assert lines[0].startswith("autograd computes layers without a rule: model.layers.0.mlp.")
    assert "model.layers.1.mlp.gate.weight" in lines[0]
    assert "experts" not in lines[0]


def test_parameters_that_get_no_gradient_are_exact_zeros(make_model, samples, oracle):
    model = make_model("llama, untied")
    model.unused = nn.Linear(3, 3, dtype=torch.float64)
    model.unused_scale = nn.Parameter(torch.ones(2, 2, dtype=torch.float64))
    result = compare(model, samples[:2], samples[2:], "all", precision="float64")
    unused = [place for place, layer in enumerate(result.layers) if layer.startswith("unused")]
    assert len(unused) == 3
    assert (result.dots[:, unused] == 0).all()
    assert (result.query_self_dots[:, unused] == 0).all()


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize(
    ("kind", "noise"),
    [
        ("opt, tied", [f"model.decoder.layers.{layer}.self_attn.k_proj.bias" for layer in (0, 1)]),
        ("llama, tied, all biases", []),  # rotary positions turn the keys' bias, so it has a gradient
        ("gpt2, tied", []),
        ("qwen3, norms of heads", []),
        ("mixtral, stacked experts", []),
    ],
)
def test_layers_that_hold_only_rounding(make_model, make_samples, kind, noise, precision):
    """Softmax does not see a bias that is the same for all keys."""
    samples = make_samples(4, seed=1, shortest=10, longest=30)
    dtype = torch.float64 if precision == "float64" else torch.float32
    result = compare(make_model(kind, dtype), samples[:2], samples[2:], "all", precision=precision)
    assert result.noise == noise


def test_a_sample_of_one_token_says_nothing_about_other_samples(make_model, make_samples, make_sample):
    """Attention to equal tokens is the same whatever its weights, so queries and keys have no gradient."""
    model = make_model("llama, untied", torch.float32)
    repeated = make_sample("repeated", [7] * 30, [-100, *[7] * 29])
    assert compare(model, [repeated], make_samples(3, 1), "all").noise == []
    assert "model.layers.0.self_attn.q_proj.weight" in compare(model, [repeated], [repeated], "all").noise
