"""Tiny random models of many families, their tokenizer, and what each would answer to a prompt alone."""

import random
import re
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers import models as tokenizer_models
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from gradsim.models import context_length
from gradsim.models.fresh_state import fresh_state
from gradsim.text_generation.local import GeneratedAnswer

VOCABULARY = 64
POSITIONS = 64
AS_GOOD_AS_TIED = 1e-5

LLAMA_LIKE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": POSITIONS,
}
GPT2_LIKE = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": POSITIONS}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "rotary": ("olmo", LLAMA_LIKE),
    "grouped queries": ("llama", LLAMA_LIKE),
    "partly rotary": ("gptj", {**GPT2_LIKE, "rotary_dim": 4}),
    "table of positions": ("gpt2", GPT2_LIKE),
    "shifted table of positions": (
        "opt",
        {
            "hidden_size": 32,
            "ffn_dim": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": POSITIONS,
            "word_embed_proj_dim": 32,
        },
    ),
    "biases for distances, no context": ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "experts": ("mixtral", {**LLAMA_LIKE, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "latent attention": (
        "deepseek_v3",
        {
            **LLAMA_LIKE,
            "num_key_value_heads": 4,
            "kv_lora_rank": 8,
            "q_lora_rank": 8,
            "qk_rope_head_dim": 4,
            "qk_nope_head_dim": 4,
            "v_head_dim": 8,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 1,
            "moe_intermediate_size": 16,
        },
    ),
    "windows": ("mistral", {**LLAMA_LIKE, "sliding_window": 8}),
    "some windows": (
        "gemma3_text",
        {
            **LLAMA_LIKE,
            "head_dim": 8,
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "convolutions and attention": ("lfm2", {**LLAMA_LIKE, "layer_types": ["conv", "full_attention"]}),
    "states, no context": ("mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}),
    "heeds no mask, no context": ("rwkv", {"hidden_size": 32, "num_hidden_layers": 2, "context_length": POSITIONS}),
}

ORIGINAL = 24
"""The context that scaled positions were trained for."""

LONGROPE = {
    "original_max_position_embeddings": ORIGINAL,
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 10_000.0,
        "short_factor": [1.0, 1.0, 1.01, 1.02],
        "long_factor": [1.1, 4.0, 16.0, 60.0],
        "factor": 4.0,
        "original_max_position_embeddings": ORIGINAL,
    },
}
MORE_FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "biases of projections": ("qwen2", LLAMA_LIKE),
    "windows in every second layer": ("gemma2", {**LLAMA_LIKE, "head_dim": 8, "sliding_window": 8}),
    "longrope that reads again": ("phi3", {**LLAMA_LIKE, **LONGROPE}),
    "longrope that goes on": ("llama", {**LLAMA_LIKE, **LONGROPE}),
    "dynamic rope": (
        "llama",
        {**LLAMA_LIKE, "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0}},
    ),
    "dynamic rope of a short context": (
        "llama",
        {
            **LLAMA_LIKE,
            "max_position_embeddings": ORIGINAL,
            "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0},
        },
    ),
    "alibi": (
        "falcon",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "alibi": True,
            "multi_query": False,
            "new_decoder_architecture": False,
        },
    ),
    "shared experts": (
        "qwen2_moe",
        {
            **LLAMA_LIKE,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
        },
    ),
    "experts of a token": ("granitemoe", {**LLAMA_LIKE, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "states in modules": (
        "recurrent_gemma",
        {
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "intermediate_size": 48,
            "lru_width": 32,
            "attention_window_size": 16,
        },
    ),
    "no causal mask": (
        "bert",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 48,
            "is_decoder": False,
        },
    ),
}


def make_model(family: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Random weights, large enough that answers vary."""
    kind, settings = {**FAMILIES, **MORE_FAMILIES}[family]
    configuration = AutoConfig.for_model(
        kind, vocab_size=VOCABULARY, bos_token_id=1, eos_token_id=1, pad_token_id=None, **settings
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(configuration).eval()
        for weight in model.parameters():
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, std=0.3)
    return model.to(dtype)


def make_tokenizer(end: int) -> PreTrainedTokenizerBase:
    """A word a token, which names its id."""
    words = {"<end>" if token == end else str(token): token for token in range(VOCABULARY)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(tokenizer_models.WordLevel(words, unk_token="<end>")), eos_token="<end>"
    )


def ids_of(answer: GeneratedAnswer) -> list[int]:
    """The ids that an answer's text was decoded from."""
    ids = [int(word) for word in re.findall(r"\d+", answer.text)]
    assert len(ids) == answer.new_tokens
    return ids


def prompts_of(lengths: list[int], seed: int = 0) -> list[list[int]]:
    numbers = random.Random(seed)
    return [[numbers.randrange(2, VOCABULARY) for _ in range(length)] for length in lengths]


@dataclass(frozen=True)
class Alone:
    """What a model goes on with, one token at a time, without padding or cache, as long as there is room.

    Attributes:
        ids: the likeliest each time.
        margins: how much likelier each was than the next, in logits.
    """

    ids: list[int]
    margins: list[float]

    @classmethod
    def of(cls, model: PreTrainedModel, prompt: list[int], max_new_tokens: int) -> "Alone":
        context = context_length(model.config)
        ids, margins = list(prompt), []
        for _ in range(max_new_tokens if context is None else min(max_new_tokens, context - len(prompt))):
            with torch.no_grad():
                best = model(torch.tensor([ids]), use_cache=False).logits[0, -1].double().topk(2)
            ids.append(int(best.indices[0]))
            margins.append(float(best.values[0] - best.values[1]))
        return cls(ids[len(prompt) :], margins)

    @classmethod
    def by_transformers(cls, model: PreTrainedModel, prompt: list[int], max_new_tokens: int) -> "Alone":
        """What transformers' own `generate` goes on with, from the model's present state, which is put back."""
        settings = GenerationConfig(
            do_sample=False,
            max_new_tokens=max_new_tokens,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_logits=True,
        )
        ids = torch.tensor([prompt])
        own, model.generation_config = model.generation_config, GenerationConfig()
        with fresh_state(model), torch.no_grad():
            output: Any = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)  # type: ignore[operator]
        model.generation_config = own
        best = torch.cat(output.logits).double().topk(2).values
        return cls(output.sequences[0, len(prompt) :].tolist(), (best[:, 0] - best[:, 1]).tolist())

    def until(self, end: int) -> tuple[list[int], bool]:
        """The ids before the end token, and whether there is one."""
        return (self.ids[: self.ids.index(end)], True) if end in self.ids else (self.ids, False)


def common_end(alone: list[Alone]) -> int:
    """The token that most answers hold, but not all."""
    holding = {token: sum(token in each.ids for each in alone) for token in range(VOCABULARY)}
    return max(holding, key=lambda token: holding[token] % len(alone))


def as_good_as_tied(answers: list[GeneratedAnswer], alone: list[Alone], end: int) -> int:
    """How many answers differ from those that prompts get alone, from a token on that was as good as tied.

    Others must not differ.
    """
    ties = 0
    for answer, one in zip(answers, alone, strict=True):
        expected, finished = one.until(end)
        ids = ids_of(answer)
        if (ids, answer.finished) == (expected, finished):
            continue
        ids, expected = [*ids, end], [*expected, end]
        place = next(number for number, (got, wanted) in enumerate(zip(ids, expected, strict=False)) if got != wanted)
        assert one.margins[place] <= AS_GOOD_AS_TIED, (place, one.margins[place])
        ties += 1
    return ties
