"""A study of a model whose softmax does not see the bias of its keys."""

import json

import polars as pl
import pytest
import torch
from transformers import AutoTokenizer, OPTConfig, OPTForCausalLM

from gradsim_assets.keys import asset_key
from gradsim_assets_tests.gradsim.report.studies import Page
from gradsim_assets_tests.workplace import Workplace

pytestmark = pytest.mark.slow

NOISE = [f"model.decoder.layers.{block}.self_attn.k_proj.bias" for block in range(2)]
BY_LAYER = ("accuracy_per_layer", "similarity_to_full_gradient", "greedy_by_similarity", "similarity_over_layers")


@pytest.fixture(scope="module")
def opt(finished, tmp_path_factory) -> Workplace:
    """A study of a small OPT, run to its end in two partitions, whose originals overlap."""
    place = Workplace(tmp_path_factory.mktemp("opt"))
    place.write_rows("originals.jsonl", place.rows(8))
    tokenizer = AutoTokenizer.from_pretrained(finished.store().model_folder)
    torch.manual_seed(0)
    configuration = OPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        ffn_dim=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        word_embed_proj_dim=16,
        dropout=0.0,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    folder = place.folder / "model"
    OPTForCausalLM(configuration).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    place.write_study(model={"name": str(folder)}, chat={"template": "tulu"}, partition_size=4)
    place.gradsim("run", "tiny")
    return place


@pytest.mark.parametrize("table", ["query_self", "original_self"])
def test_the_tables_mark_the_layers_and_keep_the_losses(opt, table) -> None:
    store = opt.store()
    rows = store.read(store.lineage.key(table, "word_dropout", "results"))
    assert rows.filter("noise")["layer"].cast(pl.String).unique(maintain_order=True).to_list() == NOISE
    losses = rows.group_by(pl.first()).agg(pl.col("loss").n_unique().alias("different"), pl.col("loss").first())
    assert set(losses["different"]) == {1}
    assert losses["loss"].is_between(1, 10).all(), "a model that knows nothing"


def test_analyses_by_layer_leave_them_out_and_say_so(opt) -> None:
    store = opt.store()
    layers = store.layers.categories.to_list()
    with opt.instance() as instance:
        for name in BY_LAYER:
            key = store.lineage.key(name, "word_dropout", "analysis")
            assert set(store.read(key)["layer"].cast(pl.String)) == set(layers) - set(NOISE)
            assert store.provenance(key).layers_left_out == NOISE
            event = instance.get_latest_materialization_event(asset_key(key))
            assert event.asset_materialization.metadata["layers_left_out"].value == NOISE
        accuracy = store.lineage.key("accuracy", "word_dropout", "analysis")
        assert store.provenance(accuracy).layers_left_out == []
    report = (opt.data / "tiny" / "report.html").read_text(encoding="utf-8")
    assert (
        "2 layers are left out because their gradients are only rounding noise: 0.self_attn.k_proj.bias and "
        "1.self_attn.k_proj.bias." in Page(report).text
    )
    assert len(json.loads(report.split('id="layers-data">')[1].split("</script>")[0])) == len(layers) - len(NOISE)


def test_its_audit_passes_with_them(opt) -> None:
    store = opt.store()
    audit = store.read(store.lineage.key("gradient_audit", "word_dropout", "analysis"))
    assert set(NOISE) <= set(audit["layer"].cast(pl.String))
    assert audit["error"].max() < 1e-5
