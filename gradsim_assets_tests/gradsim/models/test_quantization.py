"""Models that bitsandbytes quantizes: gradients of their adapters equal autograd on the quantized layers."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from gradsim import models
from gradsim.errors import ModelError
from gradsim.gradients import compare
from gradsim.models.loading import studied_layers
from gradsim.study import ModelConfiguration
from gradsim.study.model_configuration import Quantization
from gradsim_assets_tests.gradsim.gradients.random_models import random_samples

peft = pytest.importorskip("peft")
pytest.importorskip("bitsandbytes")

KINDS: dict[Quantization, BitsAndBytesConfig] = {
    "nf4": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    "nf4_double": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True),
    "fp4": BitsAndBytesConfig(load_in_4bit=True),
    "int8": BitsAndBytesConfig(load_in_8bit=True),
}


@pytest.fixture
def base(tmp_path: Path) -> ModelConfiguration:
    sizes: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 64}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2))
    model.save_pretrained(tmp_path / "base")
    return ModelConfiguration(str(tmp_path / "base"), device="cpu")


def quantized(base: ModelConfiguration, kind: Quantization) -> Any:
    """Return a model with the layers of bitsandbytes, in which weights stay quantized."""
    return AutoModelForCausalLM.from_pretrained(
        base.name, quantization_config=KINDS[kind], dtype=torch.float32, device_map={"": "cpu"}
    ).eval()


@pytest.mark.parametrize("kind", ["nf4", "nf4_double", "fp4"])
def test_gradients_of_an_adapter_are_those_of_training_on_the_quantized_base(
    kind: Quantization, base: ModelConfiguration, tmp_path: Path
) -> None:
    lora = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    trained = peft.get_peft_model(quantized(base, kind), lora).train()  # otherwise it rounds scales on some processors
    trained.save_pretrained(tmp_path / "adapter")
    configuration = replace(base, quantization=kind, adapter=str(tmp_path / "adapter"))
    samples = random_samples(3, seed=1)

    model = models.load_model(configuration)
    layers = list(studied_layers(model))
    result = compare(model, samples[:1], samples[1:], "all", layers=layers)

    assert layers == [name for name, _ in models.parameter_shapes(configuration)]
    gradients = [autograd(trained.get_base_model(), sample) for sample in samples]
    assert gradients[0].keys() == set(layers)
    expected = [[float((gradients[0][layer] * other[layer]).sum()) for layer in layers] for other in gradients[1:]]
    np.testing.assert_allclose(result.dots, expected, rtol=1e-4, atol=1e-9)


def autograd(model: Any, sample: Any) -> dict[str, torch.Tensor]:
    model.zero_grad()
    logits = model(input_ids=torch.tensor([sample.input_ids])).logits[0, :-1]
    torch.nn.functional.cross_entropy(logits, torch.tensor(sample.labels[1:])).backward()
    return {name: p.grad.double() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_those_that_bitsandbytes_stores(
    kind: Quantization, precision: Any, base: ModelConfiguration
) -> None:
    plain = models.load_model(base)
    expected = quantized(base, kind).dequantize(torch.float32)

    model = models.load_model(replace(base, quantization=kind, precision=precision))

    found, stored = dict(model.named_parameters()), dict(expected.named_parameters())
    assert found.keys() == stored.keys()
    for name, weight in found.items():
        assert weight.dtype == models.loading.DTYPES[precision]
        assert torch.equal(weight, stored[name].to(weight.dtype))
    changed = [name for name, weight in plain.named_parameters() if not torch.equal(weight, stored[name])]
    assert changed
    assert all("_proj" in name for name in changed), "norms, embedding and head are not quantized"


@pytest.mark.parametrize("kind", KINDS)
def test_quantized_files_are_loaded_as_they_are(kind: Quantization, base: ModelConfiguration, tmp_path: Path) -> None:
    quantized(base, kind).save_pretrained(tmp_path / "quantized")
    stored = replace(base, name=str(tmp_path / "quantized"))

    model, expected = models.load_model(stored), models.load_model(replace(base, quantization=kind))

    assert all(map(torch.equal, model.parameters(), expected.parameters()))
    assert models.parameter_shapes(stored) == models.parameter_shapes(base)
    with pytest.raises(ModelError, match=r"its weights are quantized already; remove `model\.quantization`"):
        models.parameter_shapes(replace(stored, quantization=kind))


def test_other_quantizations_are_refused(base: ModelConfiguration) -> None:
    path = Path(base.name) / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": {"quant_method": "gptq"}}))

    uses: list[Callable[[ModelConfiguration], object]] = [models.load_model, models.parameter_shapes]
    for use in uses:
        with pytest.raises(ModelError, match="its weights are quantized with gptq; choose weights that are not"):
            use(base)


def test_the_package_is_needed(base: ModelConfiguration, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradsim.models.quantization.is_bitsandbytes_available", lambda: False)

    with pytest.raises(ModelError, match=r"need the package bitsandbytes; pip install 'gradsim\[quantized\]'"):
        models.load_model(replace(base, quantization="nf4"))
