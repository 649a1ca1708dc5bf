"""Configuration of a model to load: its name, device, precision and attention."""

from dataclasses import dataclass
from typing import Literal

PrecisionName = Literal["float32", "tf32", "bfloat16", "float64"]


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
    """

    name: str
    revision: str | None = None
    device: str = "auto"
    precision: PrecisionName = "float32"
    attention: str = "sdpa"
    chat_template: str | None = None
