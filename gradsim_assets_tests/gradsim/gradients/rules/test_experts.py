"""Stacks of experts: what is built = autograd of the module, dots = products of it, and nothing is left to autograd."""

import logging
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers.models.aria.modeling_aria import AriaExperts
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts
from transformers.models.llama4.modeling_llama4 import Llama4TextExperts
from transformers.models.longcat_flash.modeling_longcat_flash import LongcatFlashExperts
from transformers.models.mixtral.modeling_mixtral import MixtralExperts
from transformers.models.muse_spark.modeling_muse_spark import MuseSparkExperts
from transformers.models.nemotron_h.modeling_nemotron_h import NemotronHExperts
from transformers.models.step3p7.modeling_step3p7 import Step3p7Experts

from gradsim.gradients import FallbackWarning, compare
from gradsim.gradients.rules import dots as dots_module
from gradsim.gradients.rules.call import Call
from gradsim.gradients.rules.dots import Products
from gradsim.gradients.rules.experts import batched_expert_terms, expert_terms, experts_per_token, stack_layout
from gradsim.gradients.rules.registry import rule_for
from gradsim.gradients.rules.terms import Dense, ExpertOuter

EXPERTS, HIDDEN, INNER = 5, 6, 4
CONFIG = {
    "hidden_act": "silu",
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "mlp_hidden_act": "relu2",
    "moe_hidden_size": HIDDEN,
    "moe_intermediate_size": INNER,
    "moe_latent_size": None,
    "moe_num_experts": EXPERTS,
    "n_routed_experts": EXPERTS,
    "num_local_experts": EXPERTS,
    "post_norm_eps": 1e-6,
    "swiglu_alpha": 1.702,
    "swiglu_limit": 1.0,
    "expert_ffn_hidden_size": INNER,
    "zero_expert_num": 2,
}
STACKS = {
    "gated": MixtralExperts,
    "transposed": AriaExperts,
    "transposed, interleaved, clamped, with biases": GptOssExperts,
    "without a gate": NemotronHExperts,
    "without transformers' decorator": Step3p7Experts,
}
KNOW_OTHER_DEVICES = ["gated", "transposed", "without transformers' decorator"]

seeds = st.integers(0, 2**32 - 1)
kinds = st.sampled_from(list(STACKS))
lengths = st.integers(1, 9)
routes = st.integers(1, EXPERTS)


def randn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make_stack(kind, seed, implementation="eager"):
    module = kind(SimpleNamespace(**CONFIG, _experts_implementation=implementation)).double()
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            parameter.copy_(randn(seed + number, *parameter.shape))
    return module


def route(seed, length, k, experts=EXPERTS):
    """A call: every token goes to k different experts, with weights."""
    order = randn(seed, length, experts).argsort(dim=1)[:, :k]
    return Call((randn(seed + 1, length, HIDDEN), order, randn(seed + 2, length, k).softmax(dim=1)), {})


def autograd(module, call, delta):
    names, parameters = zip(*module.named_parameters(), strict=True)
    output = module(*call.arguments, **call.keywords)
    if not output.requires_grad:  # no token went anywhere
        output = output + 0 * parameters[0].sum()
    found = torch.autograd.grad(output, parameters, delta, allow_unused=True)
    zeros = map(torch.zeros_like, parameters)
    return {name: zero if value is None else value for name, value, zero in zip(names, found, zeros, strict=True)}


def assert_same_gradients(found, expected):
    assert found.keys() == expected.keys()
    for name, term in found.items():
        torch.testing.assert_close(term.gradient(), expected[name], rtol=1e-10, atol=1e-10)


@given(kinds, st.sampled_from(["eager", "batched_mm"]), seeds, lengths, routes)
def test_terms_are_autograds(kind, implementation, seed, length, k):
    module = make_stack(STACKS[kind], seed, implementation)
    call, delta = route(seed, length, k), randn(seed + 3, length, HIDDEN)
    assert rule_for(module) is expert_terms
    assert experts_per_token(call) == k
    assert_same_gradients(expert_terms(module, call, delta), autograd(module, call, delta))


@given(kinds, seeds, lengths, routes, st.data())
def test_entries_that_add_nothing_are_left_out(kind, seed, length, k, data):
    """Tokens without a gradient, weights of zero, and transformers' sign for an expert of another device."""
    module = make_stack(STACKS[kind], seed)
    call, delta = route(seed, length, k), randn(seed + 3, length, HIDDEN)
    hidden, experts, weights = call.arguments
    mask = st.lists(st.booleans(), min_size=length, max_size=length).map(torch.tensor)
    silent, unweighted, elsewhere = (data.draw(mask) for _ in range(3))
    delta[silent] = 0
    weights[unweighted, 0] = 0
    if kind in KNOW_OTHER_DEVICES:
        experts[elsewhere, k - 1] = EXPERTS
    used = ~silent[:, None] & (weights != 0) & (experts < EXPERTS)
    found = expert_terms(module, Call((), {"a": hidden, "b": experts, "c": weights}), delta)
    down = found["down_proj"]
    assert isinstance(down, ExpertOuter)
    assert len(down.own) == int(used.sum())
    assert list(down.counts) == [int((experts[used] == e).sum()) for e in range(EXPERTS)]
    assert_same_gradients(found, autograd(module, call, delta))


@st.composite
def stacks(draw, *, own_first=None):
    """A term of shape (EXPERTS, HIDDEN, INNER), some experts without entries."""
    seed, length = draw(seeds), draw(lengths)
    counts = draw(st.lists(st.integers(0, 4), min_size=EXPERTS, max_size=EXPERTS))
    own_first = draw(st.booleans()) if own_first is None else own_first
    widths = (HIDDEN, INNER) if own_first else (INNER, HIDDEN)
    tokens = torch.randint(length, (sum(counts),), generator=torch.Generator().manual_seed(seed))
    own, shared = randn(seed, sum(counts), widths[0]), randn(seed + 1, length, widths[1])
    return ExpertOuter(tuple(counts), tokens, own, shared, own_first)


def dot(a, b):
    return Products().dot(a, b)


def built_dot(a, b):
    return float((a.gradient() * b.gradient()).sum())


@given(stacks(), seeds)
def test_gradient_is_the_sum_of_each_experts_outer_products(term, seed):
    expected = torch.zeros(EXPERTS, HIDDEN, INNER, dtype=torch.float64)
    experts = [expert for expert, count in enumerate(term.counts) for _ in range(count)]
    for expert, own, token in zip(experts, term.own, term.tokens, strict=True):
        product = torch.outer(own, term.shared[token])
        expected[expert] += product if term.own_first else product.T
    close = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-12)
    close(term.gradient(), expected)
    before = randn(seed, EXPERTS, HIDDEN, INNER)
    place = before.clone()
    term.add(place)
    close(place, before + expected)
    term.write(place)
    close(place, expected)
    assert float(term.magnitude()) >= float(expected.norm()) * (1 - 1e-12)


@given(st.booleans(), st.sampled_from([1, 10, 1 << 24]), st.data())
def test_ghost_product_is_that_of_the_gradients(own_first, elements, data):
    a, b = (data.draw(stacks(own_first=own_first)) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dots_module, "_GHOST_ELEMENTS", elements)
        assert float(dot(a, b)) == pytest.approx(built_dot(a, b), rel=1e-12, abs=1e-12)


@given(stacks(), seeds)
def test_product_with_a_built_gradient(stack, seed):
    dense = Dense(randn(seed, EXPERTS, HIDDEN, INNER))
    expected = pytest.approx(built_dot(stack, dense), rel=1e-12, abs=1e-12)
    assert float(dot(stack, dense)) == expected
    assert float(dot(dense, stack)) == expected


@given(stacks())
def test_every_tensor_of_a_term_is_mapped(stack):
    copy = stack.map(torch.clone)
    assert torch.equal(copy.gradient(), stack.gradient())
    assert not any(a is b for a, b in zip(copy.tensors, stack.tensors, strict=True))


@given(seeds, st.integers(1, 5), st.data())
def test_experts_that_get_rows_of_their_own(seed, length, data):
    """Llama 4's: a row of zeros where a token does not go to an expert."""
    module = make_stack(Llama4TextExperts, seed)
    rows = EXPERTS * length
    goes = torch.tensor(data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
    inputs, delta = randn(seed + 3, rows, HIDDEN) * goes[:, None], randn(seed + 4, rows, HIDDEN)
    call = Call((inputs,), {})
    assert rule_for(module) is batched_expert_terms
    assert experts_per_token(call) == 1
    module(inputs).backward(delta)
    for name, term in batched_expert_terms(module, call, delta).items():
        assert isinstance(term, ExpertOuter)
        assert len(term.own) == int(goes.sum())
        torch.testing.assert_close(term.gradient(), getattr(module, name).grad, rtol=1e-10, atol=1e-10)


def with_more(module, name, value):
    setattr(module, name, value)
    return module


def not_stacks():
    mixtral = make_stack(MixtralExperts, 0)
    return {
        "norm of each expert's output": make_stack(MuseSparkExperts, 0),
        "experts that do nothing": make_stack(LongcatFlashExperts, 0),
        "one more parameter": with_more(make_stack(MixtralExperts, 0), "scale", nn.Parameter(torch.ones(1))),
        "an activation with parameters": with_more(make_stack(MixtralExperts, 0), "act_fn", nn.PReLU()),
        "shapes of another layout": with_more(make_stack(MixtralExperts, 0), "is_transposed", True),
        "own forward": with_more(make_stack(MixtralExperts, 0), "forward", mixtral.forward),
        "linear layer": nn.Linear(2, 2),
    }


@pytest.mark.parametrize("kind", not_stacks())
def test_modules_that_only_look_like_stacks(kind):
    assert rule_for(not_stacks()[kind]) is not expert_terms


def test_layouts():
    layouts = {kind: stack_layout(make_stack(module, 0)) for kind, module in STACKS.items()}
    assert {kind: layout and (layout.up, layout.transposed, layout.biased) for kind, layout in layouts.items()} == {
        "gated": ("gate_up_proj", False, False),
        "transposed": ("gate_up_proj", True, False),
        "transposed, interleaved, clamped, with biases": ("gate_up_proj", True, True),
        "without a gate": ("up_proj", False, False),
        "without transformers' decorator": ("gate_up_proj", False, False),
    }


@pytest.mark.parametrize("swapped", [(0, 2, 1), (0, 1), (0, 1, 0)], ids=["order", "two", "no weights"])
def test_calls_of_another_form_get_nothing(swapped):
    call = route(0, 3, 2)
    other = Call(tuple(call.arguments[place] for place in swapped), {})
    assert expert_terms(make_stack(MixtralExperts, 0), other, randn(1, 3, HIDDEN)) == {}


MIXTURES = [
    "mixtral, stacked experts",
    "qwen2_moe, shared expert",
    "olmoe, stacked experts",
    "qwen3_moe, a dense layer",
    "deepseek_v3, latent attention",
    "gpt_oss, transposed experts with biases",
]
IMPLEMENTATIONS = {"eager": torch.float64, "batched_mm": torch.float64, "grouped_mm": torch.float32}


def stacks_of(model):
    return {name: module for name, module in model.named_modules() if rule_for(module) is expert_terms}


def run(model, sample):
    """Terms of every stack by the rule, and its gradients by autograd."""
    calls = []

    def record(module, arguments, keywords, output):
        output.retain_grad()
        calls.append((module, Call(tuple(value.detach() for value in arguments), keywords), output))

    handles = [stack.register_forward_hook(record, with_kwargs=True) for stack in stacks_of(model).values()]
    model.zero_grad()
    model(input_ids=torch.tensor([sample.input_ids]), labels=torch.tensor([sample.labels])).loss.backward()
    for handle in handles:
        handle.remove()
    found = [(module, expert_terms(module, call, output.grad)) for module, call, output in calls]
    terms = [term for _, named in found for term in named.values()]
    gradients = [getattr(module, name).grad for module, named in found for name in named]
    return terms, gradients


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("mixture", MIXTURES)
def test_stacks_of_models(mixture, implementation, make_model, make_samples):
    """Gradients and ghost products of two samples, in every way that transformers has to compute a stack."""
    dtype = IMPLEMENTATIONS[implementation]
    model = make_model(mixture, dtype).eval()
    model.set_experts_implementation(implementation)
    rounding = 1e3 * torch.finfo(dtype).eps

    (terms, gradients), (others, other_gradients) = (run(model, sample) for sample in make_samples(2, 4, 8))

    assert len(terms) == len(gradients) > 0
    for term, other, gradient, other_gradient in zip(terms, others, gradients, other_gradients, strict=True):
        assert (term.gradient() - gradient).norm() <= rounding * term.magnitude()
        expected = (gradient.double() * other_gradient.double()).sum()
        assert abs(dot(term, other) - expected) <= rounding * term.magnitude() * other.magnitude()


@pytest.mark.filterwarnings("error::gradsim.gradients.FallbackWarning")
@pytest.mark.parametrize("mixture", MIXTURES)
def test_no_expert_is_left_to_autograd(mixture, make_model, make_samples, oracle, caplog):
    model = make_model(mixture)
    queries, originals = make_samples(2, seed=1), make_samples(2, seed=2)
    expected = oracle(model, queries, originals)

    with caplog.at_level(logging.INFO, logger="gradsim"):
        result = compare(model, queries, originals, "all", precision="float64")

    assert any(".experts." in layer for layer in result.layers)
    assert ".experts." not in caplog.text
    error = np.abs(result.dots.reshape(expected.dots.shape) - expected.dots)
    assert (error <= 1e-10 * expected.scale + 1e-28).all()


def test_a_forward_that_computes_something_else_falls_back(make_model, make_samples, oracle):
    model = make_model("mixtral, stacked experts")
    for layer in model.model.layers:
        layer.mlp.experts._apply_gate = lambda gate_up: gate_up.chunk(2, dim=-1)[0]
    samples = make_samples(2, seed=1, shortest=8)
    with pytest.warns(FallbackWarning, match=r"mlp\.experts"):
        result = compare(model, samples, samples, "all", precision="float64")
    expected = oracle(model, samples, samples)
    error = np.abs(result.dots.reshape(expected.dots.shape) - expected.dots)
    assert (error <= 1e-10 * expected.scale).all()
