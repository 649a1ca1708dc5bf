import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradsim import analysis
from gradsim.analysis import LayerDots, block_of, component_of
from gradsim.analysis.layers import COMPONENT_PATTERNS, COMPONENTS
from gradsim.errors import TableError


@pytest.mark.parametrize(
    ("layer", "component", "block"),
    [
        # OLMo, Llama, Qwen, Gemma
        ("model.embed_tokens.weight", "embedding", None),
        ("model.layers.3.self_attn.q_proj.weight", "attention q", 3),
        ("model.layers.3.self_attn.q_proj.bias", "bias", 3),
        ("model.layers.3.self_attn.q_norm.weight", "norm", 3),
        ("model.layers.12.self_attn.k_proj.weight", "attention k", 12),
        ("model.layers.12.self_attn.v_proj.weight", "attention v", 12),
        ("model.layers.0.self_attn.o_proj.weight", "attention o", 0),
        ("model.layers.0.mlp.gate_proj.weight", "MLP gate", 0),
        ("model.layers.0.mlp.up_proj.weight", "MLP up", 0),
        ("model.layers.0.mlp.down_proj.weight", "MLP down", 0),
        ("model.layers.0.post_attention_layernorm.weight", "norm", 0),
        ("model.norm.weight", "norm", None),
        ("lm_head.weight", "head", None),
        ("lm_head.bias", "bias", None),
        # Mixtral and other mixtures of experts
        ("model.layers.1.mlp.gate.weight", "MLP router", 1),
        ("model.layers.1.block_sparse_moe.gate.weight", "MLP router", 1),
        ("model.layers.1.block_sparse_moe.experts.7.w1.weight", "MLP gate", 1),
        ("model.layers.1.block_sparse_moe.experts.7.w2.weight", "MLP down", 1),
        ("model.layers.1.block_sparse_moe.experts.7.w3.weight", "MLP up", 1),
        ("model.layers.1.mlp.experts.gate_up_proj", "MLP gate+up", 1),
        ("model.layers.1.mlp.experts.down_proj", "MLP down", 1),
        ("model.layers.1.mlp.experts.down_proj_bias", "bias", 1),
        ("model.layers.1.mlp.router.weight", "MLP router", 1),
        ("model.layers.1.mlp.shared_expert_gate.weight", "MLP router", 1),
        ("model.layers.1.mlp.shared_expert.gate_proj.weight", "MLP gate", 1),
        # GPT-2, GPT-J, GPT-Neo
        ("transformer.wte.weight", "embedding", None),
        ("transformer.wpe.weight", "embedding", None),
        ("transformer.h.1.ln_1.weight", "norm", 1),
        ("transformer.ln_f.bias", "norm", None),
        ("transformer.h.1.attn.c_attn.weight", "attention qkv", 1),
        ("transformer.h.1.attn.c_proj.weight", "attention o", 1),
        ("transformer.h.1.attn.attention.out_proj.weight", "attention o", 1),
        ("transformer.h.1.mlp.c_fc.weight", "MLP up", 1),
        ("transformer.h.1.mlp.c_proj.weight", "MLP down", 1),
        ("transformer.h.1.mlp.fc_in.weight", "MLP up", 1),
        ("transformer.h.1.mlp.fc_out.weight", "MLP down", 1),
        # OPT, Phi
        ("model.decoder.embed_positions.weight", "embedding", None),
        ("model.decoder.project_in.weight", "other", None),
        ("model.decoder.layers.1.self_attn.out_proj.weight", "attention o", 1),
        ("model.decoder.layers.1.fc1.weight", "MLP up", 1),
        ("model.decoder.layers.1.fc2.weight", "MLP down", 1),
        ("model.layers.1.self_attn.dense.weight", "attention o", 1),
        ("model.layers.1.self_attn.qkv_proj.weight", "attention qkv", 1),
        ("model.layers.1.mlp.gate_up_proj.weight", "MLP gate+up", 1),
        # GPT-NeoX, BLOOM, Falcon, MPT
        ("gpt_neox.embed_in.weight", "embedding", None),
        ("embed_out.weight", "head", None),
        ("gpt_neox.layers.1.attention.query_key_value.weight", "attention qkv", 1),
        ("gpt_neox.layers.1.attention.dense.weight", "attention o", 1),
        ("gpt_neox.layers.1.mlp.dense_h_to_4h.weight", "MLP up", 1),
        ("gpt_neox.layers.1.mlp.dense_4h_to_h.weight", "MLP down", 1),
        ("transformer.word_embeddings.weight", "embedding", None),
        ("transformer.word_embeddings_layernorm.weight", "norm", None),
        ("transformer.blocks.1.attn.Wqkv.weight", "attention qkv", 1),
        ("transformer.blocks.1.ffn.up_proj.weight", "MLP up", 1),
        # A name of no common family
        ("tower.2.mystery", "other", 2),
    ],
)
def test_names_of_common_families(layer: str, component: str, block: int | None) -> None:
    assert component_of(layer) == component
    assert block_of(layer) == block


def test_every_component_is_listed() -> None:
    assert {*COMPONENT_PATTERNS, "other"} == set(COMPONENTS)


def test_parameters_per_layer() -> None:
    layers = pl.DataFrame(
        {
            "layer": ["lm_head.weight", "model.layers.1.mlp.up_proj.weight"],
            "shape": [[3, 2], [2, 1]],
            "parameters": [6, 2],
        }
    )
    assert analysis.parameters_per_layer(layers).rows() == [
        ("lm_head.weight", "head", None, 6, 0.75),
        ("model.layers.1.mlp.up_proj.weight", "MLP up", 1, 2, 0.25),
    ]


@pytest.mark.parametrize(
    ("names", "sizes", "message"),
    [
        (["w", "w"], [1, 1], "layer 'w' is listed twice in the model's layers"),
        (["v", "w"], [1, 0], "layer 'w' has no parameters in the model's layers"),
        (["v", "w"], [None, 1], "layer 'v' has no parameters in the model's layers"),
    ],
)
def test_layers_must_be_distinct_and_have_a_size(names, sizes, message: str) -> None:
    with pytest.raises(TableError) as error:
        analysis.parameters_per_layer(pl.DataFrame({"layer": names, "parameters": sizes}))
    assert str(error.value) == message


@given(data=st.data())
def test_similarity_to_the_full_gradient_is_a_cosine_over_pairs(draw_study, data) -> None:
    layer_dots = LayerDots.from_tables(*draw_study(data).tables)
    full = layer_dots.similarity()
    table = analysis.similarity_to_full_gradient(layer_dots, seed=0)
    assert table["layer"].to_list() == layer_dots.layers.to_list()
    for at, value in enumerate(table["similarity"]):
        alone = layer_dots.layer_similarities()[:, at]
        norms = np.linalg.norm(alone) * np.linalg.norm(full)
        assert value == pytest.approx(alone @ full / norms if norms else 0, abs=1e-12)


def test_the_only_layer_is_the_full_gradient(study) -> None:
    of_one_layer = [table.filter(pl.col("layer") == "layer.1") for table in study.tables]
    table = analysis.similarity_to_full_gradient(LayerDots.from_tables(*of_one_layer), seed=0)
    assert table.select("similarity", "low", "high").row(0) == (pytest.approx(1),) * 3


@settings(max_examples=10)
@given(data=st.data())
def test_its_interval_is_a_bootstrap_over_queries(draw_study, data) -> None:
    layer_dots = LayerDots.from_tables(*draw_study(data).tables)
    table = analysis.similarity_to_full_gradient(layer_dots, seed=11)
    n, query = len(layer_dots.lists.query_ids), layer_dots.lists.query
    pairs_of = [np.flatnonzero(query == each) for each in range(n)]
    layers, full = layer_dots.layer_similarities(), layer_dots.similarity()
    values = []
    for drawn in np.random.default_rng(11).integers(n, size=(1000, n)):
        pairs = np.concatenate([pairs_of[each] for each in drawn])
        norms = np.sqrt((layers[pairs] ** 2).sum(axis=0)) * np.sqrt((full[pairs] ** 2).sum())
        dots = full[pairs] @ layers[pairs]
        values.append(np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0))
    low, high = np.quantile(values, [0.025, 0.975], axis=0)
    np.testing.assert_allclose(table["low"], low, rtol=0, atol=1e-12)
    np.testing.assert_allclose(table["high"], high, rtol=0, atol=1e-12)
