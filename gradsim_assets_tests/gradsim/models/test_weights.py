"""Checkpoints on disk whose weights are not those that their configuration asks for."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPTJConfig, GPTJForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from gradsim import models
from gradsim.errors import ModelError
from gradsim.study import ModelConfiguration

Weights = dict[str, torch.Tensor]
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def llama(**settings: Any) -> PreTrainedModel:
    configuration = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=1,
        eos_token_id=2,
        **settings,
    )
    return LlamaForCausalLM(configuration)


def gptj() -> PreTrainedModel:
    configuration = GPTJConfig(
        vocab_size=64,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=16,
        rotary_dim=4,
        bos_token_id=1,
        eos_token_id=2,
    )
    return GPTJForCausalLM(configuration)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """Write a model, change its weights by a function and its config.json by keywords."""

    def write(
        change: Callable[[Weights], object] = lambda weights: None,
        model: PreTrainedModel | None = None,
        **settings: Any,
    ) -> Path:
        folder = tmp_path / "model"
        (model or llama()).save_pretrained(folder)
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        configuration = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(configuration | settings))
        return folder

    return write


def load(folder: Path, attention: str = "sdpa") -> PreTrainedModel:
    return models.load_model(ModelConfiguration(str(folder), device="cpu", attention=attention))


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as error:
        load(folder)
    beginning, message = str(error.value).split(": ", 1)
    assert beginning == f"model {folder}"
    assert "\n" not in message
    return message


def test_tied_head_that_is_stored_as_well(checkpoint: Callable[..., Path]) -> None:
    folder = checkpoint(lambda weights: weights.update({HEAD: weights[EMBEDDING].clone()}), tie_word_embeddings=True)
    names = [name for name, _ in load(folder).named_parameters()]
    assert HEAD not in names
    assert [name for name, _ in models.parameter_shapes(ModelConfiguration(str(folder)))] == names


def test_tied_head_that_is_stored_alone(checkpoint: Callable[..., Path]) -> None:
    folder = checkpoint(lambda weights: weights.pop(EMBEDDING), tie_word_embeddings=True)
    stored = load_file(folder / "model.safetensors")[HEAD]
    model = load(folder)
    assert torch.equal(model.get_input_embeddings().get_parameter("weight"), stored)
    assert torch.equal(model.get_output_embeddings().weight, stored)


def test_head_of_its_own_although_the_configuration_ties_it(checkpoint: Callable[..., Path]) -> None:
    assert refusal(checkpoint(tie_word_embeddings=True)) == (
        "its config.json ties lm_head.weight to another weight, but its files contain different values for the two; "
        "set tie_word_embeddings to false in its config.json if it was trained untied"
    )


def test_no_head_although_the_configuration_does_not_tie_it(checkpoint: Callable[..., Path]) -> None:
    assert refusal(checkpoint(lambda weights: weights.pop(HEAD))) == (
        "its weights do not contain lm_head.weight; set tie_word_embeddings to true in its config.json if the head is "
        "the input embedding, or download or train it again"
    )


@pytest.mark.parametrize("names", [["model.norm.weight"], ["model.norm.weight", HEAD], [EMBEDDING]])
def test_missing_weights(checkpoint: Callable[..., Path], names: list[str]) -> None:
    folder = checkpoint(lambda weights: [weights.pop(name) for name in names])
    assert refusal(folder) == f"its weights do not contain {min(names)}; download or train it again"


def test_weights_of_another_shape(checkpoint: Callable[..., Path]) -> None:
    assert refusal(checkpoint(vocab_size=70)) == (
        "its weights contain lm_head.weight of shape (64, 32), but its config.json specifies (70, 32); "
        "correct config.json, or download or train it again"
    )


@pytest.mark.parametrize(
    "name",
    [
        "lm_head.bias",
        "model.layers.0.self_attn.q_proj.bias",
        "model.layers.0.self_attn.q_proj.lora_A.default.weight",
        "model.layers.2.self_attn.q_proj.weight",
    ],
)
def test_weights_that_would_change_what_the_model_computes(checkpoint: Callable[..., Path], name: str) -> None:
    assert refusal(checkpoint(lambda weights: weights.update({name: torch.ones(8)}))) == (
        f"its weights contain {name}, which the model described by its config.json does not have; "
        "correct config.json, or merge an adapter into the model"
    )


@pytest.mark.parametrize("name", ["v_head.summary.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"])
def test_weights_that_the_model_does_without(checkpoint: Callable[..., Path], name: str) -> None:
    folder = checkpoint(lambda weights: weights.update({name: torch.ones(4)}))
    assert name not in dict(load(folder).named_parameters())


def test_masks_of_old_checkpoints(checkpoint: Callable[..., Path]) -> None:
    """As those of GPT-J on the Hub, which transformers reports as unexpected."""
    masks = {f"transformer.h.0.attn.{name}": torch.ones(1) for name in ("bias", "masked_bias")}
    folder = checkpoint(lambda weights: weights.update(masks), gptj())
    assert load(folder, "eager") is not None


def test_adapter_beside_the_weights(checkpoint: Callable[..., Path]) -> None:
    """transformers would put it into the model, and say nothing of weights that the model itself lacks."""
    peft = pytest.importorskip("peft")
    folder = checkpoint()
    adapted = peft.get_peft_model(llama(), peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"]))
    adapted.save_pretrained(folder)
    expected = (
        f"{folder} contains an adapter (adapter_config.json); "
        "set `model.name` to its base model and `model.adapter` to the adapter, in folders of their own"
    )
    assert refusal(folder) == expected
    for call in (models.fetch, models.read_configuration, models.load_tokenizer):
        with pytest.raises(ModelError) as error:
            call(str(folder))
        assert str(error.value) == f"model {folder}: {expected}"

    shutil.rmtree(folder)
    adapted.merge_and_unload().save_pretrained(folder)
    assert load(folder) is not None


def test_attention_reaches_the_shapes(checkpoint: Callable[..., Path]) -> None:
    """GPT-J has no sdpa in transformers."""
    folder = checkpoint(model=gptj())
    expected = "its architecture does not support sdpa attention; set `model.attention: eager` in the study file"
    assert refusal(folder) == expected
    with pytest.raises(ModelError) as error:
        models.parameter_shapes(ModelConfiguration(str(folder)))
    assert str(error.value) == f"model {folder}: {expected}"

    model = load(folder, "eager")
    shapes = models.parameter_shapes(ModelConfiguration(str(folder), attention="eager"))
    assert shapes == [(name, tuple(parameter.shape)) for name, parameter in model.named_parameters()]
