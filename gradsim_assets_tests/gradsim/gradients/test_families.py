"""Every layer of many model types, some of them in variants, against plain autograd, one sample at a time.

`test_conformance.py` has further ones.
"""

from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from transformers import PreTrainedModel

from gradsim.gradients import Projector, compare

pytestmark = pytest.mark.filterwarnings("ignore::gradsim.gradients.FallbackWarning")

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
ROUNDING = {torch.float64: 1e-28, torch.float32: 1e-14}
"""Some gradients are zero in exact arithmetic (biases of keys): what is left of their dots is of this size."""

TIED, UNTIED = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "olmo, untied, attention biases": ("olmo", {"attention_bias": True}),
    "olmo2, norms behind blocks": ("olmo2", {}),
    "llama, tied, all biases": ("llama", {**TIED, "attention_bias": True, "mlp_bias": True}),
    "llama, untied, grouped attention": ("llama", {"num_key_value_heads": 2}),
    "qwen2, tied": ("qwen2", TIED),
    "qwen3, norms of heads": ("qwen3", {}),
    "gpt2, untied": ("gpt2", UNTIED),
    "opt, tied": ("opt", {}),
    "opt, untied": ("opt", UNTIED),
    "opt, projected embedding, no biases": (
        "opt",
        {"word_embed_proj_dim": 16, "do_layer_norm_before": False, "enable_bias": False},
    ),
    "bloom, biases of positions": ("bloom", {}),
    "gpt_neox, biases": ("gpt_neox", {}),
    "phi, biases": ("phi", {}),
    "phi3, stacked projections": ("phi3", {}),
    "gemma, scaled embedding": ("gemma", {}),
    "gemma2, capped logits": ("gemma2", {}),
    "olmoe, three of six experts": ("olmoe", {"num_experts": 6, "num_experts_per_tok": 3}),
    "qwen2_moe, shared expert": ("qwen2_moe", {}),
    "qwen3_moe, a dense layer": ("qwen3_moe", {"mlp_only_layers": [0]}),
    "deepseek_v3, latent attention": ("deepseek_v3", {}),
    "gpt_oss, transposed experts with biases": ("gpt_oss", {}),
    "mamba, convolutions and states": ("mamba", {}),
}


def build(kind: str, dtype: torch.dtype) -> PreTrainedModel:
    model_type, settings = KINDS[kind]
    model: Any = tiny_models.make_model(model_type, **settings)  # transformers annotates its `to` wrongly
    if dtype == torch.float64 and hasattr(model, "set_experts_implementation"):
        # The default, grouped products, knows no float64.
        model.set_experts_implementation("eager")
    return model.to(dtype)


# Model types that float32 runs through other code than float64, such as grouped experts and scans of states, and some
# that stand for all others.
IN_FLOAT32 = {
    *("olmoe", "qwen2_moe", "qwen3_moe", "deepseek_v3", "gpt_oss", "mamba"),
    *("bloom", "gemma2", "gpt2", "llama", "qwen3"),
}


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        *((kind, torch.float64) for kind in KINDS),
        *((kind, torch.float32) for kind, (model_type, _) in KINDS.items() if model_type in IN_FLOAT32),
    ],
    ids=str,
)
def test_it_is_autograd(kind, dtype, make_samples, oracle):
    tolerance = TOLERANCE[dtype]
    model = build(kind, dtype)
    queries, originals = make_samples(3, seed=1), make_samples(4, seed=2)
    expected = oracle(model, queries, originals)

    result = compare(model, queries, originals, "all", precision=str(dtype).removeprefix("torch."))

    assert result.layers == [name for name, _ in model.named_parameters()]
    rounding = ROUNDING[dtype]
    error = np.abs(result.dots.reshape(expected.dots.shape) - expected.dots)
    assert (error <= tolerance * expected.scale + rounding).all()
    np.testing.assert_allclose(result.query_self_dots, expected.query_self_dots, rtol=tolerance, atol=rounding)
    np.testing.assert_allclose(result.original_self_dots, expected.original_self_dots, rtol=tolerance, atol=rounding)


@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def test_every_device_gives_the_same(device, make_model, make_samples, oracle):
    """Exact and projected dots; on a machine with a GPU also there."""
    model = make_model(dtype=torch.float32)
    queries, originals = make_samples(3, seed=1), make_samples(4, seed=2)
    projectors = [Projector("sjlt", 0.3, 42, "p")]
    expected = oracle(model, queries, originals)
    on_cpu = compare(model, queries, originals, "all", projectors=projectors)

    result = compare(model.to(device), queries, originals, "all", projectors=projectors)
    again = compare(model, queries, originals, "all", projectors=projectors)

    scale = expected.scale.reshape(12, -1)
    assert (np.abs(result.dots - expected.dots.reshape(12, -1)) <= 1e-5 * scale).all()
    assert (np.abs(result.projected["p"].dots - on_cpu.projected["p"].dots) <= 1e-5 * scale).all()
    assert result.dots.tobytes() == again.dots.tobytes()
