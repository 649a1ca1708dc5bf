"""No sample depends on its batch, on earlier calls or on checkpointing: what would is found, and run another way."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from peft import IA3Config, LoraConfig, PrefixTuningConfig, TaskType, get_peft_model
from transformers import PreTrainedModel

from gradsim.errors import GradientError
from gradsim.gradients import FallbackWarning, compare
from gradsim_assets_tests.gradsim.gradients.random_models import random_model

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
SCALED = {"rope_theta": 10_000.0, "factor": 4.0}
LONG = {
    **SCALED,
    "rope_type": "longrope",
    "short_factor": [1.0, 1.0, 1.01, 1.02],
    "long_factor": [1.1, 4.0, 16.0, 60.0],
    "original_max_position_embeddings": 64,
}
LENGTHS = (60, 63, 62, 66, 70, 61, 66, 74, 64, 65)
"""On both sides of a context of 64."""

EQUAL_LENGTHS = "only samples of equal length share a batch"


def build(family: str, **settings: Any) -> PreTrainedModel:
    return random_model(family, **{"vocab_size": 96, **settings}).eval()


@pytest.fixture
def samples_of(make_sample) -> Callable[..., list[Any]]:
    def make(lengths=LENGTHS):
        random = np.random.default_rng(0)
        texts = [random.integers(3, 64, length).tolist() for length in lengths]
        return [make_sample(f"s{number}", text, [-100] * 5 + text[5:]) for number, text in enumerate(texts)]

    return make


def assert_exact(model, samples, oracle, tolerance=1e-10, **keywords):
    """Every dot within rounding of plain autograd, whatever the order; returns the result and what was warned."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FallbackWarning)
        result = compare(model, samples[:3], samples[3:], "all", precision="float64", **keywords)
    expected = oracle(model, samples[:3], samples[3:])
    error = np.abs(result.dots.reshape(expected.dots.shape) - expected.dots)
    norms = [np.sqrt(each) for each in (expected.query_self_dots, expected.original_self_dots)]
    # A layer may have no gradient but rounding, beside the whole one.
    q, o = (np.maximum(each, 1e-6 * np.linalg.norm(each, axis=1, keepdims=True)) for each in norms)
    assert (error <= tolerance * q[:, None] * o[None]).all()
    return result, [str(each.message) for each in caught if each.category is FallbackWarning]


@pytest.mark.parametrize("step", [1, -1])
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"rope_parameters": LONG, "original_max_position_embeddings": 64, "max_position_embeddings": 256}, ""),
        ({"rope_parameters": {**SCALED, "rope_type": "dynamic"}, "max_position_embeddings": 64}, EQUAL_LENGTHS),
        ({"rope_parameters": {**SCALED, "rope_type": "yarn"}, "max_position_embeddings": 64}, ""),
    ],
    ids=["longrope", "dynamic", "yarn"],
)
def test_scaled_rotary_embeddings_on_both_sides_of_their_context(samples_of, oracle, settings, told, step):
    model = build("phi3" if "short_factor" in settings["rope_parameters"] else "llama", **SIZES, **settings)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    samples = samples_of()[::step]
    result, messages = assert_exact(model, samples, oracle)
    assert [told in message for message in messages] == [True] * bool(told)
    assert result.plan.cost.batches < len(samples)  # the factors change at the context, and some have one length
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_dependence_below_the_rounding_of_a_format(samples_of, precision):
    model = build("llama", **SIZES, max_position_embeddings=64, rope_parameters={**SCALED, "rope_type": "dynamic"})
    samples = samples_of((100, 108, 99, 110, 105))
    with pytest.warns(FallbackWarning, match=EQUAL_LENGTHS):
        result = compare(model, samples[:2], samples[2:], "all", precision=precision)
    alone = [compare(model, [q], [o], "all", precision=precision).dots for q in samples[:2] for o in samples[2:]]
    scale = np.sqrt(result.query_self_dots[:, None] * result.original_self_dots[None]).reshape(result.dots.shape)
    assert (np.abs(result.dots - np.concatenate(alone)) <= 1e-3 * scale).all()


def test_as_many_heads_as_tokens(samples_of, oracle):
    """Norms of heads have outputs of shape (batch, heads, tokens, width)."""
    heads = {"num_attention_heads": 8, "num_key_value_heads": 8}
    model = build("phi", **{**SIZES, **heads}, qk_layernorm=True, max_position_embeddings=64)
    result, _ = assert_exact(model, samples_of((40, 45, 33, 8, 7, 7, 8)), oracle)
    assert result.plan.cost.batches < 7


def test_samples_below_the_context_share_batches(samples_of, oracle):
    model = build("llama", **SIZES, max_position_embeddings=256, rope_parameters={**SCALED, "rope_type": "dynamic"})
    result, messages = assert_exact(model, samples_of(), oracle)
    assert result.plan.cost.batches < len(LENGTHS)
    assert messages == []


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("mistral", {"sliding_window": 16}),
        ("gemma2", {"sliding_window": 16, "head_dim": 8}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}),
    ],
)
def test_sliding_windows_shorter_than_the_samples(samples_of, oracle, family, settings):
    model = build(family, **SIZES, max_position_embeddings=256, **settings)
    # Gemma's norms compute in float32, whatever the model is in.
    tolerance = 1e-7 if family == "gemma2" else 1e-10
    assert_exact(model, samples_of((20, 18, 15, 16, 17, 33, 32, 31, 8)), oracle, tolerance)


@pytest.mark.parametrize("step", [1, -1])
@pytest.mark.parametrize("family", ["bert", "roberta", "electra"])
def test_attention_that_sees_later_tokens(samples_of, oracle, family, step):
    sizes = {name: SIZES[name] for name in SIZES if name != "num_key_value_heads"}
    model = build(family, **sizes, max_position_embeddings=128, is_decoder=False)
    assert_exact(model, samples_of((20, 23, 22, 21, 20, 21, 24))[::step], oracle)


def test_samples_that_see_each_other_run_alone(samples_of, oracle):
    model = build("llama", **SIZES, max_position_embeddings=128)
    # More than the two short pieces of the check of the rules.
    model.lm_head.register_forward_hook(lambda module, arguments, output: output * (1 + 0.1 * (len(output) > 2)))
    result, messages = assert_exact(model, samples_of((40, 41, 42, 43, 40, 41, 40, 40, 40, 40)), oracle)
    assert result.plan.cost.batches == 10
    assert [message.partition(",")[0] for message in messages] == [
        "this model's results change with padding",
        "this model's results depend on the other samples of a batch",
    ]


def test_a_model_that_changes_its_answers_is_refused(samples_of):
    model = build("llama", **SIZES, max_position_embeddings=128)
    model.model.norm.register_forward_hook(
        lambda module, arguments, output: torch.nn.functional.dropout(output, 0.5, training=True)
    )
    with pytest.warns(FallbackWarning), pytest.raises(GradientError, match=r"output for sample 's\d' changes when"):
        compare(model, samples_of()[:3], samples_of()[3:], "all")


@pytest.mark.parametrize(
    ("times", "family", "settings"),
    [
        (1, "granitemoe", {"num_local_experts": 4, "num_experts_per_tok": 2}),
        (1, "granitemoeshared", {"num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 16}),
        (1, "llama", {}),
        (2, "llama", {}),
        (1, "qwen2_moe", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}),
        (2, "qwen2_moe", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}),
    ],
)
def test_checkpointed_blocks(samples_of, oracle, least_budget, family, settings, times):
    model = build(family, **SIZES, max_position_embeddings=128, **settings)
    samples = samples_of((38, 46, 40, 44, 39, 41, 42))
    least = least_budget(model, samples[:3], samples[3:], "all", precision="float64")
    assert_exact(model, samples, oracle, memory_budget=times * least)
    modules: list[Any] = [module for module in model.modules() if hasattr(module, "config")]
    assert all(module.config.use_cache for module in modules)


def test_blocks_that_fail_when_they_are_checkpointed(samples_of, oracle, least_budget):
    """A prefix is a cache, to which a block that runs again appends."""
    model = get_peft_model(build("llama", **SIZES), ADAPTERS["prefix"]("llama")).double().eval()
    samples = samples_of((300, 310, 290, 280, 330))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        least = least_budget(model, samples[:3], samples[3:], "all", precision="float64")
    _, messages = assert_exact(model, samples, oracle, memory_budget=least)
    assert any("checkpointing changes the gradients" in message for message in messages)


ADAPTERS = {
    "lora": lambda family: LoraConfig(
        task_type=TaskType.CAUSAL_LM, r=4, target_modules="all-linear", fan_in_fan_out=family == "gpt2"
    ),
    "ia3": lambda family: IA3Config(
        task_type=TaskType.CAUSAL_LM,
        target_modules=["c_attn"] if family == "gpt2" else ["k_proj", "v_proj"],
        feedforward_modules=[],
        fan_in_fan_out=family == "gpt2",
    ),
    "prefix": lambda family: PrefixTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=4),
}


# Every two of an adapter, a family and a budget meet once.
@pytest.mark.parametrize(
    ("adapter", "family", "budget"),
    [
        ("lora", "llama", "default"),
        ("lora", "gpt2", "least"),
        ("lora", "qwen2", "twice the least"),
        ("ia3", "llama", "least"),
        ("ia3", "gpt2", "twice the least"),
        ("ia3", "qwen2", "default"),
        ("prefix", "llama", "twice the least"),
        ("prefix", "gpt2", "default"),
        ("prefix", "qwen2", "least"),
    ],
)
def test_adapters_at_every_budget(samples_of, oracle, least_budget, adapter, family, budget):
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128} if family == "gpt2" else SIZES
    model = get_peft_model(build(family, **sizes), ADAPTERS[adapter](family)).double().eval()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    samples = samples_of((90, 94, 80, 88, 86, 91, 100))
    keywords = {}
    if budget != "default":
        least = least_budget(model, samples[:3], samples[3:], "all", precision="float64")
        keywords["memory_budget"] = least * (1 if budget == "least" else 2)
    assert_exact(model, samples, oracle, **keywords)
