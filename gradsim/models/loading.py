"""Loading a causal language model onto a device, and what is known of it before that."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from gradsim.errors import DeviceError, ModelError
from gradsim.models.fetching import fetch, first_line, read_configuration
from gradsim.study import ModelConfiguration

_PRECISIONS = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}


def resolve_device(device: str) -> str:
    """The device that `device` (cpu, cuda, cuda:N or auto) means here: cpu or cuda:N.

    Raises:
        DeviceError: it is not there.
    """
    there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if device == "auto":
        return there[min(1, len(there) - 1)]
    wanted = "cuda:0" if device == "cuda" else device
    if wanted not in there:
        raise DeviceError(
            f"device {device!r} is not there, only {', '.join(there)}; set MT_DEVICE to one of these, or to auto"
        )
    return wanted


def load_model(configuration: ModelConfiguration) -> PreTrainedModel:
    """Loads a model onto its device, in eval mode.

    Raises:
        DeviceError: its device is not there; found before anything is read.
        ModelError: it cannot be had or loaded, or its weights are not all there.
    """
    device = resolve_device(configuration.device)
    folder, revision = fetch(configuration.name, configuration.revision)
    if Path(configuration.name).is_dir() and configuration.revision not in {None, revision}:
        raise ModelError(
            f"model {configuration.name}: its files are of revision {revision[:12]}, not {configuration.revision[:12]} "
            "as the study's `model` table says; restore them, or delete that table and run again"
        )
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=_PRECISIONS[configuration.precision],
            attn_implementation=configuration.attention,
            output_loading_info=True,
        )
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"model {configuration.name}: cannot be loaded ({first_line(error)}); check its files and `attention`"
        ) from error
    model, report = loaded
    if report["missing_keys"]:  # transformers would leave these at random
        raise ModelError(
            f"model {configuration.name}: its weights lack {min(report['missing_keys'])}; download or train it again"
        )
    ready: PreTrainedModel = model.to(device).eval()
    return ready


def parameter_shapes(name: str, revision: str | None = None) -> list[tuple[str, tuple[int, ...]]]:
    """Layers and their shapes in the order of `named_parameters()`, tied ones once; reads no weights.

    Raises:
        ModelError: a model that cannot be had, or is no causal language model.
    """
    configuration = read_configuration(name, revision)
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(configuration)
    except ValueError as error:
        raise ModelError(
            f"model {name}: cannot be built as a causal language model ({first_line(error)}); choose another"
        ) from error
    return [(layer, tuple(parameter.shape)) for layer, parameter in model.named_parameters()]


def context_length(configuration: PreTrainedConfig) -> int | None:
    """The longest input in tokens that a model is made for; None where its configuration names none."""
    length = getattr(configuration.get_text_config(), "max_position_embeddings", None)
    return length if isinstance(length, int) and length > 0 else None


def has_rotary_positions(configuration: PreTrainedConfig) -> bool:
    """Whether positions are rotary and computed as needed, so that inputs may exceed the context.

    A model that looks positions up in a table of the context's length, as GPT-2 and GPT-J do, cannot go past it.
    """
    return getattr(configuration.get_text_config(), "rope_parameters", None) is not None
