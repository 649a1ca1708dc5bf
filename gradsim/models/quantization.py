"""Models whose weights bitsandbytes quantizes, on loading or in their files."""

import logging
from collections.abc import Mapping
from typing import Any

from transformers import BitsAndBytesConfig
from transformers.utils.import_utils import is_bitsandbytes_available

from gradsim.errors import ModelError
from gradsim.study.model_configuration import Quantization

_METHOD = "bitsandbytes"

_CHOICES: Mapping[Quantization, Mapping[str, Any]] = {
    "int8": {"load_in_8bit": True},
    "fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "nf4_double": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
}


def is_quantized(content: Mapping[str, Any], chosen: Quantization | None, name: str) -> bool:
    """Return whether a model is loaded with quantized weights.

    Args:
        content: contents of the model's config.json, which says whether its files are quantized.
        chosen: quantization on loading; None: none.
        name: name of the model in error messages.

    Raises:
        ModelError: Its files are quantized by another method than that of bitsandbytes, or are quantized and would be
            quantized again.
    """
    method = (content.get("quantization_config") or {}).get("quant_method")
    if method not in {None, _METHOD}:
        raise ModelError(
            f"model {name}: its weights are quantized with {method}; choose weights that are not quantized, or with "
            f"{_METHOD}"
        )
    if method and chosen:
        raise ModelError(f"model {name}: its weights are quantized already; remove `model.quantization`")
    return bool(method or chosen)


def quantization_on_loading(chosen: Quantization | None, name: str) -> dict[str, BitsAndBytesConfig]:
    """Return the keyword argument by which transformers quantizes weights on loading; none for quantized files.

    Raises:
        ModelError: The package bitsandbytes is not installed.
    """
    if not is_bitsandbytes_available():
        raise ModelError(
            f"model {name}: quantized weights need the package bitsandbytes; pip install 'gradsim[quantized]'"
        )
    hide_warnings()
    return {"quantization_config": BitsAndBytesConfig(**_CHOICES[chosen])} if chosen else {}


def hide_warnings() -> None:
    """Hide the warnings of bitsandbytes on import, also by PEFT, and of transformers on unpacking its weights."""
    for logger in (_METHOD, "transformers.integrations.bitsandbytes"):
        logging.getLogger(logger).setLevel(logging.ERROR)
