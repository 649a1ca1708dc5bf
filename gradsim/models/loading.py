"""Loading a causal language model onto a device, and what is known of it before that."""

import platform
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from gradsim.errors import DeviceError, ModelError
from gradsim.models.fetching import fetch, first_line, read_configuration
from gradsim.models.weights import require_matching_weights
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


def device_name(device: str) -> str:
    """Return the model of a device (cpu or cuda:N), and the number of threads of a processor."""
    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'s' * (threads > 1)}"


def _processor() -> str:
    """Return the processor's model, which Linux tells in `/proc/cpuinfo`."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(models), "") or platform.processor() or platform.machine()


def load_model(configuration: ModelConfiguration) -> PreTrainedModel:
    """Load a model onto its device, in eval mode.

    Raises:
        DeviceError: its device is not there; found before anything is read.
        ModelError: it cannot be had or loaded, or its weights are not those of its configuration.
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
            **_choices(configuration.precision, configuration.attention),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
        )
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            _no_attention(configuration.name, configuration.attention, error)
            or f"model {configuration.name}: cannot be loaded ({first_line(error)}); check its files and `attention`"
        ) from error
    model, report = loaded
    require_matching_weights(model, report, configuration.name)
    ready: PreTrainedModel = model.to(device).eval()
    return ready


def parameter_shapes(
    name: str, revision: str | None = None, *, precision: str = "float32", attention: str = "sdpa"
) -> list[tuple[str, tuple[int, ...]]]:
    """Return layers and their shapes in the order of `named_parameters()`, tied ones once; reads no weights.

    Args:
        name: a local folder, or a name on the Hub.
        revision: the Hub's commit, tag or branch.
        precision: as in `build_without_weights`.
        attention: as in `build_without_weights`.

    Raises:
        ModelError: a model that cannot be had, is no causal language model, or knows no such attention.
    """
    configuration = read_configuration(name, revision)
    model = build_without_weights(configuration, name, precision=precision, attention=attention)
    return [(layer, tuple(parameter.shape)) for layer, parameter in model.named_parameters()]


def build_without_weights(
    configuration: PreTrainedConfig, name: str, *, precision: str = "float32", attention: str = "sdpa"
) -> PreTrainedModel:
    """Return the model of a configuration on the `meta` device: modules and shapes, no weights.

    Args:
        configuration: of the model.
        name: what errors call it.
        precision: of its parameters.
        attention: the attention implementation.

    Raises:
        ModelError: it is no causal language model, or knows no such attention.
    """
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(configuration, **_choices(precision, attention))
    except (ValueError, ImportError) as error:
        raise ModelError(
            _no_attention(name, attention, error)
            or f"model {name}: cannot be built as a causal language model ({first_line(error)}); choose another"
        ) from error
    ready: PreTrainedModel = model.eval()
    return ready


def _choices(precision: str, attention: str) -> dict[str, Any]:
    """Return how transformers builds a model, with its weights or without."""
    return {"dtype": _PRECISIONS[precision], "attn_implementation": attention}


def _no_attention(name: str, attention: str, error: Exception) -> str | None:
    """Return what to say of a family that lacks an attention implementation; None where the error is another one."""
    if "does not support an attention implementation" not in str(error):
        return None
    return f"model {name}: its family has no {attention} attention; set `model.attention: eager` in the study file"
