"""Rules: terms built = autograd, and every identity of a dot = the product of the built gradients."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers.models.falcon.modeling_falcon import FalconLinear
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm, GemmaTextScaledWordEmbedding
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.pytorch_utils import Conv1D

from gradsim.gradients.rules import dots as dots_module
from gradsim.gradients.rules.call import Call
from gradsim.gradients.rules.dots import Products
from gradsim.gradients.rules.embedding import embedding_terms, summed_by_token
from gradsim.gradients.rules.linear import conv1d_terms, linear_terms
from gradsim.gradients.rules.norm import norm_terms
from gradsim.gradients.rules.registry import rule_for
from gradsim.gradients.rules.terms import Dense, Outer, TokenRows, gradient

ROWS, COLUMNS = 7, 4


def dot(a, b):
    return Products().dot(a, b)


seeds = st.integers(0, 2**32 - 1)
counts = st.integers(0, 6)


def randn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@st.composite
def terms(draw):
    """Any term of a layer of shape (ROWS, COLUMNS): seen as linear layer, embedding, or neither."""
    seed, count = draw(seeds), draw(counts)
    match draw(st.sampled_from(["dense", "outer", "tokens"])):
        case "dense":
            return Dense(randn(seed, ROWS, COLUMNS))
        case "outer":
            return Outer(randn(seed, count, ROWS), randn(seed + 1, count, COLUMNS))
        case _:
            tokens = draw(st.lists(st.integers(0, ROWS - 1), min_size=count, max_size=count))
            delta = randn(seed, count, COLUMNS)
            return summed_by_token(torch.tensor(tokens, dtype=torch.long), delta, ROWS)


def built_dot(a, b):
    return float((a * b).sum())


@given(terms(), terms())
def test_dot_of_any_two_terms_is_that_of_their_gradients(a, b):
    expected = built_dot(a.gradient(), b.gradient())
    assert float(dot(a, b)) == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert float(dot(b, a)) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@given(st.lists(terms(), min_size=1, max_size=3), st.lists(terms(), min_size=1, max_size=3))
def test_dot_of_layers_covers_all_cross_terms(a, b):
    expected = built_dot(gradient(a), gradient(b))
    assert float(Products().layer_dot(a, b)) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_layer_without_terms_has_dot_zero():
    assert Products().layer_dot((), (Dense(randn(0, 2)),)) == 0


@given(seeds)
def test_ghost_product_in_parts_is_the_same(seed):
    a = Outer(randn(seed, 9, ROWS), randn(seed + 1, 9, COLUMNS))
    b = Outer(randn(seed + 2, 5, ROWS), randn(seed + 3, 5, COLUMNS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dots_module, "_GHOST_ELEMENTS", 10)
        in_parts = dot(a, b)
    assert float(in_parts) == pytest.approx(float(dot(a, b)), rel=1e-12, abs=1e-12)


@given(seeds, st.sampled_from([1, 3, 4, 9]), st.sampled_from([10, 1000]))
def test_self_dot_in_stripes_is_the_squared_norm(seed, count, kept):
    """Where stripes are few enough to be kept for other layers, and where they are not."""
    rows = randn(seed, count, ROWS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dots_module, "_STRIPE", {"cpu": 4})
        patch.setattr(dots_module, "_GHOST_ELEMENTS", kept)
        products = Products()
        for columns in (randn(seed + 1, count, COLUMNS), randn(seed + 2, count, COLUMNS)):
            term = Outer(rows, columns)
            assert float(products.dot(term, term)) == pytest.approx(float(term.gradient().square().sum()), rel=1e-12)


@given(terms())
def test_magnitude_bounds_the_gradient(term):
    assert float(term.magnitude()) >= float(term.gradient().norm()) * (1 - 1e-12)


def autograd(module, call, delta):
    for parameter in module.parameters():
        parameter.grad = None
    module(*call.arguments, **call.keywords).reshape(delta.shape).backward(delta)
    return {name: parameter.grad for name, parameter in module.named_parameters()}


def assert_same_gradients(found, expected):
    assert found.keys() == expected.keys()
    for name, term in found.items():
        gradient = term.gradient()
        torch.testing.assert_close(gradient, expected[name], rtol=1e-12, atol=1e-12)
        place = torch.full_like(gradient, torch.nan)
        term.write(place)
        torch.testing.assert_close(place, gradient, rtol=0, atol=0)
        term.add(place)
        torch.testing.assert_close(place, 2 * gradient, rtol=1e-15, atol=1e-15)


@given(seeds, st.integers(1, 6), st.booleans())
def test_linear(seed, length, bias):
    module = nn.Linear(5, 3, bias=bias, dtype=torch.float64)
    call, delta = Call((randn(seed, 1, length, 5),), {}), randn(seed + 1, length, 3)
    assert_same_gradients(linear_terms(module, call, delta), autograd(module, call, delta))


@given(seeds, st.integers(1, 6))
def test_conv1d(seed, length):
    module = Conv1D(3, 5).double()
    call, delta = Call((randn(seed, 1, length, 5),), {}), randn(seed + 1, length, 3)
    assert_same_gradients(conv1d_terms(module, call, delta), autograd(module, call, delta))


@given(seeds, st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=12), st.sampled_from([None, 0, 3]))
def test_embedding_with_repeated_tokens_and_padding(seed, tokens, padding):
    module = nn.Embedding(ROWS, COLUMNS, padding_idx=padding, dtype=torch.float64)
    call, delta = Call((torch.tensor([tokens]),), {}), randn(seed, len(tokens), COLUMNS)
    found = embedding_terms(module, call, delta)
    assert_same_gradients(found, autograd(module, call, delta))
    term = found["weight"]
    assert isinstance(term, TokenRows)
    assert term.tokens.tolist() == sorted({t for t in tokens if t != padding})


class OneAndWeight(nn.Module):
    """A normalisation that scales by one and the weight, and has a bias."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(6, dtype=torch.float64))
        self.bias = nn.Parameter(torch.zeros(6, dtype=torch.float64))

    def forward(self, *, hidden):
        return hidden / hidden.norm(dim=-1, keepdim=True) * (1 + self.weight) + self.bias


NORMS = {
    "layer norm": lambda: nn.LayerNorm(6),
    "layer norm without bias": lambda: nn.LayerNorm(6, bias=False),
    "torch's rms norm": lambda: nn.RMSNorm(6),
    "1 + w, keyword argument": OneAndWeight,
}


@pytest.mark.parametrize("kind", NORMS)
@settings(max_examples=20)
@given(seed=seeds, heads=st.integers(1, 3))
def test_norm(kind, seed, heads):
    module = NORMS[kind]().double()
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            parameter.copy_(randn(seed + number, 6))
    hidden, delta = randn(seed + 5, 1, 4, heads, 6), randn(seed + 6, 4 * heads, 6)
    call = Call((), {"hidden": hidden}) if kind.startswith("1 + w") else Call((hidden,), {})
    assert rule_for(module) is norm_terms
    assert_same_gradients(norm_terms(module, call, delta), autograd(module, call, delta))


@pytest.mark.parametrize("kind", [LlamaRMSNorm, GemmaRMSNorm])
def test_norms_that_compute_in_float32(kind):
    module = kind(6)
    hidden, delta = randn(1, 1, 4, 6).float(), randn(2, 4, 6).float()
    call = Call((hidden,), {})
    found = norm_terms(module, call, delta)["weight"].gradient()
    torch.testing.assert_close(found, autograd(module, call, delta)["weight"], rtol=1e-6, atol=1e-6)


def test_norm_rule_ignores_the_hooks_on_a_module():
    module = nn.LayerNorm(6, dtype=torch.float64)
    module.register_forward_hook(lambda *_: pytest.fail("the hook ran"))
    norm_terms(module, Call((randn(1, 4, 6),), {}), randn(2, 4, 6))


def test_norm_rule_gives_nothing_along_another_dimension():
    module = nn.GroupNorm(1, 3, dtype=torch.float64)
    assert norm_terms(module, Call((randn(1, 1, 3, 5),), {}), randn(2, 3, 5)) == {}


class PositionEmbedding(nn.Embedding):
    def forward(self, tokens, offset=0):
        return super().forward(torch.arange(tokens.shape[-1]) + offset)


class NormedEmbedding(nn.Embedding):
    def __init__(self):
        super().__init__(3, 2)
        self.norm = nn.LayerNorm(2)

    def forward(self, tokens):
        return self.norm(super().forward(tokens))


class ScaledLinear(nn.Linear):
    def forward(self, hidden):
        return 2 * super().forward(hidden)


class Router(nn.Linear):
    def forward(self, hidden):
        return super().forward(hidden).topk(1)


class RootedEmbedding(nn.Embedding):
    """Rows that depend on what is looked up in more than a factor."""

    def forward(self, tokens):
        rows = super().forward(tokens)
        return 3 * rows / (1 + rows.square().sum(-1, keepdim=True)).sqrt()


@pytest.mark.parametrize("padding", [None, 1])
@pytest.mark.parametrize("kind", [GemmaTextScaledWordEmbedding, RootedEmbedding])
def test_embeddings_that_change_what_they_look_up(kind, padding):
    """As rows by token, never as a whole table."""
    scale = (4.0,) if kind is GemmaTextScaledWordEmbedding else ()
    module = kind(9, COLUMNS, padding, *scale).double()
    tokens = torch.tensor([[3, 1, 3, 8]])
    delta = randn(5, 4, COLUMNS)
    module(tokens).backward(delta[None])
    rule = rule_for(module)
    assert rule
    with torch.no_grad():
        term = rule(module, Call((tokens,), {}), delta)["weight"]
    assert isinstance(term, TokenRows)
    assert term.tokens.tolist() == ([3, 8] if padding else [1, 3, 8])
    torch.testing.assert_close(term.gradient(), module.weight.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_subclasses_of_linear_that_compute_the_same_product(bias):
    assert rule_for(FalconLinear(3, 2, bias=bias)) is linear_terms


def with_own_forward():
    module: Any = nn.Linear(2, 2)
    module.forward = lambda hidden: 2 * hidden
    return module


@pytest.mark.parametrize(
    "module",
    [
        PositionEmbedding(3, 2),
        NormedEmbedding(),
        ScaledLinear(3, 2),
        Router(3, 2),
        nn.Embedding(3, 2, max_norm=1.0),
        nn.Embedding(3, 2, scale_grad_by_freq=True),
        with_own_forward(),
        nn.Conv1d(2, 2, 1),
        nn.Sequential(nn.Linear(2, 2)),
        nn.ReLU(),
    ],
    ids=[
        "positions",
        "norm inside",
        "scaled product",
        "router",
        "max_norm",
        "by frequency",
        "own forward",
        "convolution",
        "container",
        "no parameters",
    ],
)
def test_modules_without_a_rule(module):
    assert rule_for(module) is None


def test_inner_product_is_accurate_where_float32_is_not():
    values = np.float32(0.1)
    many = torch.full((3_000_001,), float(values))
    from gradsim.gradients.rules.arithmetic import inner

    assert float(inner(many, many)) == pytest.approx(3_000_001 * float(values) ** 2, rel=1e-6)
