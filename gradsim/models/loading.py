"""Loading of causal language models onto a device, and inspection of models without loading their weights."""

import math
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import nn
from transformers import AutoModelForCausalLM, GgufConfig, PreTrainedConfig, PreTrainedModel

from gradsim.errors import DeviceError, ModelError, parsing
from gradsim.models.adapter import fetch_adapter, with_adapter
from gradsim.models.fetching import fetch, gguf_choices, read_configuration
from gradsim.models.quantization import is_quantized, quantization_on_loading
from gradsim.models.weights import require_matching_weights
from gradsim.study import Layers, ModelConfiguration
from gradsim.study.model_configuration import PrecisionName

DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}


def resolve_device(device: str) -> str:
    """Resolve a device name (cpu, cuda, cuda:N or auto) to cpu or cuda:N.

    Raises:
        DeviceError: The device is not available.
    """
    there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if device == "auto":
        return there[min(1, len(there) - 1)]
    wanted = "cuda:0" if device == "cuda" else device
    if wanted not in there:
        raise DeviceError(
            f"device {device!r} is not available, only {', '.join(there)}; set MT_DEVICE to one of these, or to auto"
        )
    return wanted


def device_name(device: str) -> str:
    """Return the hardware model of a device (cpu or cuda:N), with the number of threads for a CPU."""
    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'s' * (threads > 1)}"


def _processor() -> str:
    """Return the CPU model, from `/proc/cpuinfo` on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(models), "") or platform.processor() or platform.machine()


def load_model(configuration: ModelConfiguration) -> PreTrainedModel:
    """Load a model onto its device, in eval mode.

    Raises:
        DeviceError: The device is not available; raised before any file is read.
        ModelError: The model is not available or cannot be loaded, its files differ from the recorded revision, or its
            weights do not match its configuration.
    """
    device = resolve_device(configuration.device)
    name, attention, gguf = configuration.name, configuration.attention, configuration.gguf
    folder, revision = fetch(name, configuration.revision, gguf=gguf)
    _require_revision(name, revision, configuration.revision)
    choices = _choices(configuration.precision, attention)
    quantized = gguf is None and is_quantized(
        read_configuration(name, configuration.revision).to_dict(), configuration.quantization, name
    )
    if gguf:
        choices["quantization_config"] = GgufConfig(dequantize=True)
    elif quantized:
        choices |= {"dtype": torch.float32, "device_map": {"": device}}
        choices |= quantization_on_loading(configuration.quantization, name)
    with (
        parsing(ModelError, f"model {name}: cannot be loaded", f"check its files in {folder} and `attention`"),
        _naming_attention(name, attention),
    ):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            **choices,
            **gguf_choices(gguf),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # rejected below, with their names
            trust_remote_code=False,
            use_safetensors=True,
        )
    model, report = loaded
    require_matching_weights(model, report, name)
    if quantized:
        dtype = DTYPES[configuration.precision]
        model = model.dequantize(dtype).to(dtype)
    if configuration.adapter:
        adapter, revision = fetch_adapter(configuration.adapter, configuration.adapter_revision)
        _require_revision(configuration.adapter, revision, configuration.adapter_revision)
        model = with_adapter(model, adapter, configuration.adapter, name)
    ready: PreTrainedModel = model.to(device).eval()
    return ready


def _require_revision(name: str, found: str, recorded: str | None) -> None:
    """Require that a local folder has not changed since its revision was recorded."""
    if Path(name).is_dir() and recorded not in {None, found}:
        raise ModelError(
            f"model {name}: its files have revision {found[:12]}, not {recorded[:12]} as recorded in the study's "
            "`model` table; restore them, or delete that table and run again"
        )


def parameter_shapes(configuration: ModelConfiguration) -> list[tuple[str, tuple[int, ...]]]:
    """Return a model's layers and their shapes in the order of `named_parameters()`, without reading weights.

    Raises:
        ModelError: See `load_description`.
    """
    model = load_description(configuration)
    return [(layer, tuple(parameter.shape)) for layer, parameter in studied_layers(model).items()]


def layers_table(configuration: ModelConfiguration) -> pl.DataFrame:
    """Return a model's layers, one row each, with the columns `layer`, `shape` and `parameters`.

    Raises:
        ModelError: See `load_description`.
    """
    rows = [(layer, list(shape), math.prod(shape)) for layer, shape in parameter_shapes(configuration)]
    return pl.DataFrame(
        rows, schema={"layer": pl.String, "shape": pl.List(pl.Int64), "parameters": pl.Int64}, orient="row"
    )


def load_description(configuration: ModelConfiguration) -> PreTrainedModel:
    """Return a model on the `meta` device: modules and shapes, without weights.

    Raises:
        ModelError: The model is not available, is not a causal language model, is quantized in an unsupported way, or
            does not support the attention implementation; or its adapter does not fit.
    """
    name = configuration.name
    described = read_configuration(name, configuration.revision, gguf=configuration.gguf)
    is_quantized(described.to_dict(), configuration.quantization, name)
    model = build_without_weights(described, name, precision=configuration.precision, attention=configuration.attention)
    if configuration.adapter:
        folder = fetch_adapter(configuration.adapter, configuration.adapter_revision, weights=False).folder
        with torch.device("meta"):
            model = with_adapter(model, folder, configuration.adapter, name)
    return model


def studied_layers(model: PreTrainedModel, chosen: Layers | None = None) -> dict[str, nn.Parameter]:
    """Return the parameters that a study compares by name: all, those of an adapter, or the chosen ones of these.

    Raises:
        StudyError: A pattern of `chosen` matches no layer, or none is left.
    """
    adapted = hasattr(model, "peft_config")
    layers = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad or not adapted}
    return {name: layers[name] for name in chosen.of(list(layers))} if chosen else layers


def build_without_weights(
    configuration: PreTrainedConfig, name: str, *, precision: PrecisionName = "float32", attention: str = "sdpa"
) -> PreTrainedModel:
    """Build a model from its configuration on the `meta` device: modules and shapes, without weights.

    Args:
        configuration: configuration of the model.
        name: name of the model in error messages.
        precision: precision of its parameters, as in a study.
        attention: attention implementation.

    Raises:
        ModelError: The model is not a causal language model or does not support the attention implementation.
    """
    with (
        parsing(ModelError, f"model {name}: cannot be built as a causal language model", "choose another"),
        _naming_attention(name, attention),
        torch.device("meta"),
    ):
        model = AutoModelForCausalLM.from_config(
            configuration, **_choices(precision, attention), trust_remote_code=False
        )
    ready: PreTrainedModel = model.eval()
    return ready


def _choices(precision: PrecisionName, attention: str) -> dict[str, Any]:
    """Return the keyword arguments for transformers' model constructors."""
    return {"dtype": DTYPES[precision], "attn_implementation": attention}


@contextmanager
def _naming_attention(name: str, attention: str) -> Iterator[None]:
    """Turn the error for an unsupported attention implementation into one that names the key of the study."""
    try:
        yield
    except ValueError as error:
        if "does not support an attention implementation" not in str(error):
            raise
        raise ModelError(
            f"model {name}: its architecture does not support {attention} attention; "
            "set `model.attention: eager` in the study file"
        ) from error
