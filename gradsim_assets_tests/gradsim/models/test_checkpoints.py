"""Checkpoints as people have them: sharded, in another dtype, of another size than their tokenizer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers import models as tokenizer_models
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from gradsim import models
from gradsim.chat import MASKED, tokenize
from gradsim.errors import ModelError
from gradsim.gradients import compare
from gradsim.gradients.reference import reference_dots, reference_gradient
from gradsim.models.limits import vocabulary_size
from gradsim.partition_job.inputs import TokenSequence
from gradsim.study import ModelConfiguration
from gradsim.text_generation.local import generate_answers

WORDS = ["<unk>", "<end>", "What", "is", "it", "rain", "snow", "user", "assistant", ":"]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }} : {{ m.content }} {{ eos_token }} {% endfor %}"
    "{% if add_generation_prompt %}assistant : {% endif %}"
)
MESSAGES = [{"role": "user", "content": "What is it"}, {"role": "assistant", "content": "snow"}]


def llama(rows: int = len(WORDS), **settings: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    return LlamaForCausalLM(LlamaConfig(vocab_size=rows, **sizes, **settings)).eval()


def words(**special: str) -> PreTrainedTokenizerBase:
    """A tokenizer with an end token and no other special token."""
    ids = {word: place for place, word in enumerate(WORDS)}
    tokenizer = Tokenizer(tokenizer_models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", chat_template=TEMPLATE, **special)


def load(folder: Path, precision: Any = "float32") -> PreTrainedModel:
    return models.load_model(ModelConfiguration(str(folder), device="cpu", precision=precision))


def equal(one: PreTrainedModel, two: PreTrainedModel) -> bool:
    pairs = zip(one.named_parameters(), two.named_parameters(), strict=True)
    return all(a == b and torch.equal(x, y.to(x.dtype)) for (a, x), (b, y) in pairs)


class TestShards:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        llama().save_pretrained(tmp_path, max_shard_size="20KB")
        assert len(list(tmp_path.glob("*.safetensors"))) > 2
        return tmp_path

    def test_are_one_model(self, folder: Path) -> None:
        assert equal(load(folder), llama())
        revision = models.fetch(str(folder)).revision
        torch_file = sorted(folder.glob("*.safetensors"))[-1]
        torch_file.write_bytes(torch_file.read_bytes()[:-1] + b"\1")
        assert models.fetch(str(folder)).revision != revision

    @pytest.mark.parametrize("missing", ["model-00002-of-*.safetensors", "model.safetensors.index.json"])
    def test_incomplete_download(self, folder: Path, missing: str) -> None:
        for path in folder.glob(missing):
            path.unlink()
        with pytest.raises(ModelError) as error:
            load(folder)
        assert str(error.value).startswith(f"model {folder}: cannot be loaded (")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_study_sets_the_precision_and_not_the_checkpoint(tmp_path: Path, key: str, precision: str) -> None:
    stored: Any = llama()  # transformers annotates its `to` wrongly
    stored.to(torch.bfloat16)
    stored.save_pretrained(tmp_path)
    configuration = json.loads((tmp_path / "config.json").read_text())
    configuration[key] = configuration.pop("dtype")
    (tmp_path / "config.json").write_text(json.dumps(configuration))
    loaded = load(tmp_path, precision)
    assert {weight.dtype for weight in loaded.parameters()} == {getattr(torch, precision)}
    assert equal(loaded, stored)


@pytest.mark.parametrize("tied", [True, False])
def test_more_embeddings_than_the_tokenizer_has_tokens(tmp_path: Path, tied: bool) -> None:
    """As in models whose tables are padded to a multiple of 64; unused rows have gradients where they are predicted."""
    model: Any = llama(tie_word_embeddings=tied)
    model.resize_token_embeddings(len(WORDS), pad_to_multiple_of=64)
    model.save_pretrained(tmp_path)
    loaded = load(tmp_path, "float64")
    assert vocabulary_size(loaded) == 64
    sample = tokenize(MESSAGES, words(), template="model")
    one, two = (TokenSequence(name, sample.input_ids, sample.labels) for name in "ab")
    found = compare(loaded, [one], [two], "all", precision="float64")
    gradients = reference_gradient(loaded, one)
    np.testing.assert_allclose(found.dots[0], reference_dots(gradients, gradients), rtol=1e-10)
    assert gradients[found.layers[0] if tied else found.layers[-1]][len(WORDS) :].any()


def test_a_tokenizer_without_padding_beginning_or_template() -> None:
    tokenizer = words()
    assert (tokenizer.bos_token, tokenizer.pad_token) == (None, None)
    sample = tokenize(MESSAGES, tokenizer, template="model")
    assert tokenizer.decode(sample.input_ids) == "user : What is it <end> assistant : snow <end>"
    assert tokenizer.decode([label for label in sample.labels if label != MASKED]) == "snow <end>"
    prompts = [sample.input_ids_prompt, sample.input_ids_prompt[-3:]]
    together = generate_answers(llama(), tokenizer, prompts, max_new_tokens=3)
    assert together == [generate_answers(llama(), tokenizer, [prompt], max_new_tokens=3)[0] for prompt in prompts]

    tokenizer.chat_template = None
    with pytest.raises(ModelError, match=r"has no chat template; set `chat.template` in the study file to tulu or to"):
        tokenize(MESSAGES, tokenizer, template="model")


def test_a_beginning_is_there_once(tmp_path: Path) -> None:
    """Also where the tokenizer adds one by itself to every text."""
    tokenizer = words(bos_token="<unk>")
    tokenizer.add_bos_token = True
    tokenizer.save_pretrained(tmp_path)
    loaded = models.load_tokenizer(str(tmp_path))
    sample = tokenize(MESSAGES, loaded, template="model")
    assert sample.input_ids.count(loaded.bos_token_id) == 1
