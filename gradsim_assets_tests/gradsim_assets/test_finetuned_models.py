"""Studies that fine-tune their model first: the trained model is the studied one, and is trained once."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from gradsim.dataset.samples import SAMPLES_SCHEMA
from gradsim.gradients.reference import reference_dots, reference_gradient
from gradsim.models import load_model
from gradsim.models.reference import _train_tokenizer
from gradsim.partition_job.inputs import sequences
from gradsim_assets_tests.gradsim.models.test_training import TEMPLATE
from gradsim_assets_tests.workplace import Workplace

pytestmark = pytest.mark.slow

DOTS = ("run", "tiny", "--computation", "dot-product")
STEPS = {"steps": 20, "learning_rate": 0.01, "tokens_per_step": 400}
SETTINGS = {
    "word_dropout": {"method": "word_dropout"},
    "generated": {"method": "generate", "prompts": "word_dropout", "max_new_tokens": 4},
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """An untrained Llama, and its tokenizer with a chat template."""
    tokenizer = _train_tokenizer(pl.DataFrame(Workplace.rows(20), schema=SAMPLES_SCHEMA), 300)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(tmp_path / "base")
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    heads: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 256}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes, **heads)).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.mark.parametrize("lora", [None, {"rank": 2, "targets": ["q_proj", "v_proj"]}], ids=["full", "lora"])
def test_the_trained_model_is_the_studied_one(lora: dict[str, Any] | None, workplace: Workplace, base: Path) -> None:
    model = {"name": str(base), "finetune": {**STEPS, "lora": lora}}
    workplace.write_study(model=model, settings=SETTINGS)
    plan = workplace.gradsim("plan", "tiny")
    assert "not counted: the model is trained first, in 20 steps of up to 400 tokens (" in plan
    assert f"{4 if lora else 12} layers" in plan
    workplace.gradsim(*DOTS)

    store = workplace.store()
    assert not store.checkpoint.exists()
    provenance = store.provenance(store.lineage.key("dot_products", "generated"), "0000-0006")
    assert provenance.model == f"{base}, fine-tuned"

    trained = load_model(store.model_configuration("cpu"))
    dots = store.read(store.lineage.key("dot_products", "generated"))
    first = dots.filter(pl.col("query_id") == dots["query_id"][0], pl.col("rank") == 1)
    tokens = [store.read(store.lineage.key("tokenized", setting)) for setting in ("generated", None)]
    pair = [
        next(sample for sample in sequences(frame) if sample.id == first[f"{side}_id"][0])
        for frame, side in zip(tokens, ("query", "original"), strict=True)
    ]
    layers = first["layer"].to_list()
    expected = reference_dots(*(reference_gradient(trained, sample, layers) for sample in pair))
    np.testing.assert_allclose(first["dot"], expected, rtol=1e-3, atol=1e-6)

    # The model is not trained again for another choice of candidates, but it is for another number of steps.
    before = workplace.digests()
    assert "nothing to do" in workplace.gradsim(*DOTS)
    workplace.write_study(model=model, settings=SETTINGS, top_k=2)
    assert "tiny/model" not in workplace.gradsim(*DOTS, "--setting", "word_dropout")
    workplace.write_study(model={**model, "finetune": {**model["finetune"], "steps": 3}}, settings=SETTINGS)  # type: ignore[dict-item]
    assert "tiny/model " in workplace.gradsim(*DOTS, "--setting", "word_dropout")
    weights = "tiny/model/adapter_model.safetensors" if lora else "tiny/model/model.safetensors"
    assert workplace.digests()[weights] != before[weights]


@pytest.mark.parametrize(
    ("finetune", "message"),
    [
        ({"steps": 1}, "key 'model.finetune.learning_rate' is missing; add it"),
        ({**STEPS, "rate": 1}, "unknown key 'model.finetune.rate'; known keys: learning_rate, lora, seed, steps, "),
        (
            {**STEPS, "lora": {"targets": []}},
            "key 'model.finetune.lora.targets' is []; it should be one entry at least",
        ),
        (
            {**STEPS, "lora": {"targets": ["nowhere"]}},
            "model.finetune.lora: does not fit model {base} (Target modules ",
        ),
    ],
)
def test_what_cannot_be_trained_is_one_line(
    finetune: dict[str, Any], message: str, workplace: Workplace, base: Path
) -> None:
    workplace.write_study(model={"name": str(base), "finetune": finetune})
    output = workplace.gradsim("run", "tiny", fails=True)
    assert message.format(base=base) in output
    assert "Traceback" not in output
