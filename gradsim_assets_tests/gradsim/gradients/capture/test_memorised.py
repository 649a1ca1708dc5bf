"""Samples that a model knows by heart: their loss is near zero, where softmax(z) - 1 cancels."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from peft import TaskType, VeraConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from gradsim.errors import GradientError
from gradsim.gradients import compare
from gradsim.gradients.capture.batch import Batch
from gradsim.gradients.capture.encoding import Limits, encode
from gradsim.gradients.capture.precision import MEMORISED
from gradsim_assets_tests.gradsim.gradients.random_models import random_samples

STEPS = (60, 200, 500)


@pytest.fixture(scope="module")
def memories():
    """A model after so many steps of training on samples, and these samples."""
    samples = random_samples(5, seed=3, shortest=14, longest=20)
    width = max(len(sample.input_ids) for sample in samples)
    tokens, labels = (
        torch.tensor([[*values, *([fill] * (width - len(values)))] for values in rows])
        for rows, fill in (([s.input_ids for s in samples], 0), ([s.labels for s in samples], -100))
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                max_position_embeddings=32,
            )
        )  # fmt: skip
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
        weights = {}
        for step in range(1, max(STEPS) + 1):
            model(input_ids=tokens, labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if step in STEPS:
                weights[step] = {name: value.clone() for name, value in model.state_dict().items()}
    return model.eval(), weights, samples


@pytest.fixture(params=STEPS)
def memory(memories, request):
    model, weights, samples = memories
    model.load_state_dict(weights[request.param])
    return model, samples


def worst_error(result, expected):
    return (np.abs(result.dots.reshape(expected.dots.shape) - expected.dots) / expected.scale).max()


def test_loss_gradient_does_not_cancel(memory, oracle):
    model, samples = memory
    result = compare(model, samples[:2], samples[2:], "all")
    expected = oracle(model.double(), samples[:2], samples[2:])
    model.float()
    loss = min(result.query_losses.min(), result.original_losses.min())
    assert loss < 0.2
    # What remains is the arithmetic of the model in float32, see docs/gradients.md.
    assert worst_error(result, expected) <= min(2e-3, 2e-5 / loss)


def test_memorised_samples_again_in_float64(memory, oracle):
    model, samples = memory
    result = compare(model, samples[:2], samples[2:], "all", precision_of_memorised="float64")
    losses = [*result.query_losses, *result.original_losses]
    assert result.memorised == sum(loss < MEMORISED for loss in losses) > 0
    assert result.passes == len(samples) + result.memorised
    expected = oracle(model.double(), samples[:2], samples[2:])
    model.float()
    assert worst_error(result, expected) <= 1e-5
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_factors_of_memorised_samples(memories, least_budget, precision):
    """At a small budget gradients are kept as factors, in the precision of the other samples."""
    model, weights, samples = memories
    model.load_state_dict(weights[60])
    keywords = {"precision": precision, "precision_of_memorised": "float64"}
    least = least_budget(model, samples[:2], samples[2:], "all", **keywords)
    small = compare(model, samples[:2], samples[2:], "all", memory_budget=least, **keywords)
    ample = compare(model, samples[:2], samples[2:], "all", **keywords)
    scale = np.sqrt(ample.query_self_dots[:, None] * ample.original_self_dots[None]).reshape(small.dots.shape)
    assert (np.abs(small.dots - ample.dots) <= (1e-5 if precision == "float32" else 2e-2) * scale).all()


def test_buffers_follow_the_model_into_float64(memories, oracle):
    """VeRA multiplies by buffers, whose format must be that of what they meet."""
    model, weights, samples = memories
    model.load_state_dict(weights[500])
    vera = VeraConfig(task_type=TaskType.CAUSAL_LM, r=4, target_modules=["q_proj"], d_initial=0.01)
    adapted: Any = get_peft_model(copy.deepcopy(model), vera).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "vera_lambda_b" in name:  # zero at first, which leaves the other one without a gradient
                parameter.fill_(0.01)
    result = compare(adapted, samples[:2], samples[2:], "all", precision_of_memorised="float64")
    assert result.memorised == len(samples)
    assert all(buffer.dtype == torch.float32 for buffer in adapted.buffers())
    assert worst_error(result, oracle(adapted.double(), samples[:2], samples[2:])) <= 1e-5


@pytest.mark.parametrize("step", STEPS)
def test_memorised_samples_are_not_rounding(memories, step):
    model, weights, samples = memories
    model.load_state_dict(weights[step])
    assert compare(model, samples[:2], samples[2:], "all", precision="bfloat16").noise == []


def test_losses_are_those_of_the_model(memory, oracle):
    model, samples = memory
    result = compare(model, samples[:2], samples[2:], "all", precision="float64")
    for sample, loss in zip(samples, [*result.query_losses, *result.original_losses], strict=True):
        tokens, labels = torch.tensor([sample.input_ids]), torch.tensor(sample.labels)
        with torch.no_grad():
            logits = model.double()(input_ids=tokens).logits[0, :-1]
        assert loss == pytest.approx(float(nn.functional.cross_entropy(logits, labels[1:])), rel=1e-9)
    model.float()


@pytest.mark.parametrize("lead", [0.0, 5.0, 12.0, 20.0, 40.0, 80.0])
def test_loss_gradient_in_float32_against_float64(lead, make_sample):
    """Down to losses that a float32 cannot tell from zero by 1 - p."""
    tokens = [3, 1, 4, 1, 5]
    batch = Batch.of([encode(make_sample("s", tokens, tokens), Limits(8, 8, None))], torch.device("cpu"))
    logits = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for position, label in enumerate(tokens[1:]):
        logits[0, position, label] += lead
    logits = logits.float().double()
    losses, gradient = batch.losses_and_gradient(batch.scored(logits.float()), torch.float32)
    exact = batch.scored(logits).requires_grad_()
    loss = nn.functional.cross_entropy(exact[0, :-1], torch.tensor(tokens[1:]))
    wide = torch.log_softmax(logits[0, :-1], dim=-1).exp()
    assert gradient.dtype == torch.float32
    others = wide.clone()
    others[range(4), tokens[1:]] = 0
    expected = others.clone()
    expected[range(4), tokens[1:]] = -others.sum(dim=-1)
    torch.testing.assert_close(gradient[0, :-1].double(), expected / 4, rtol=1e-5, atol=0)
    assert float(losses[0]) == pytest.approx(float(-torch.log1p(-others.sum(dim=-1)).mean()), rel=1e-5)
    assert float(losses[0]) == pytest.approx(float(loss.detach()), rel=1e-5, abs=1e-15)


def test_only_float64_is_taken_for_memorised_samples(memories):
    model, _, samples = memories
    with pytest.raises(GradientError, match=r"choose \"float64\" or None"):
        compare(model, samples[:2], samples[2:], "all", precision_of_memorised="float32")  # type: ignore[arg-type]
