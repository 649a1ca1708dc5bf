"""Studies of a local model: every step knows it as the job loads it, or says in one line why it cannot."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from transformers import (
    AutoTokenizer,
    GPTJConfig,
    GPTJForCausalLM,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from gradsim.chat import MASKED
from gradsim.dataset.samples import SAMPLES_SCHEMA
from gradsim.models import fetch, load_model
from gradsim.models.reference import _train_tokenizer
from gradsim.study import ModelConfiguration
from gradsim_assets_tests.gradsim.models.test_gguf import write
from gradsim_assets_tests.workplace import Workplace

pytestmark = pytest.mark.slow

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A GPT-J, which has no sdpa in transformers, and its tokenizer with a chat template."""
    rows = pl.DataFrame(Workplace.rows(20), schema=SAMPLES_SCHEMA)
    tokenizer = _train_tokenizer(rows, 300)
    settings: dict[str, Any] = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 256, "rotary_dim": 4}
    special: dict[str, Any] = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model = GPTJForCausalLM(GPTJConfig(vocab_size=len(tokenizer), **special, **settings))
    tokenizer.chat_template = CHATML
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


def test_a_gguf_file(workplace: Workplace, folder: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    heads: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2}
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer), max_position_embeddings=512, **sizes, **heads))
    (tmp_path / "gguf").mkdir()
    write(tmp_path / "gguf" / "tiny.gguf", model, tokenizer)
    place: dict[str, Any] = {"name": str(tmp_path / "gguf"), "gguf": "tiny.gguf"}
    local = {"method": "local", "model": place["name"], "gguf": "tiny.gguf", "max_new_tokens": 4}
    workplace.write_study(model=place, settings={"paraphrased": local}, partition_size=20)
    workplace.gradsim("run", "tiny", "--computation", "dot-product")

    store = workplace.store()
    expected = [(name, list(weight.shape)) for name, weight in model.named_parameters()]
    assert store.read(store.lineage.key("model")).select("layer", "shape").rows() == expected
    revision = fetch(place["name"], gguf="tiny.gguf").revision
    for table in ("queries", "dot_products"):
        assert store.provenance(store.lineage.key(table, "paraphrased"), "0000-0019").revision == revision


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


def test_the_models_own_chat_template(workplace: Workplace, folder: Path) -> None:
    settings = {
        "word_dropout": {"method": "word_dropout"},
        "generated": {"method": "generate", "prompts": "word_dropout", "max_new_tokens": 4},
    }
    workplace.write_study(model={"name": str(folder), "attention": "eager"}, settings=settings)
    workplace.gradsim("run", "tiny", "--computation", "dot-product")
    assert_rendered(workplace, AutoTokenizer.from_pretrained(folder))

    # A file takes the place of the model's template, and only what depends on the text is made again.
    (workplace.studies / "upper.jinja").write_text(CHATML.replace("m.role", "m.role | upper"), encoding="utf-8")
    chat = {"template": "upper.jinja"}
    workplace.write_study(model={"name": str(folder), "attention": "eager"}, settings=settings, chat=chat)
    output = workplace.gradsim("run", "tiny", "--computation", "dot-product")
    assert "tiny/model  " not in output
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = CHATML.replace("m.role", "m.role | upper")
    assert_rendered(workplace, tokenizer)


@pytest.mark.parametrize("quantization", [{}, {"quantization": "nf4"}])
def test_a_model_with_an_adapter(workplace: Workplace, folder: Path, quantization: dict[str, str]) -> None:
    """The layers are the adapter's, and answers come from the adapted model."""
    peft = pytest.importorskip("peft")
    settings = {
        "word_dropout": {"method": "word_dropout"},
        "generated": {"method": "generate", "prompts": "word_dropout", "max_new_tokens": 4},
    }
    adapter = str(workplace.folder / "adapter")
    model = {"name": str(folder), "attention": "eager", "adapter": adapter, **quantization}
    lora = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    peft.get_peft_model(GPTJForCausalLM.from_pretrained(folder), lora).save_pretrained(adapter)
    workplace.write_study(model=model, settings=settings)
    assert "4 layers" in workplace.gradsim("plan", "tiny")
    workplace.gradsim("run", "tiny", "--computation", "dot-product")

    store = workplace.store()
    assert [name.rpartition(".lora_")[2] for name in store.layer_names] == 2 * ["A.default.weight", "B.default.weight"]
    assert store.read(store.lineage.key("dot_products", "generated")).height == 20 * 3 * 4
    provenance = store.provenance(store.lineage.key("dot_products", "generated"), "0000-0006")
    assert provenance.model == "model with adapter adapter"
    adapted = load_model(store.model_configuration("cpu"))
    row = store.read(store.lineage.key("tokenized", "generated")).row(0, named=True)
    prompt = row["input_ids_prompt"]
    answer = adapted.generate(torch.tensor([prompt]), max_new_tokens=4, do_sample=False)[0, len(prompt) :]  # type: ignore[operator]
    shown = AutoTokenizer.from_pretrained(folder).decode(answer, skip_special_tokens=True)
    queries = store.read(store.lineage.key("queries", "generated"))
    assert queries["messages"][0][-1]["content"] == shown


def test_conversations_of_several_turns(workplace: Workplace, folder: Path) -> None:
    earlier = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is at home?"},
        {"role": "assistant", "content": "Many things."},
    ]
    rows = [{**row, "messages": [*earlier, *row["messages"]]} for row in workplace.rows(20)]
    workplace.write_rows("originals.jsonl", rows)
    model, chat = {"name": str(folder), "attention": "eager"}, {"loss_on": "all_answers"}
    workplace.write_study(model=model, chat=chat)
    workplace.gradsim("run", "tiny")

    store, tokenizer = workplace.store(), AutoTokenizer.from_pretrained(folder)
    for texts, tokens in (("samples", "tokenized"), ("word_dropout/queries", "word_dropout/tokenized")):
        frames = [
            pl.read_parquet([*store.root.glob(f"tiny/{name}.parquet"), *store.root.glob(f"tiny/{name}/*.parquet")])
            for name in (texts, tokens)
        ]
        for messages, labels in frames[0].join(frames[1], on="id").select("messages", "labels").iter_rows():
            assert messages[:3] == earlier
            covered = tokenizer.decode([label for label in labels if label != MASKED])
            assert covered == "".join(f"{messages[place]['content']}<|im_end|>\n" for place in (2, 4))


def assert_rendered(workplace: Workplace, tokenizer: PreTrainedTokenizerBase) -> None:
    """Originals and generated queries are in the tokenizer's template, and the loss is on their answers."""
    store = workplace.store()
    for texts, tokens in (
        (store.lineage.key("samples"), store.lineage.key("tokenized")),
        (store.lineage.key("queries", "generated"), store.lineage.key("tokenized", "generated")),
    ):
        rows = store.read(texts).join(store.read(tokens), on="id")
        assert len(rows) == 20
        for messages, ids, labels in rows.select("messages", "input_ids", "labels").iter_rows():
            assert ids == tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
            answer = f"{messages[1]['content']}<|im_end|>\n"
            assert tokenizer.decode([label for label in labels if label != MASKED]) == answer


def test_a_model_without_a_chat_template(workplace: Workplace, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = None
    (folder / "chat_template.jinja").unlink()
    tokenizer.save_pretrained(folder)
    workplace.write_study(model={"name": str(folder), "attention": "eager"})
    assert (
        "has no chat template; set `chat.template` in the study file to tulu or to a .jinja file"
        in workplace.gradsim("run", "tiny", fails=True)
    )
