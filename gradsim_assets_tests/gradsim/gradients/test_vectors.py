"""Projected gradients that are kept: the same inner products as in a comparison."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from peft import PrefixTuningConfig, TaskType, get_peft_model

from gradsim.errors import GradientError, MemoryBudgetError
from gradsim.gradients import FallbackWarning, Projector, compare
from gradsim.gradients.projection import KINDS
from gradsim.gradients.projection.vector_layout import VectorLayout
from gradsim.gradients.vectors import projected_gradients


def layout_of(model, projector):
    return VectorLayout.of(projector.layer_dimensions({name: p.shape for name, p in model.named_parameters()}))


def layer_dots(layout, left, right):
    return np.array([float(left[place].astype(np.float64) @ right[place]) for place in layout.slices])


@pytest.mark.parametrize(
    ("kind", "model_name"),
    [
        *((kind, "olmo, tied") for kind in KINDS),
        # Of other layers, a kind that takes their factors and one that does not.
        *itertools.product(("logra", "sjlt"), ("gpt2, untied", "qwen2_moe, shared expert")),
    ],
)
def test_inner_products_are_those_of_a_comparison(make_model, make_samples, kind, model_name):
    model, samples = make_model(model_name), make_samples(3, 1)
    projector = Projector(kind, 0.3, 42, "p")
    layout = layout_of(model, projector)
    result = compare(model, samples, samples, "all", precision="float64", projectors=[projector])
    vectors = dict(projected_gradients(model, samples, projector, precision="float64"))
    assert list(vectors) == [0, 1, 2]
    assert {vector.shape for vector in vectors.values()} == {(layout.width,)}
    norms = np.sqrt(result.projected["p"].query_self_dots)
    tolerance = 1e-10 if kind != "traker" else 1e-6  # which computes in float32
    for pair, (left, right) in enumerate((left, right) for left in range(3) for right in range(3)):
        found = layer_dots(layout, vectors[left], vectors[right])
        difference = np.abs(found - result.projected["p"].dots[pair])
        assert (difference <= tolerance * norms[left] * norms[right] + 1e-18).all()


def test_layers_that_are_kept_whole_are_the_gradients(make_model, make_samples):
    from gradsim.gradients.reference import reference_gradient

    model, (sample,) = make_model(), make_samples(1, 1)
    elements = {name: parameter.numel() for name, parameter in model.named_parameters()}
    ((_, vector),) = projected_gradients(model, [sample], Projector("mask", elements, 0, "whole"), precision="float64")
    expected = torch.cat([gradient.flatten() for gradient in reference_gradient(model, sample).values()])
    np.testing.assert_allclose(vector, expected.numpy(), atol=1e-12)


def test_bad_samples(make_model, make_samples, make_sample):
    model = make_model()
    good, projector = make_samples(2, 1), Projector("sjlt", 0.3, 42, "p")
    samples = [good[0], make_sample("mute", [1, 2, 3], [-100, -100, -100]), good[1]]
    with pytest.raises(GradientError, match="sample 'mute' has no unmasked label"):
        list(projected_gradients(model, samples, projector))
    calls = []
    found = projected_gradients(
        model, samples, projector, on_bad_sample="exclude", progress=lambda *counts: calls.append(counts)
    )
    assert [position for position, _ in found] == [0, 2]
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_a_gradient_that_is_not_finite_names_its_layer(make_model, make_samples):
    model, samples = make_model(dtype=torch.float32), make_samples(1, 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e12)
    with pytest.raises(GradientError, match=r"sample '1_0' has a (loss of|gradient that is not finite in layer)"):
        list(projected_gradients(model, samples, Projector("sjlt", 0.3, 42, "p")))


def test_the_model_comes_back_as_it_was(make_model, make_samples):
    model, samples = make_model(dtype=torch.float32), make_samples(3, 1)
    model.train()
    before = {name: (p.requires_grad, p.dtype, p.grad) for name, p in model.named_parameters()}
    vectors = projected_gradients(model, samples, Projector("logra", 0.3, 42, "p"), precision="float64")
    next(vectors)
    vectors.close()
    assert model.training
    assert {name: (p.requires_grad, p.dtype, p.grad) for name, p in model.named_parameters()} == before
    assert not any(module._forward_hooks for module in model.modules())


def test_too_little_memory_is_said_before_a_pass(make_model, make_samples):
    model, samples = make_model(), make_samples(1, 1)
    projector = Projector("sjlt", 0.3, 42, "p")
    with pytest.raises(MemoryBudgetError, match="the check of the model's rules needs"):
        list(projected_gradients(model, samples, projector, memory_budget=1))


def test_blocks_that_fail_when_they_are_checkpointed(make_model, make_samples):
    """A prefix is a cache, to which a block that runs again appends."""
    prefix = PrefixTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=4)
    model: Any = get_peft_model(make_model("llama, untied"), prefix).double()
    samples, projector = make_samples(1, seed=1, shortest=600, longest=600), Projector("sjlt", 0.3, 42, "p")
    budget = 6_000_000  # less than the pass of the sample takes
    with pytest.warns(FallbackWarning, match="checkpointing changes the gradients"), pytest.raises(MemoryBudgetError):
        list(projected_gradients(model, samples, projector, precision="float64", memory_budget=budget))


def test_a_model_that_changes_its_answers_is_refused(make_model, make_samples):
    model = make_model()
    model.model.norm.register_forward_hook(lambda module, arguments, output: output * (1 + 0.1 * torch.rand(())))
    with pytest.warns(FallbackWarning), pytest.raises(GradientError, match=r"output for sample '1_\d' changes when"):
        list(projected_gradients(model, make_samples(3, 1), Projector("sjlt", 0.3, 42, "p"), precision="float64"))
