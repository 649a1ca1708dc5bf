"""Studies of a local model: every step knows it as the job loads it, or says in one line why it cannot."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from transformers import AutoTokenizer, GPTJConfig, GPTJForCausalLM

from gradsim.dataset.samples import SAMPLES_SCHEMA
from gradsim.models import load_model
from gradsim.models.reference import _train_tokenizer
from gradsim.study import ModelConfiguration
from gradsim_assets_tests.workplace import Workplace

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A GPT-J, which has no sdpa in transformers, and its tokenizer."""
    rows = pl.DataFrame(Workplace.rows(20), schema=SAMPLES_SCHEMA)
    tokenizer = _train_tokenizer(rows, 300)
    settings: dict[str, Any] = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 256, "rotary_dim": 4}
    special: dict[str, Any] = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model = GPTJForCausalLM(GPTJConfig(vocab_size=len(tokenizer), **special, **settings))
    tokenizer.save_pretrained(tmp_path / "model")
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_family_without_sdpa(workplace: Workplace, folder: Path) -> None:
    workplace.write_study(model={"name": str(folder)})
    assert (
        f"error: tiny__model: model {folder}: its architecture does not support sdpa attention; "
        "set `model.attention: eager` in the study file"
    ) in workplace.gradsim("run", "tiny", fails=True)

    workplace.write_study(model={"name": str(folder), "attention": "eager"})
    workplace.gradsim("run", "tiny")

    store = workplace.store()
    loaded = load_model(ModelConfiguration(str(folder), device="cpu", attention="eager"))
    table = store.read(store.lineage.key("model"))
    assert dict(table.select("layer", "shape").iter_rows()) == {
        name: list(parameter.shape) for name, parameter in loaded.named_parameters()
    }
    assert store.read(store.lineage.key("dot_products", "word_dropout")).height == 20 * 3 * len(table)


def test_tokens_that_the_model_has_no_embedding_for(workplace: Workplace, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    size = len(tokenizer)
    tokenizer.add_tokens(["warm water"])
    tokenizer.save_pretrained(folder)
    workplace.write_study(model={"name": str(folder), "attention": "eager"})
    assert (
        f"sample 's00' has token {size} ('warm water'), but the model has {size} embeddings and its tokenizer "
        f"{size + 1} tokens; use the tokenizer that it was trained with, or resize its embeddings "
        "(resize_token_embeddings) and train them"
    ) in workplace.gradsim("run", "tiny", fails=True)
