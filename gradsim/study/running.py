"""Which model runs, and how: a study's model section together with the machine's device."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ModelConfiguration:
    """What `gradsim.models.load_model` needs to know.

    Attributes:
        name: a local folder, or a name on the Hub.
        revision: the Hub's commit, tag or branch; None: the newest.
        device: cpu, cuda, cuda:N, or auto: the first GPU if there is one.
        precision: of the weights and so of the computation.
        attention: the attention implementation, as transformers names them.
    """

    name: str
    revision: str | None = None
    device: str = "auto"
    precision: Literal["float32", "tf32", "bfloat16", "float64"] = "float32"
    attention: str = "sdpa"
