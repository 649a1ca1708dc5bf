"""Layers without a rule in batches: each sample's own gradient, against plain autograd of that sample alone."""

from collections import defaultdict

import numpy as np
import pytest
import torch
from torch import nn

from gradsim.gradients import FallbackWarning, compare
from gradsim.gradients.capture.capture import GradientCapture
from gradsim.gradients.capture.check import probe
from gradsim.gradients.capture.copies import BatchShape, Copied, NotSeparableError, sample_copies
from gradsim.gradients.capture.encoding import encode, model_limits
from gradsim.gradients.reference import reference_gradient
from gradsim.gradients.rules.terms import Term, TokenRows, gradient
from gradsim_assets_tests.gradsim.gradients.random_models import random_model

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
}
MIXTURE = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
ROTARY = {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}}
FAMILIES = {
    "gemma: scaled embedding, tied": ("gemma", SIZES),
    "falcon: products written out": (
        "falcon",
        {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": False},
    ),
    "gpt_oss: sinks, router with bias, biased experts": ("gpt_oss", SIZES | MIXTURE | ROTARY),
    "mixtral: router": ("mixtral", SIZES | MIXTURE),
    "qwen2_moe: router, gate of a shared expert": (
        "qwen2_moe",
        SIZES | MIXTURE | {"shared_expert_intermediate_size": 16},
    ),
    "llama4_text: experts that get rows of their own": (
        "llama4_text",
        SIZES | MIXTURE | {"intermediate_size_mlp": 48, "interleave_moe_layer_step": 1, "layer_types": None},
    ),
    "mamba2: convolution, states": (
        "mamba2",
        {
            "vocab_size": 64,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "state_size": 8,
            "num_heads": 8,
            "head_dim": 8,
            "n_groups": 2,
            "chunk_size": 8,
        },
    ),
    "diffllama: learned scalars of attention": ("diffllama", SIZES),
    "apertus: learned scalars of an activation": ("apertus", SIZES),
    "qwen3_next: gated delta rule, norms of flattened heads": (
        "qwen3_next",
        SIZES
        | MIXTURE
        | {
            "shared_expert_intermediate_size": 16,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "layer_types": ["linear_attention", "full_attention"],
        },
    ),
    "opt: learned positions": ("opt", SIZES | {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "bert: bias that head and decoder share": ("bert", SIZES | {"is_decoder": True}),
}


def tiny(family, settings):
    return random_model(family, **settings).eval()


def encoded(model, samples):
    limits = model_limits(model)
    return [encode(sample, limits) for sample in samples]


def run_batch(model, samples, **keywords):
    """Terms by member and layer."""
    terms: list[dict[str, list[Term]]] = [defaultdict(list) for _ in samples]
    with GradientCapture(model) as capture:
        layers = capture.layers
        capture.run(
            encoded(model, samples), lambda layer, member, term: terms[member][layers[layer]].append(term), **keywords
        )
    return terms


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("kind", FAMILIES)
def test_a_batch_gives_each_sample_the_gradient_that_it_has_alone(kind, checkpoint, make_samples):
    model = tiny(*FAMILIES[kind])
    samples = make_samples(4, seed=3, shortest=3, longest=20)
    for sample, terms in zip(samples, run_batch(model, samples, checkpoint=checkpoint), strict=True):
        # Some routers and states compute in float32 whatever the model's format is.
        for layer, expected in reference_gradient(model, sample).items():
            found = gradient(terms[layer]) if layer in terms else torch.zeros_like(expected)
            assert (found - expected).norm() <= 2e-5 * expected.norm() + 1e-12, layer


# Scalars whose gradients nearly cancel out: in float32 they depend on the batch by more than the check lets pass, on
# some processors only. Such models then run one sample at a time.
ILL_CONDITIONED = {"diffllama: learned scalars of attention", "apertus: learned scalars of an activation"}


@pytest.mark.filterwarnings("error::gradsim.gradients.FallbackWarning")
@pytest.mark.parametrize("kind", FAMILIES)
def test_the_check_lets_samples_run_together(kind, make_samples):
    model = tiny(*FAMILIES[kind]).to(torch.float64 if kind in ILL_CONDITIONED else torch.float32)
    found = probe(model, encoded(model, make_samples(3, 1, 10, 20)))
    assert found.separable
    assert found.by_autograd == []


@pytest.mark.parametrize("kind", ["gpt_oss: sinks, router with bias, biased experts", "mamba2: convolution, states"])
def test_comparisons_in_batches_within_a_small_budget(kind, make_samples, oracle, least_budget):
    model = tiny(*FAMILIES[kind]).float()
    queries, originals = make_samples(4, 1, 5, 20), make_samples(4, 2, 5, 20)
    ample = compare(model, queries, originals, "all")
    assert ample.plan.cost.batches < ample.passes
    budget = least_budget(model, queries, originals, "all")
    tight = compare(model, queries, originals, "all", memory_budget=budget)
    expected = oracle(model, queries, originals)
    for result in (ample, tight):
        error = np.abs(result.dots.reshape(expected.dots.shape) - expected.dots)
        assert (error <= 1e-5 * expected.scale + 1e-14).all()


def test_a_scaled_embedding_has_rows_by_token(make_samples):
    model = tiny(*FAMILIES["gemma: scaled embedding, tied"])
    for terms in run_batch(model, make_samples(2, seed=3)):
        assert TokenRows in {type(term) for term in terms["model.embed_tokens.weight"]}


def test_the_model_is_as_it_was_before_even_after_an_error(make_samples):
    model = tiny(*FAMILIES["gpt_oss: sinks, router with bias, biased experts"])
    before = {name: (dict(vars(module)), parameters(module)) for name, module in model.named_modules()}
    run_batch(model, make_samples(2, seed=3))
    model.model.norm.register_forward_hook(lambda module, arguments, output: output.view(7, -1))
    with pytest.raises(NotSeparableError, match="the model fails with a copy of its parameters for each sample"):
        run_batch(model, make_samples(2, seed=3))
    model.model.norm._forward_hooks.clear()
    for name, module in model.named_modules():
        variables, own = before[name]
        assert vars(module).keys() == variables.keys()
        assert own == parameters(module)


def parameters(module):
    return {name: id(parameter) for name, parameter in module.named_parameters(recurse=False)}


class _Scaled(nn.Module):
    basis: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([0.3, 0.5, 0.7], dtype=torch.float64))
        self.register_buffer("basis", torch.tensor([1.0, 0.5, 0.25], dtype=torch.float64))

    def forward(self, values):
        return nn.functional.silu(values) * (self.scale * self.basis).sum()


def test_batches_that_cannot_be_told_apart_run_one_by_one(make_samples, oracle):
    """A constant of three values is unclear in a batch of three samples only, which the check does not have."""
    model = tiny("llama", SIZES)
    model.model.layers[0].mlp.act_fn = _Scaled()
    queries, originals = make_samples(1, 3, 40, 40), make_samples(3, 4, 20, 20)
    with pytest.warns(FallbackWarning, match="cannot be separated in a batch"):
        result = compare(model, queries, originals, "all", precision="float64")
    expected = oracle(model, queries, originals)
    assert (np.abs(result.dots - expected.dots[0]) <= 1e-10 * expected.scale[0]).all()


def test_a_parameter_that_is_used_by_another_name_is_not_added_up(make_samples):
    model = tiny("llama", SIZES)
    model.scale = nn.Parameter(torch.ones(32, dtype=torch.float64))
    scale = model.scale
    model.model.norm.register_forward_hook(lambda module, arguments, output: output * scale)
    with pytest.raises(NotSeparableError, match="autograd sums the gradients of scale over samples"):
        run_batch(model, make_samples(2, seed=3))


SIZE, LENGTH, WIDTH = 3, 5, 4


def own_copies(*shape):
    value = torch.randn(shape, dtype=torch.float64)
    copies = value.expand(SIZE, *shape).clone().requires_grad_()
    return Copied.of(value, copies, BatchShape(SIZE, LENGTH)), copies


OPERATIONS = {
    "product": ((WIDTH,), (SIZE, LENGTH, WIDTH), lambda p, x: x * p),
    "values that are made of parameters": ((WIDTH,), (SIZE, LENGTH, WIDTH), lambda p, x: -p.float().exp().double() * x),
    "broadcast from the left": ((WIDTH,), (SIZE, WIDTH, LENGTH), lambda p, x: p[None, :, None] + x),
    "shifted dimensions": ((WIDTH, 2), (SIZE, LENGTH, WIDTH), lambda p, x: x @ p.T.mT),
    "flattened tokens": ((2, WIDTH), (SIZE * LENGTH, WIDTH), lambda p, x: nn.functional.linear(x, p)),
    "expanded and joined": (
        (WIDTH,),
        (SIZE, WIDTH, LENGTH, 1),
        lambda p, x: torch.cat([x, p.reshape(1, -1, 1, 1).expand(SIZE, -1, LENGTH, -1)], dim=-1).softmax(-1),
    ),
    "convolution": (
        (WIDTH, 1, 2),
        (SIZE, WIDTH, LENGTH),
        lambda p, x: nn.functional.conv1d(x, p, padding=1, groups=WIDTH),
    ),
    "sums": ((WIDTH,), (SIZE, LENGTH, WIDTH), lambda p, x: torch.einsum("btw,w->bt", x, p) * (p * p).sum()),
    "parts": ((WIDTH,), (SIZE, LENGTH, WIDTH), lambda p, x: x[..., :2] * p.chunk(2)[1]),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_sends_each_sample_s_gradient_to_its_copy(operation):
    shape, input_shape, function = OPERATIONS[operation]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        value, copies = own_copies(*shape)
        inputs = torch.randn(input_shape, dtype=torch.float64, requires_grad=True)
    parameter = value.as_subclass(torch.Tensor).clone().requires_grad_()
    expected, found = function(parameter, inputs), function(value, inputs)
    assert not isinstance(found, Copied)
    torch.testing.assert_close(found, expected)
    weights = torch.linspace(-1, 1, found.numel(), dtype=torch.float64).view_as(found)
    (found * weights).sum().backward()
    for member in range(SIZE):
        own = (weights * expected).unflatten(0, (SIZE, -1))[member].sum()
        (alone,) = torch.autograd.grad(own, parameter, retain_graph=True)
        torch.testing.assert_close(copies.grad[member], alone, rtol=1e-6, atol=1e-12)


UNCLEAR = {
    "positions first": (torch.ones(LENGTH, SIZE, WIDTH, requires_grad=True), "cannot be split into 3 samples"),
    "a constant of the batch's size": (torch.ones(SIZE, WIDTH), "may be a constant or a batch of 3 samples"),
}


@pytest.mark.parametrize("kind", UNCLEAR)
def test_values_that_may_not_be_of_the_batch_are_refused(kind):
    value, _ = own_copies(WIDTH)
    inputs, message = UNCLEAR[kind]
    with pytest.raises(NotSeparableError, match=message):
        inputs.double() * value


def test_operations_that_do_not_run_for_one_sample_are_refused():
    value, _ = own_copies(WIDTH)
    inputs = torch.ones(SIZE, WIDTH, dtype=torch.float64, requires_grad=True)
    with pytest.raises(NotSeparableError, match="masked_select cannot run on each sample separately"):
        torch.masked_select(inputs, value > 0)


def test_token_ids_are_of_the_batch_and_other_constants_are_not():
    table, copies = own_copies(8, WIDTH)
    tokens = torch.arange(SIZE * LENGTH).view(SIZE, LENGTH) % 8
    found = nn.functional.embedding(tokens, table) * torch.ones(1, LENGTH, 1)
    found[1].sum().backward()
    assert copies.grad[0].abs().sum() == copies.grad[2].abs().sum() == 0
    assert copies.grad[1].sum(dim=1).tolist() == [WIDTH * int((tokens[1] == token).sum()) for token in range(8)]


def test_memory_that_runs_out_stays_that():
    with pytest.raises(torch.OutOfMemoryError), sample_copies(nn.Linear(2, 2), {}, BatchShape(2, 3), lambda *_: None):
        raise torch.OutOfMemoryError("CUDA out of memory")
