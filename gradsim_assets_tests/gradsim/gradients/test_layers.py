"""Some layers only: the same numbers as with all layers, for less work."""

import numpy as np
import pytest
import torch

from gradsim.errors import GradientError
from gradsim.gradients import Projector, compare
from gradsim.gradients.reference import reference_gradient
from gradsim.gradients.vectors import projected_gradients

pytestmark = pytest.mark.filterwarnings("ignore::gradsim.gradients.FallbackWarning")

KINDS = (
    "olmo, tied",
    "llama, tied, all biases",
    "gpt2, untied",
    "mixtral, stacked experts",
    "mamba, convolutions and states",
)


@pytest.mark.parametrize("kind", KINDS)
def test_dots_are_those_of_all_layers(kind, make_model, make_samples, oracle):
    model = make_model(kind)
    queries, originals = make_samples(3, seed=1), make_samples(3, seed=2)
    expected = oracle(model, queries, originals)
    names = [name for name, _ in model.named_parameters()]

    for chosen in (names[:1], names[-1:], names[2::3]):
        result = compare(model, queries, originals, "all", layers=set(chosen), precision="float64")

        assert result.layers == chosen
        columns = [names.index(name) for name in chosen]
        found, scale = result.dots.reshape(*expected.dots.shape[:2], -1), expected.scale[..., columns]
        assert (np.abs(found - expected.dots[..., columns]) <= 1e-10 * scale + 1e-28).all()
        np.testing.assert_allclose(result.query_self_dots, expected.query_self_dots[:, columns], rtol=1e-9, atol=1e-28)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_projections_are_those_of_all_layers(make_model, make_samples):
    model, queries, originals = make_model(), make_samples(3, seed=1), make_samples(3, seed=2)
    names = [name for name, _ in model.named_parameters()]
    chosen = names[3:5]
    whole = Projector("sjlt", dict.fromkeys(names, 16), 7, "p")
    part = Projector("sjlt", dict.fromkeys(chosen, 16), 7, "p")

    of_all = compare(model, queries, originals, "all", projectors=[whole], precision="float64").projected["p"]
    of_some = compare(model, queries, originals, "all", layers=chosen, projectors=[part], precision="float64")
    vectors = [vector for _, vector in projected_gradients(model, queries, part, layers=chosen, precision="float64")]

    np.testing.assert_allclose(of_some.projected["p"].dots, of_all.dots[:, 3:5], rtol=1e-9, atol=1e-28)
    np.testing.assert_allclose(
        [[vector[:16] @ vector[:16], vector[16:] @ vector[16:]] for vector in vectors],
        of_all.query_self_dots[:, 3:5],
        rtol=1e-9,
    )


def test_the_backward_pass_ends_at_the_lowest_layer(make_model, make_samples):
    """Blocks below it keep nothing for a backward pass, and the plan counts only what runs."""
    model, samples = make_model("llama, untied", torch.float32), make_samples(4, seed=1, shortest=8)
    lower, upper = model.model.layers
    needed: dict[torch.nn.Module, set[bool]] = {lower: set(), upper: set()}
    for block in (lower, upper):
        block.register_forward_hook(
            lambda block, _, output: needed[block].add(output.requires_grad) if torch.is_grad_enabled() else None
        )
    all_layers = compare(model, samples, samples, "all")
    assert needed == {lower: {True}, upper: {True}}

    for seen in needed.values():
        seen.clear()
    upper_only = compare(
        model, samples, samples, "all", layers=[name for name in all_layers.layers if ".layers.1." in name]
    )

    assert needed == {lower: {False}, upper: {True}}
    assert upper_only.plan.cost.operations < 0.8 * all_layers.plan.cost.operations
    assert upper_only.peak_bytes < 0.5 * all_layers.peak_bytes


def test_a_layer_without_gradient_is_noise_however_few_are_compared(make_model, make_samples):
    """Its own norm would say that it is the whole gradient."""
    model, samples = make_model("opt, tied"), make_samples(4, seed=1, shortest=6)
    key, value = (f"model.decoder.layers.0.self_attn.{name}_proj.bias" for name in "kv")
    assert compare(model, samples, samples, "all", layers=[key, value]).noise == [key]
    assert compare(model, samples, samples, "all", layers=[key]).noise == [key]


def test_a_layer_that_takes_no_part_has_zero_gradient(make_model, make_samples):
    model, samples = make_model("llama, untied"), make_samples(3, seed=1)
    model.register_parameter("unused", torch.nn.Parameter(torch.ones(3, dtype=torch.float64)))

    result = compare(model, samples, samples, "all", layers=["unused"], precision="float64")

    assert not result.dots.any()
    assert not result.query_self_dots.any()
    assert not reference_gradient(model, samples[0], ["unused"])["unused"].any()


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["model.norm.weight", "lm_hed.weight"], r"^the model has no layer 'lm_hed.weight': choose names"),
        ([], "^layers is empty: name at least one layer"),
    ],
)
def test_layers_that_there_are_not(layers, message, make_model, make_samples):
    with pytest.raises(GradientError, match=message):
        compare(make_model("llama, untied"), make_samples(1, seed=1), make_samples(1, seed=2), "all", layers=layers)
