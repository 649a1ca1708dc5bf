"""Tiny random models of many families, random samples, and the oracle."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from gradsim.errors import MemoryBudgetError
from gradsim.gradients import compare
from gradsim.gradients.reference import reference_dots, reference_gradient
from gradsim_assets_tests.gradsim.gradients.random_models import Sample, random_model, random_samples

POSITIONS = 32
LLAMA_LIKE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": POSITIONS,
}
GPT2_LIKE = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": POSITIONS}
OPT_LIKE = {
    "hidden_size": 32,
    "ffn_dim": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": POSITIONS,
    "word_embed_proj_dim": 32,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "olmo, tied": ("olmo", {**LLAMA_LIKE, "tie_word_embeddings": True}),
    "llama, tied, all biases": (
        "llama",
        {**LLAMA_LIKE, "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True},
    ),
    "llama, untied": ("llama", LLAMA_LIKE),
    "qwen2, untied": ("qwen2", {**LLAMA_LIKE, "tie_word_embeddings": False}),
    "qwen3, norms of heads": ("qwen3", {**LLAMA_LIKE, "head_dim": 8}),
    "gpt2, tied": ("gpt2", GPT2_LIKE),
    "gpt2, untied": ("gpt2", {**GPT2_LIKE, "tie_word_embeddings": False}),
    "opt, tied": ("opt", OPT_LIKE),
    "mixtral, stacked experts": (
        "mixtral",
        {**LLAMA_LIKE, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "qwen2_moe, shared expert": (
        "qwen2_moe",
        {
            **LLAMA_LIKE,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
        },
    ),
    "olmoe, stacked experts": ("olmoe", {**LLAMA_LIKE, "num_experts": 6, "num_experts_per_tok": 3}),
    "qwen3_moe, a dense layer": (
        "qwen3_moe",
        {
            **LLAMA_LIKE,
            "head_dim": 8,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "mlp_only_layers": [0],
        },
    ),
    "deepseek_v3, latent attention": (
        "deepseek_v3",
        {
            **LLAMA_LIKE,
            "num_key_value_heads": 4,
            "n_routed_experts": 4,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 2,
            "topk_group": 1,
            "moe_intermediate_size": 16,
            "first_k_dense_replace": 1,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 8,
        },
    ),
    "gpt_oss, transposed experts with biases": (
        "gpt_oss",
        {
            **LLAMA_LIKE,
            "head_dim": 8,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        },
    ),
    "gemma, scaled embedding": ("gemma", {**LLAMA_LIKE, "head_dim": 8}),
    "gpt_neox, biases": ("gpt_neox", LLAMA_LIKE),
    "mamba, convolutions and states": (
        "mamba",
        {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "intermediate_size": 64},
    ),
}


def build_model(kind: str = "olmo, tied", dtype: torch.dtype = torch.float64) -> PreTrainedModel:
    family, settings = MODELS[kind]
    model: Any = random_model(family, **settings)  # transformers annotates its `to` wrongly
    return model.to(dtype)


@dataclass(frozen=True)
class Oracle:
    """What plain autograd says: (queries, originals, layers) and (samples, layers)."""

    dots: NDArray[np.float64]
    query_self_dots: NDArray[np.float64]
    original_self_dots: NDArray[np.float64]

    @property
    def scale(self) -> NDArray[np.float64]:
        """Products of the norms, (queries, originals, layers)."""
        return np.sqrt(self.query_self_dots[:, None] * self.original_self_dots[None])


def ask_oracle(model: PreTrainedModel, queries: Sequence[Any], originals: Sequence[Any]) -> Oracle:
    query_gradients = [reference_gradient(model, query) for query in queries]
    original_gradients = [reference_gradient(model, original) for original in originals]
    return Oracle(
        np.array([[reference_dots(q, o) for o in original_gradients] for q in query_gradients]),
        np.array([reference_dots(q, q) for q in query_gradients]),
        np.array([reference_dots(o, o) for o in original_gradients]),
    )


@pytest.fixture
def make_model() -> Callable[..., PreTrainedModel]:
    return build_model


@pytest.fixture
def make_samples() -> Callable[..., list[Sample]]:
    return random_samples


@pytest.fixture
def oracle() -> Callable[..., Oracle]:
    return ask_oracle


def ask_for_least_budget(model: PreTrainedModel, *arguments: Any, **keywords: Any) -> int:
    """The least budget that does, as the engine itself says: first for the check of the rules, then for a pair."""
    budget, enough = 1, False
    while not enough:
        try:
            compare(model, *arguments, memory_budget=budget, **keywords)
            enough = True
        except MemoryBudgetError as error:
            found = re.search(r"set memory_budget to at least (\d+)$", str(error))
            assert found
            assert int(found[1]) > budget
            budget = int(found[1])
    return budget


@pytest.fixture
def least_budget() -> Callable[..., int]:
    return ask_for_least_budget


@pytest.fixture
def make_sample() -> type[Sample]:
    return Sample
