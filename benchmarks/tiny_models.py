"""The smallest random model of every causal type in transformers.

A configuration uses the sizes below for every number of that name, also in nested configurations, and one block of
every kind that the type mixes by default. `SPECIAL` lists further values that a type requires. Needs torch and
transformers.
"""

from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

TYPES = tuple(sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
VOCABULARY = 96
POSITIONS = 64
Settings = dict[str, Any]
_BLOCKS, _WIDTH = 2, 32

_NAMES_OF_SIZE = {
    VOCABULARY: """
        vocab_size vocab_size_per_layer_input decoder_vocab_size encoder_hash_byte_group_vocab shape_vocab_size
        pronunciation_vocab_size ngram_vocab_size_base
    """,
    POSITIONS: """
        max_position_embeddings n_positions n_ctx max_seq_len model_max_length max_target_positions
        position_embedding_size num_position_embeddings image_size crop_size
    """,
    48: """
        intermediate_size intermediate_size_mlp dense_intermediate_size ffn_dim ffn_hidden_size encoder_ffn_dim
        decoder_ffn_dim feed_forward_size d_ff d_inner dff dim_ff mlp_dim
    """,
    _WIDTH: """
        hidden_size hidden_size_global ple_embed_dim n_embd d_model emb_dim embed_dim embedding_dim embedding_size
        word_embed_proj_dim lru_width adapter_in_dim adapter_out_dim adapter_input_size out_hidden_size
        output_channels output_proj_dims input_embedding_size output_embedding_size projector_input_dim
        projector_output_dim vision_output_dim ext_pw_out_channel depthwise_separable_out_channel nemo_conv_channels
    """,
    16: """
        moe_intermediate_size shared_expert_intermediate_size shared_experts_intermediate_size
        shared_intermediate_size moe_shared_expert_intermediate_size expert_ffn_hidden_size q_lora_rank kv_lora_rank
        o_lora_rank shape_embed_dim pronunciation_embed_dim hidden_size_per_layer_input laurel_rank mamba_d_head
        mamba_head_dim router_hidden_size attention_head_dim index_head_dim
    """,
    # Windows and chunks are shorter than the samples, so that they have an effect.
    8: """
        head_dim swa_head_dim linear_head_dim d_kv d_head dim_head kv_channels attention_head_size qk_rope_head_dim
        qk_nope_head_dim v_head_dim swa_v_head_dim linear_key_head_dim linear_value_head_dim sliding_window
        sliding_window_size window_size attention_chunk_size attention_window_size local_attention_window_len
        local_attn_chunk_length lsh_attn_chunk_length index_topk chunk_size mamba_chunk_size mamba_d_state
        state_size ssm_state_size d_rel rel_extent prompt_length hc_lowrank split_ngram_parts
        make_ngram_vocab_size_divisible_by
    """,
    4: """
        num_attention_heads swa_num_attention_heads num_key_value_heads n_head n_heads num_heads attention_heads
        encoder_attention_heads decoder_attention_heads index_n_heads linear_num_key_heads linear_num_value_heads
        linear_num_heads heads_per_ngram mamba_n_heads mamba_num_heads n_mamba_heads num_experts num_local_experts
        n_routed_experts moe_num_experts mamba_dt_rank time_step_rank rotary_dim
    """,
    2: """
        num_hidden_layers n_layer n_layers num_layers depth encoder_layers decoder_layers num_encoder_layers
        num_decoder_layers num_blocks num_experts_per_tok num_experts_per_token moe_topk moe_top_k moe_k n_group
        num_expert_group zero_expert_num kv_n_heads swa_num_key_value_heads n_groups
    """,
    1: """
        topk_group n_shared_experts num_shared_experts moe_num_shared_experts first_k_dense_replace num_dense_layers
        pad_token_id bos_token_id eos_token_id num_codebooks
    """,
}
SIZES = {name: size for size, names in _NAMES_OF_SIZE.items() for name in names.split()}
# Lists with the kind of each block.
_KINDS = ("layer_types", "mlp_layer_types", "layers_block_type")

_MIXTURE = {"num_experts_per_tok": 2, "n_routed_experts": 4, "n_shared_experts": 1}
_ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
# By type, for a whole model or a nested configuration.
SPECIAL: dict[str, Settings] = {
    "bamba": {"attn_layer_indices": [1]},
    "big_bird": {"attention_type": "original_full"},
    "bigbird_pegasus": {"attention_type": "original_full"},
    "cohere_compass_text": {"rope_parameters": {"full_attention": _ROPE}},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 10_000.0, "clip_qkv": 8.0}},
    "deepseek_v2": _MIXTURE,
    "dots1": _MIXTURE,
    "dots3_note_text": {
        "swa_num_attention_heads": 4,
        "swa_num_key_value_heads": 4,
        "swa_q_lora_rank": 16,
        "swa_kv_lora_rank": 16,
        "swa_head_dim": 16,
        "swa_qk_nope_head_dim": 8,
        "swa_v_head_dim": 8,
    },
    "falcon_h1": {"mamba_d_ssm": 2 * _WIDTH},
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_kv_shared_layers": 2,
        "intermediate_size": 48,
        "activation_sparsity_pattern": [0.5, 0.5, 0.0, 0.0],
    },
    "gemma4_text": {"global_head_dim": 16},
    "gemma4_unified_text": {"global_head_dim": 16},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"head_dim": 16},
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
        "ple_layer_ids": [1],
        "eos_token_id": 1,
    },
    "reformer": {"axial_pos_embds": False, "num_buckets": 2},
    "xlm": {"causal": True},
    "xmod": {"default_language": "en_XX"},
    # The shared block must be used twice.
    "zamba": {"layers_block_type": ["linear_attention", "hybrid", "hybrid"], "num_hidden_layers": 3},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid", "hybrid"], "num_hidden_layers": 3},
    "zaya": {"num_experts_per_tok": 1},
}
_DRAFTS = "the model drafts from the hidden states of another model and takes no tokens"
TAKES_NO_TOKENS = {"gemma4_assistant": _DRAFTS, "gemma4_unified_assistant": _DRAFTS}
# Types with a causal model that takes a nested configuration.
_PARTS = {"musicgen": "decoder", "musicgen_melody": "decoder"}


def make_config(model_type: str, **settings: Any) -> PretrainedConfig:
    """Return the smallest configuration of a type, overridden by `settings`."""
    kind = CONFIG_MAPPING[model_type]
    config = kind(**_tiny(kind()) | settings)
    return getattr(config, _PARTS[model_type]) if model_type in _PARTS else config


def make_model(model_type: str, **settings: Any) -> PreTrainedModel:
    """Return a random float32 model of a type in eval mode, the same at every call.

    Noise is added to all parameters, because initial zeros and ones would hide errors.
    """
    config = make_config(model_type, **settings)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        if model_type in _PARTS:
            model: PreTrainedModel = getattr(transformers, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type])(config)
        else:
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    model.eval()
    return model


def _tiny(default: PretrainedConfig) -> Settings:
    """Return the values that make a default configuration tiny."""
    values = default.to_dict()
    found: Settings = {name: _tiny(part) for name, part in vars(default).items() if isinstance(part, PretrainedConfig)}
    found.update({name: size for name, size in SIZES.items() if type(values.get(name)) is int})
    found.update({name: SIZES[name] for name in ("head_dim", "num_key_value_heads") if values.get(name, 0) is None})
    if _has_grouped_attention(values):
        found["num_key_value_heads"] = 2
    if "is_decoder" in values:
        found["is_decoder"] = True
    kinds = {name: list(dict.fromkeys(values[name])) for name in _KINDS if values.get(name)}
    blocks = max([_BLOCKS, *map(len, kinds.values())])
    for name, different in kinds.items():
        found[name] = [different[block % len(different)] for block in range(blocks)]
        found["num_hidden_layers"] = blocks
    return found | SPECIAL.get(default.model_type, {})


def _has_grouped_attention(values: Settings) -> bool:
    heads, groups = values.get("num_attention_heads"), values.get("num_key_value_heads")
    return isinstance(heads, int) and isinstance(groups, int) and groups < heads
