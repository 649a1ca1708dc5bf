"""PEFT adapters: their files, and models with an adapter."""

import importlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from gradsim.errors import ModelError, parsing
from gradsim.models.fetching import ADAPTER_FILE, Fetched, fetch_files
from gradsim.models.quantization import hide_warnings
from gradsim.study import LoRA

if TYPE_CHECKING:
    from peft import PeftModel

_WEIGHTS = "adapter_model.safetensors"
_PICKLED = "adapter_model.bin"


def fetch_adapter(name: str, revision: str | None = None, *, weights: bool = True) -> Fetched:
    """Return an adapter's folder, after downloading missing files from the Hub.

    Args:
        name: local folder, or name on the Hub.
        revision: commit, tag or branch on the Hub; ignored for a local folder.
        weights: whether to download and require the weights, too.

    Raises:
        ModelError: The adapter is not available, or lacks its configuration or weights as safetensors.
    """
    found = fetch_files(name, revision, (ADAPTER_FILE, *([_WEIGHTS] if weights else [])), kind="adapter")
    if not (found.folder / ADAPTER_FILE).is_file():
        raise ModelError(
            f"adapter {name}: {found.folder} contains no {ADAPTER_FILE}; set `model.adapter` to an adapter"
        )
    if weights and not (found.folder / _WEIGHTS).is_file():
        fix = "save it as safetensors" if (found.folder / _PICKLED).is_file() else "download or train it again"
        raise ModelError(f"adapter {name}: {found.folder} contains no {_WEIGHTS}; {fix}")
    return found


def with_adapter(model: PreTrainedModel, folder: Path, name: str, base: str) -> PreTrainedModel:
    """Return a model with an adapter, whose parameters are the only trainable ones.

    The adapter's weights are loaded unless the model is on the `meta` device.

    Args:
        model: base model; changed in place.
        folder: folder of the adapter.
        name: name of the adapter in error messages.
        base: name of the base model.

    Raises:
        ModelError: The package peft is not installed, or the adapter is malformed, is for another base model, or does
            not change layers of the model.
    """
    peft = _peft(f"adapter {name}")
    with parsing(ModelError, f"adapter {name}: cannot be read", f"check {folder / ADAPTER_FILE}"):
        configuration = peft.PeftConfig.from_pretrained(str(folder))
    if configuration.is_prompt_learning:
        raise ModelError(
            f"adapter {name}: {configuration.peft_type.value} adds tokens instead of weights; use one that changes "
            "layers, such as LoRA"
        )
    _require_base(configuration.base_model_name_or_path, base, name)
    configuration.inference_mode = False  # it would freeze the adapter
    configuration.base_model_name_or_path = model.name_or_path
    with (
        parsing(ModelError, f"adapter {name}: does not fit model {base}", "use the model that it was trained on"),
        warnings.catch_warnings(action="ignore", category=FutureWarning),  # of transformers, about calls in PEFT
    ):
        adapted: Any = peft.get_peft_model(model, configuration, autocast_adapter_dtype=False)
        if model.device.type != "meta":
            weights = load_file(folder / _WEIGHTS)
            report: Any = peft.set_peft_model_state_dict(adapted, weights)
            trainable = {key for key, parameter in adapted.named_parameters() if parameter.requires_grad}
            if left := min((*trainable.intersection(report.missing_keys), *report.unexpected_keys), default=None):
                raise ValueError(f"{left} is only in one of them")
    ready: PreTrainedModel = adapted.get_base_model()
    return ready


def with_new_adapter(model: PreTrainedModel, lora: LoRA, base: str) -> "PeftModel":
    """Return a PEFT model with a new LoRA adapter, whose parameters are the only trainable ones.

    Its matrices A are random and its matrices B are zero, so that it does not change the base model's output yet.

    Args:
        model: base model; changed in place.
        lora: size and place of the adapter.
        base: name of the base model.

    Raises:
        ModelError: The package peft is not installed, or the model has no module that the adapter names.
    """
    peft = _peft("model.finetune.lora")
    configuration = peft.LoraConfig(
        base_model_name_or_path=model.name_or_path,
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=list(lora.targets) if lora.targets else "all-linear",
        task_type="CAUSAL_LM",
    )
    with (
        parsing(ModelError, f"model.finetune.lora: does not fit model {base}", "correct `targets`"),
        warnings.catch_warnings(action="ignore"),  # of what PEFT corrects by itself
        torch.device(model.device),
    ):
        adapted: PeftModel = peft.get_peft_model(model, configuration, autocast_adapter_dtype=False)
    # As saved: the name instead of the folder of this machine, and modules in a fixed order instead of a set.
    configuration.base_model_name_or_path = base
    configuration.target_modules = sorted(configuration.target_modules)
    return adapted


def _peft(what: str) -> Any:
    """Return the module peft, which is optional and slow to import."""
    hide_warnings()
    try:
        return importlib.import_module("peft")
    except ImportError as error:
        raise ModelError(f"{what}: needs the package peft; pip install 'gradsim[adapters]'") from error


def _require_base(trained_on: str | None, base: str, name: str) -> None:
    """Require that an adapter was trained on a base model, if both are named as on the Hub."""
    names = [each for each in (trained_on, base) if each and each.count("/") == 1 and not Path(each).exists()]
    if len(names) == 2 and names[0].lower() != names[1].lower():
        raise ModelError(f"adapter {name}: was trained on {trained_on}, not on {base}; set `model.name: {trained_on}`")
