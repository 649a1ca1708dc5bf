"""The model comes back as it was."""

import pytest
import torch

from gradsim.errors import GradientError
from gradsim.gradients import compare, compare_tiles


@pytest.fixture
def model(make_model):
    """A model in the middle of a training that has frozen some of it."""
    model = make_model("llama, tied, all biases", torch.float32)
    model.train()
    model.model.layers[0].eval()
    for parameter in model.model.layers[1].parameters():
        parameter.requires_grad_(False)
    model.lm_head.weight.grad = torch.ones_like(model.lm_head.weight)
    model.model.norm.register_forward_hook(lambda *_: None)
    return model


@pytest.fixture
def samples(make_samples):
    return make_samples(3, seed=1)


def state(model):
    return {
        "modes": [module.training for module in model.modules()],
        "flags": [parameter.requires_grad for parameter in model.parameters()],
        "types": [tensor.dtype for tensor in (*model.parameters(), *model.buffers())],
        "hooks": [list(module._forward_hooks) for module in model.modules()],
        "other hooks": [(len(module._forward_pre_hooks), len(module._backward_hooks)) for module in model.modules()],
        "gradients": [None if p.grad is None else p.grad.sum().item() for p in model.parameters()],
        "addresses": [parameter.data_ptr() for parameter in model.parameters()],
        "values": [parameter.sum().item() for parameter in model.parameters()],
    }


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_after_a_comparison(model, samples, precision):
    before = state(model)
    compare(model, samples, samples, "all", precision=precision)
    assert state(model) == before


def test_gradients_of_a_layer_without_a_rule_in_another_precision(make_model, samples):
    model = make_model("mixtral, stacked experts", torch.float32)
    weight = dict(model.named_parameters())["model.layers.0.mlp.gate.weight"]
    weight.grad = torch.ones_like(weight)
    before = state(model)
    compare(model, samples, samples, "all", precision="float64")
    assert state(model) == before


def test_frozen_parameters_and_training_mode_change_no_number(model, make_model, samples):
    plain = compare(make_model("llama, tied, all biases", torch.float32), samples, samples, "all")
    assert compare(model, samples, samples, "all").dots.tobytes() == plain.dots.tobytes()


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("at", [1, 3, 8])
def test_after_an_exception(model, samples, precision, at):
    """In the first pass of all, in the check of the rules, and later; a batch may fail in the check."""
    calls: list[None] = []

    def fail(*_):
        calls.append(None)
        if len(calls) == at:
            raise RuntimeError("from inside the model")

    handle = model.model.layers[1].register_forward_hook(fail)
    before = state(model)
    with pytest.raises((RuntimeError, GradientError), match="from inside the model"):
        compare(model, samples, samples, "all", precision=precision)
    assert state(model) == before
    handle.remove()


def test_after_tiles_that_are_not_all_taken(model, samples, monkeypatch):
    monkeypatch.setattr("gradsim.gradients.tiles._PAIRS", 1)
    before = state(model)
    tiles = compare_tiles(model, samples, samples, "all", precision="float64")
    next(tiles)
    assert state(model) != before
    tiles.close()
    assert state(model) == before
