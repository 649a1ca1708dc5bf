"""Training: the updates of plain AdamW, equal after any interruption, and what is refused."""

import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch import nn
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from gradsim import models
from gradsim.dataset.samples import SAMPLES_SCHEMA
from gradsim.errors import ModelError, SampleError
from gradsim.models import training
from gradsim.models.adapter import with_new_adapter
from gradsim.models.fetching import copy_tokenizer
from gradsim.models.loading import studied_layers
from gradsim.models.reference import _train_tokenizer
from gradsim.models.training import Checkpoint, seeded, train
from gradsim.study import Finetune, LoRA, ModelConfiguration, Study
from gradsim_assets_tests.gradsim.models.test_gguf import write
from gradsim_assets_tests.gradsim.test_models import raised

LENGTHS = (5, 9, 12, 12, 17, 4)
PLAN = Finetune(steps=6, learning_rate=0.01, tokens_per_step=40)
TEMPLATE = (
    "{% for m in messages %}{{ '[' + m.role + ']' + m.content + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def tokenized() -> pl.DataFrame:
    generator = torch.Generator().manual_seed(3)
    rows = [torch.randint(0, 50, (length,), generator=generator).tolist() for length in LENGTHS]
    labels = [[-100] * (len(row) // 3) + row[len(row) // 3 :] for row in rows]
    return pl.DataFrame({"id": [f"s{place}" for place in range(len(rows))], "input_ids": rows, "labels": labels})


def gpt2(dropout: float = 0.0) -> GPT2LMHeadModel:
    """A model whose dropout, if any, needs the state of the random generator."""
    torch.manual_seed(0)
    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
    configuration = GPT2Config(vocab_size=50, n_positions=32, n_embd=16, n_layer=1, n_head=2, **rates)  # type: ignore[arg-type]
    return GPT2LMHeadModel(configuration)


def trained(model: nn.Module, checkpoint: Checkpoint | None = None, **settings: Any) -> list[float]:
    with seeded(7, torch.device("cpu")):
        return train(
            model, tokenized(), **{**PLAN.model_dump(exclude={"seed", "lora"}), "checkpoint": checkpoint, **settings}
        )


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("tokens_per_pass", [1, 30, 10_000])
def test_the_updates_are_those_of_adamw_on_the_mean_loss(tokens_per_pass: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All samples form a batch here; the truth runs them one at a time, without padding."""
    monkeypatch.setattr(training, "_TOKENS_PER_PASS", tokens_per_pass)
    model = gpt2().double()
    losses = trained(model, steps=3, tokens_per_step=1000)

    expected = gpt2().double()
    optimizer = torch.optim.AdamW(expected.parameters(), betas=(0.9, 0.95), weight_decay=0.1)
    truth = []
    for factor in (1.0, 1.0, 0.1 + 0.9 * (1 + 0.0) / 2):  # warm-up in one step, then a cosine
        optimizer.param_groups[0]["lr"] = 0.01 * factor
        total, labels = torch.zeros((), dtype=torch.float64), 0
        for row in tokenized().iter_rows(named=True):
            target = torch.tensor(row["labels"])[1:]
            logits = expected(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
            total = total + nn.functional.cross_entropy(logits, target, reduction="sum", ignore_index=-100)
            labels += int((target != -100).sum())
        loss = total / labels
        loss.backward()
        nn.utils.clip_grad_norm_(expected.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        truth.append(float(loss.detach()))
    torch.testing.assert_close(losses, truth, rtol=1e-6, atol=0)
    # transformers computes the loss in float32.
    torch.testing.assert_close(weights(model), weights(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lora", [None, LoRA(rank=2)])
def test_an_interrupted_training_ends_with_the_same_bits(
    lora: LoRA | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)

    def fresh() -> Any:
        torch.manual_seed(1)
        return with_new_adapter(gpt2(dropout=0.3), lora, "gpt2") if lora else gpt2(dropout=0.3)

    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    undisturbed = fresh()
    losses = trained(undisturbed)
    checkpoint = Checkpoint(tmp_path / "checkpoint.safetensors", "this one")
    with pytest.raises(KeyboardInterrupt):
        trained(fresh(), checkpoint, progress=stop)
    steps: list[int] = []
    continued = fresh()
    assert trained(continued, checkpoint, progress=lambda done, total: steps.append(done)) == losses
    assert steps == [3, 4, 5, 6]  # the interruption came before the checkpoint of step 4
    assert_equal(weights(continued), weights(undisturbed))


@pytest.mark.parametrize("place", [0, 40, -1])
def test_a_damaged_checkpoint_and_that_of_another_training_are_not_used(
    place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    path = tmp_path / "checkpoint.safetensors"
    trained(gpt2(), Checkpoint(path, "this one"), steps=2)
    assert Checkpoint(path, "this one").read()
    assert not Checkpoint(path, "another one").read()
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert not Checkpoint(path, "this one").read()
    path.write_bytes(content[: len(content) // 2])
    assert not Checkpoint(path, "this one").read()


def test_what_cannot_be_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    broken = gpt2()
    broken.transformer.wte.weight.data[:] = float("nan")
    assert raised(ModelError, lambda: trained(broken)) == (
        "training: the loss of step 1 is nan; set a smaller learning_rate"
    )
    nowhere = Checkpoint(tmp_path / "missing" / "file", "")
    assert raised(ModelError, lambda: trained(gpt2(), nowhere)).startswith(
        f"checkpoint {nowhere.path}: cannot be written ("
    )
    masked = tokenized().with_columns(labels=pl.col("labels").list.eval(pl.lit(-100)))
    assert raised(SampleError, lambda: training.batched(masked, 100)) == "training: no sample has an answer to learn"


def test_padding_changes_no_loss() -> None:
    model = gpt2().eval()
    (batch,) = training.batched(tokenized(), 10_000)
    singles = training.batched(tokenized(), 1)
    assert len(singles) == len(LENGTHS)
    with torch.no_grad():
        of_batch = model(input_ids=batch.input_ids, labels=batch.labels).loss * batch.predicted
        of_singles = [model(input_ids=one.input_ids, labels=one.labels).loss * one.predicted for one in singles]
    torch.testing.assert_close(of_batch, torch.stack(of_singles).sum())


# -- fine-tuning -----------------------------------------------------------------------------


SAMPLES = pl.DataFrame(
    [
        (f"s{n}", [{"role": "user", "content": f"what is {n}"}, {"role": "assistant", "content": f"it is {n} " * n}])
        for n in range(1, 7)
    ],
    schema=SAMPLES_SCHEMA,
    orient="row",
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama, and a tokenizer with a chat template."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = _train_tokenizer(SAMPLES, 300)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    heads: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 128}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes, **heads)).save_pretrained(folder)
    return folder


def study_of(name: str, **model: Any) -> Study:
    return Study.model_validate(
        {
            "name": "tiny",
            "dataset": {"path": "originals.jsonl"},
            "samples": len(SAMPLES),
            "model": {"name": name, **model},
            "settings": {"word_dropout": {"method": "word_dropout"}},
        }
    )


def finetuned(folder: Path, base: Path, plan: Finetune = PLAN, **settings: Any) -> models.TrainedModel:
    study = study_of(str(base), finetune=plan, **settings)
    return models.finetune(SAMPLES, folder, study.start_configuration("cpu"), study, plan)


def digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name != "README.md"
    }


@pytest.mark.parametrize("precision", ["float32", "float64", "bfloat16"])
def test_all_weights_are_trained_and_the_tokenizer_stays(precision: str, base: Path, tmp_path: Path) -> None:
    plan = Finetune(steps=30, learning_rate=0.01, tokens_per_step=64)
    result = finetuned(tmp_path / "model", base, plan, precision=precision)
    before, after = (models.load_model(ModelConfiguration(str(path), device="cpu")) for path in (base, result.folder))
    assert result.final_loss < result.first_loss - 1
    assert result.parameters == after.num_parameters()
    assert all(not torch.equal(weight, weights(before)[name]) for name, weight in weights(after).items())
    messages = SAMPLES["messages"][0].to_list()
    first, second = (
        AutoTokenizer.from_pretrained(path).apply_chat_template(messages, return_dict=False)
        for path in (base, result.folder)
    )
    assert first == second
    assert digests(base)["tokenizer.json"] == digests(result.folder)["tokenizer.json"]


def test_the_same_seed_gives_the_same_files(base: Path, tmp_path: Path) -> None:
    for plan in (PLAN, PLAN.model_copy(update={"lora": LoRA()})):
        first, again, other = (
            digests(finetuned(tmp_path / name, base, plan.model_copy(update={"seed": seed})).folder)
            for name, seed in (("first", 1), ("again", 1), ("other", 2))
        )
        assert first == again != other


def test_an_adapter_is_trained_and_nothing_else(base: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    plan = Finetune(steps=30, learning_rate=0.02, lora=LoRA(rank=2, targets=("q_proj", "v_proj")))
    before = digests(base)
    result = finetuned(tmp_path / "adapter", base, plan)
    assert result.final_loss < result.first_loss
    assert digests(base) == before
    configuration = study_of(str(base), finetune=plan).model_configuration(None, result.folder, "cpu")
    model = models.load_model(configuration)
    layers = studied_layers(model)
    assert [name.rpartition("self_attn.")[2] for name in layers] == [
        f"{place}.lora_{letter}.default.weight" for place in ("q_proj", "v_proj") for letter in "AB"
    ]
    assert all(parameter.any() for parameter in layers.values())
    assert result.parameters == sum(parameter.numel() for parameter in layers.values())
    described = models.describe_untrained(ModelConfiguration(str(base)), plan)
    assert list(studied_layers(described)) == list(layers)
    # PEFT writes these in the random order of a set, unless they are sorted.
    written = json.loads((result.folder / "adapter_config.json").read_text())
    assert written["target_modules"] == ["q_proj", "v_proj"]
    assert written["base_model_name_or_path"] == str(base)
    nowhere = PLAN.model_copy(update={"lora": LoRA(targets=("nowhere",))})
    assert raised(ModelError, lambda: finetuned(tmp_path / "none", base, nowhere)).startswith(
        f"model.finetune.lora: does not fit model {base} ("
    )


def test_a_gguf_file_is_the_start(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "gguf"
    folder.mkdir()
    tokenizer = AutoTokenizer.from_pretrained(base)
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    heads: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer), **sizes, **heads))
    write(folder / "tiny.gguf", model, tokenizer)
    # transformers gives every folder of a Qwen2 the splits of Qwen2.
    assert raised(ModelError, lambda: finetuned(tmp_path / "model", folder, gguf="tiny.gguf")) == (
        f"model {folder}: transformers reads the tokenizer of tiny.gguf differently from a folder; copy the model's "
        f"tokenizer.json and tokenizer_config.json to {folder}"
    )
    assert not (tmp_path / "model").exists()
    copy_tokenizer(base, folder)
    result = finetuned(tmp_path / "model", folder, gguf="tiny.gguf")
    trained_model = models.load_model(ModelConfiguration(str(result.folder), device="cpu"))
    assert trained_model.num_parameters() == result.parameters
    assert digests(result.folder)["tokenizer.json"] == digests(base)["tokenizer.json"]


PROGRAM = """
import sys, time
from pathlib import Path
from gradsim_assets_tests.gradsim.models import test_training as tests
tests.training.CHECKPOINT_SECONDS = 0.0
tests.trained(tests.gpt2(), tests.Checkpoint(Path(sys.argv[1]), "this one"), progress=lambda *_: time.sleep(0.3))
"""


def test_a_killed_training_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(path)])
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    undisturbed, continued, steps = gpt2(), gpt2(), list[int]()
    losses = trained(undisturbed)
    found = trained(continued, Checkpoint(path, "this one"), progress=lambda done, total: steps.append(done))
    assert found == losses
    assert steps[0] > 0
    assert_equal(weights(continued), weights(undisturbed))
