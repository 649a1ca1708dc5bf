"""Configuration of a model to load: its name, device, precision and attention."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

PrecisionName = Literal["float32", "tf32", "bfloat16", "float64"]

Quantization = Literal["int8", "fp4", "nf4", "nf4_double"]

ADAPTED = "+"
"""Separator of the revisions of a base model and of its adapter."""

# A key that is absent from fingerprints where it is not set, as before it existed.
OptionalName = Annotated[str | None, Field(exclude_if=lambda name: name is None)]

GGUFName = Annotated[OptionalName, Field(pattern=r"^[^/\\*?\[\]]+\.gguf$", description="GGUF file of the model")]


@dataclass(frozen=True)
class ModelConfiguration:
    """Arguments of `gradsim.models.load_model`.

    Attributes:
        name: local folder or Hub name.
        revision: commit, tag or branch on the Hub; None: the newest.
        device: cpu, cuda, cuda:N, or auto: the first GPU if there is one.
        precision: number format of the weights and of the computation.
        attention: attention implementation, as named by transformers.
        chat_template: Jinja text that replaces the tokenizer's chat template; None keeps it.
        gguf: GGUF file in the model's folder that contains weights, configuration and tokenizer; None: they are files
            of their own.
        quantization: how bitsandbytes quantizes the weights before they are unpacked to `precision`; None: not at all.
        adapter: local folder or Hub name of a PEFT adapter to add; None: none.
        adapter_revision: revision of the adapter.
    """

    name: str
    revision: str | None = None
    device: str = "auto"
    precision: PrecisionName = "float32"
    attention: str = "sdpa"
    chat_template: str | None = None
    gguf: str | None = None
    quantization: Quantization | None = None
    adapter: str | None = None
    adapter_revision: str | None = None
