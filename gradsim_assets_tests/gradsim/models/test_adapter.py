"""PEFT adapters: gradients of the adapter alone, equal to plain autograd, and what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from gradsim import models
from gradsim.errors import ModelError
from gradsim.gradients import compare
from gradsim.gradients.reference import reference_dots, reference_gradient
from gradsim.models.adapter import with_adapter
from gradsim.models.loading import studied_layers
from gradsim.study import ModelConfiguration
from gradsim_assets_tests.gradsim.gradients.conftest import build_model
from gradsim_assets_tests.gradsim.gradients.random_models import random_samples

peft = pytest.importorskip("peft")

Configuration = Callable[..., ModelConfiguration]
TARGETS = {
    "llama, untied": ["q_proj", "down_proj"],
    "gpt2, tied": ["c_attn", "c_proj"],
    "gpt_neox, biases": ["query_key_value", "dense"],
}


@pytest.fixture
def adapted(tmp_path: Path) -> Configuration:
    """A base model and an adapter of it on disk."""

    def make(kind: str = "llama, untied", **settings: Any) -> ModelConfiguration:
        base = build_model(kind, torch.float64)
        base.save_pretrained(tmp_path / "base")
        defaults = {"r": 4, "lora_alpha": 12, "lora_dropout": 0.5, "target_modules": TARGETS.get(kind)}
        chosen = {**defaults, "init_lora_weights": False, **settings}
        model = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", **chosen))
        model.save_pretrained(tmp_path / "adapter")
        return ModelConfiguration(
            str(tmp_path / "base"), precision="float64", device="cpu", adapter=str(tmp_path / "adapter")
        )

    return make


def gradient(model: PreTrainedModel, sample: Any) -> dict[str, torch.Tensor]:
    """Plain autograd of the mean loss for all parameters that require a gradient."""
    tokens = torch.tensor([sample.input_ids])
    labels = torch.tensor([sample.labels])
    model.zero_grad()
    logits = model(input_ids=tokens).logits[0, :-1]
    torch.nn.functional.cross_entropy(logits, labels[0, 1:]).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.filterwarnings("ignore::gradsim.gradients.FallbackWarning")
@pytest.mark.parametrize("kind", TARGETS)
def test_dots_are_those_of_autograd_and_of_the_merged_weight(kind: str, adapted: Configuration) -> None:
    configuration = adapted(kind)
    model = models.load_model(configuration)
    layers = list(studied_layers(model))
    assert all(".lora_" in layer for layer in layers)
    assert layers == [name for name, _ in models.parameter_shapes(configuration)]
    queries, originals = random_samples(2, seed=1), random_samples(2, seed=2)

    result = compare(model, queries, originals, "all", layers=layers, precision="float64")

    found = [gradient(model, sample) for sample in (*queries, *originals)]
    expected = [[float((q[layer] * o[layer]).sum()) for layer in layers] for q in found[:2] for o in found[2:]]
    np.testing.assert_allclose(result.dots, expected, rtol=1e-9, atol=1e-20)
    own = reference_gradient(model, queries[0], layers)
    np.testing.assert_allclose(result.query_self_dots[0], reference_dots(own, own), rtol=1e-9, atol=1e-20)

    # With y = (W + s B A) x, the gradient of A is s Bᵀ ∇W, and that of B is s ∇W Aᵀ, with ∇W that of the merged weight.
    scale, merged = 12 / 4, models.load_model(replace(configuration, adapter=None))
    weights, parts = dict(merged.named_parameters()), dict(model.named_parameters())
    names = sorted({layer.partition(".lora_")[0] for layer in layers})
    factors = {name: [parts[f"{name}.lora_{letter}.default.weight"].detach() for letter in "AB"] for name in names}
    for name, (a, b) in factors.items():
        product = scale * b @ a
        weights[f"{name}.weight"].data += (
            product.T if "gpt2" in kind else product
        )  # Conv1D stores the transposed weight
    of_merged = gradient(merged, queries[0])
    for name, (a, b) in factors.items():
        whole = of_merged[f"{name}.weight"]
        whole = whole.T if "gpt2" in kind else whole
        for letter, value in (("A", scale * b.T @ whole), ("B", scale * whole @ a.T)):
            torch.testing.assert_close(found[0][f"{name}.lora_{letter}.default.weight"], value, rtol=1e-9, atol=1e-13)


def test_a_fresh_adapter_has_no_gradient_for_a(adapted: Configuration) -> None:
    """B starts as zeros."""
    model = models.load_model(adapted(init_lora_weights=True))
    layers, samples = list(studied_layers(model)), random_samples(3, seed=1)
    result = compare(model, samples, samples, "all", layers=layers, precision="float64")
    of_a = [".lora_A." in layer for layer in layers]
    assert (result.dots[:, of_a] == 0).all()
    assert (result.query_self_dots[:, ~np.array(of_a)] > 0).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"modules_to_save": ["lm_head"], "target_modules": ["q_proj", "embed_tokens"]},
        {"use_dora": True, "bias": "lora_only", "target_modules": "all-linear"},
        {"use_rslora": True, "layers_to_transform": [1]},
    ],
)
def test_the_layers_are_the_trainable_tensors(settings: dict[str, Any], adapted: Configuration) -> None:
    configuration = adapted(**settings)
    model = models.load_model(configuration)
    plain = peft.PeftModel.from_pretrained(
        build_model("llama, untied", torch.float64), configuration.adapter, is_trainable=True
    ).double()
    trainable = {name: p for name, p in plain.named_parameters() if p.requires_grad}
    layers = studied_layers(model)
    assert {f"base_model.model.{name}" for name in layers} == trainable.keys()
    assert all(torch.equal(layers[name.removeprefix("base_model.model.")], p) for name, p in trainable.items())
    tokens = torch.arange(9)[None]
    found, expected = model(input_ids=tokens).logits, plain.eval()(input_ids=tokens).logits
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)  # equal bits on some processors only


def no_weights(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()


def pickled(folder: Path) -> None:
    weights = load_file(folder / "adapter_model.safetensors")
    no_weights(folder)
    torch.save(weights, folder / "adapter_model.bin")


def missing_weight(folder: Path) -> None:
    weights = load_file(folder / "adapter_model.safetensors")
    weights.pop(min(weights))
    save_file(weights, folder / "adapter_model.safetensors")


def other_weight(folder: Path) -> None:
    weights = load_file(folder / "adapter_model.safetensors")
    weights["base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight"] = torch.ones(4, 32)
    save_file(weights, folder / "adapter_model.safetensors")


def _edit(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (no_weights, "contains no adapter_model.safetensors; download or train it again"),
    "pickled weights": (pickled, "contains no adapter_model.safetensors; save it as safetensors"),
    "a weight is missing": (missing_weight, "lora_A.default.weight is only in one of them"),
    "a weight too many": (other_weight, "layers.9.self_attn.q_proj.lora_A"),
    "another size": (lambda folder: _edit(folder, r=3), "does not fit model"),
    "no such layer": (lambda folder: _edit(folder, target_modules=["query"]), "does not fit model"),
    "no configuration": (lambda folder: (folder / "adapter_config.json").unlink(), "contains no adapter_config.json"),
    "malformed": (lambda folder: (folder / "adapter_config.json").write_text("{"), "cannot be read"),
    "unknown type": (lambda folder: _edit(folder, peft_type="NEW"), "cannot be read"),
    "prompt": (
        lambda folder: (folder / "adapter_config.json").write_text(
            json.dumps({"peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM", "num_virtual_tokens": 2})
        ),
        "PROMPT_TUNING adds tokens instead of weights",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_refused(case: str, adapted: Configuration, tmp_path: Path) -> None:
    configuration = adapted()
    break_it, message = WRONG[case]
    break_it(tmp_path / "adapter")
    with pytest.raises(ModelError) as error:
        models.load_model(configuration)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_another_base(adapted: Configuration, tmp_path: Path) -> None:
    """Names of the Hub differ; the paths of folders say nothing."""
    configuration = adapted()
    _edit(tmp_path / "adapter", base_model_name_or_path="/home/someone/base")
    assert models.load_model(configuration) is not None
    _edit(tmp_path / "adapter", base_model_name_or_path="org/other")
    with pytest.raises(ModelError, match=r"was trained on org/other, not on org/base; set `model.name: org/other`"):
        with_adapter(build_model("llama, untied"), tmp_path / "adapter", "mine", "org/base")


def test_a_changed_adapter_is_not_the_recorded_one(adapted: Configuration, tmp_path: Path) -> None:
    configuration = adapted()
    recorded = models.fetch_adapter(str(tmp_path / "adapter")).revision
    assert models.load_model(replace(configuration, adapter_revision=recorded)) is not None
    missing_weight(tmp_path / "adapter")
    with pytest.raises(ModelError, match=r"its files have revision .*, not .* as recorded"):
        models.load_model(replace(configuration, adapter_revision=recorded))
