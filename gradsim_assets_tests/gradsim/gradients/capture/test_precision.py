"""The formats that a model runs in are those in which transformers loads it."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from gradsim.gradients import compare
from gradsim.gradients.capture.precision import running_in
from gradsim.gradients.reference import reference_dots, reference_gradient


def formats(model):
    return {name: tensor.dtype for name, tensor in (*model.named_parameters(), *model.named_buffers())}


def test_rotary_frequencies_stay_in_float32(make_model):
    model = make_model("llama, untied", torch.float32)
    model.model.rotary_emb.float()
    with running_in(model, torch.bfloat16):
        assert model.model.rotary_emb.inv_freq.dtype == torch.float32
        assert model.lm_head.weight.dtype == torch.bfloat16


def test_long_samples_in_bfloat16(make_model, make_sample):
    """Rounded frequencies would be off by a fifth of a turn at the last token."""
    config = AutoConfig.for_model(
        "llama", vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=1024,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(12.0 if "q_proj" in name or "k_proj" in name else 4.0)
    model = model.eval()
    random = np.random.default_rng(0)
    tokens = [np.tile(random.integers(3, 64, 40), 16)[: 600 - length].tolist() for length in range(3)]
    samples = [make_sample(f"s{i}", text, [-100] * (len(text) - 40) + text[-40:]) for i, text in enumerate(tokens)]
    result = compare(model, samples[:1], samples[1:], "all", precision="bfloat16")
    loaded = copy.deepcopy(model)
    for parameter in loaded.parameters():
        parameter.data = parameter.data.bfloat16()
    gradients = [reference_gradient(loaded, sample) for sample in samples]
    expected = np.array([reference_dots(gradients[0], other) for other in gradients[1:]])
    scale = np.sqrt(np.array([reference_dots(each, each) for each in gradients]))
    assert (np.abs(result.dots - expected) <= 0.02 * scale[0] * scale[1:]).all()


def test_modules_that_transformers_keeps_in_float32(make_model, make_samples):
    model = make_model("llama, untied", torch.float32)
    model._keep_in_fp32_modules_strict = {"lm_head"}
    with running_in(model, torch.bfloat16):
        kept = {name for name, dtype in formats(model).items() if dtype == torch.float32}
        assert kept == {"lm_head.weight", "model.rotary_emb.inv_freq", "model.rotary_emb.original_inv_freq"}
    assert set(formats(model).values()) == {torch.float32}


@pytest.mark.parametrize("share", ["all", "least"])
def test_a_model_in_two_formats(make_model, make_samples, least_budget, share):
    """A bfloat16 model with a part in float32, as it is loaded: gradients are those that transformers computes."""
    model = make_model("llama, untied", torch.bfloat16)
    head = nn.Linear(32, 64, bias=False)
    head.register_forward_pre_hook(lambda _, arguments: (arguments[0].float(),))
    model.lm_head = head
    samples = make_samples(4, seed=1)
    keywords: dict[str, Any] = {"precision": "bfloat16"}
    if share == "least":
        keywords["memory_budget"] = least_budget(model, samples[:2], samples[2:], "all", **keywords)
    result = compare(model, samples[:2], samples[2:], "all", **keywords)
    gradients = [reference_gradient(model, sample) for sample in samples]
    expected = np.array([[reference_dots(q, o) for o in gradients[2:]] for q in gradients[:2]]).reshape(4, -1)
    norms = np.sqrt([reference_dots(each, each) for each in gradients])
    scale = (norms[:2, None] * norms[None, 2:]).reshape(4, -1)
    assert (np.abs(result.dots - expected) <= 0.05 * scale).all()
    assert formats(model)["lm_head.weight"] == torch.float32
