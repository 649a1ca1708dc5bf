"""Sections of a study file that describe the studied model."""

from typing import Annotated, Literal, Self

from pydantic import Field, Tag, model_validator

from gradsim.study.model_configuration import GGUFName, OptionalName, PrecisionName, Quantization
from gradsim.study.section import Section, StudyPath, told_apart_by


class Training(Section):
    """Length of the training of a model on the study's originals."""

    steps: int = Field(ge=1, description="number of updates")
    tokens_per_step: int = Field(4096, ge=1, description="most tokens of an update, including padding")


class RunsModel(Section):
    """Execution settings of the studied model that affect results."""

    precision: PrecisionName = "float32"
    precision_of_memorised: Literal["float64"] | None = Field(
        None, description="precision in which samples with a mean loss below 0.5 are recomputed"
    )
    attention: Literal["sdpa", "eager"] = "sdpa"

    @property
    def training(self) -> Training | None:
        """Training of the model by the study; None: it does not train it."""
        return None


class LoRA(Section):
    """A LoRA adapter on the linear layers of a model."""

    rank: int = Field(8, ge=1)
    alpha: float = Field(16, gt=0, description="the adapter's output is scaled by alpha / rank")
    targets: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="names of modules to adapt, such as q_proj; None: all linear layers but the head",
    )


class Finetune(Training):
    """Training of a pretrained model before it is studied."""

    learning_rate: float = Field(gt=0, le=1, description="highest learning rate")
    seed: int | None = Field(None, ge=0, lt=1 << 53, description="seed of the order of samples; None: the study's")
    lora: LoRA | None = Field(None, description="adapter to train; None: all weights are trained")


class HubModel(RunsModel):
    """A causal language model from the Hugging Face Hub or a local folder."""

    name: str
    revision: str | None = None
    gguf: GGUFName = None
    quantization: Quantization | None = Field(
        None, exclude_if=lambda value: value is None, description="how bitsandbytes quantizes the weights on loading"
    )
    adapter: OptionalName = Field(None, description="local folder or Hub name of a PEFT adapter")
    adapter_revision: OptionalName = None
    finetune: Finetune | None = Field(None, exclude_if=lambda value: value is None)

    @model_validator(mode="after")
    def _possible_together(self) -> Self:
        if self.finetune and self.adapter:
            raise ValueError("model.finetune: not supported with model.adapter; remove one")
        if self.gguf and self.quantization:
            raise ValueError(
                "model.quantization: not supported with model.gguf, which is quantized already; remove one"
            )
        return self

    @property
    def training(self) -> Finetune | None:
        """See `RunsModel.training`."""
        return self.finetune


class Architecture(Training):
    """Size and training of a tiny OLMo-style model."""

    layers: int = Field(3, ge=1)
    hidden_size: int = Field(128, ge=8)
    heads: int = Field(4, ge=1)
    vocabulary: int = Field(2048, ge=300)
    tokenizer: StudyPath | None = Field(None, description="existing tokenizer; None: train one")
    positions: int = Field(2048, ge=16)
    steps: int = Field(200, ge=1)
    tokens_per_step: int = Field(1024, ge=1)


class ReferenceModel(RunsModel):
    """A tiny model that is trained on the study's originals."""

    reference: Architecture

    @property
    def training(self) -> Architecture:
        """See `RunsModel.training`."""
        return self.reference


class ImportedModel(RunsModel):
    """The model of imported results; it cannot be run."""

    imported: str = Field(description="name of the model in the results")


Model = Annotated[
    Annotated[HubModel, Tag("HubModel")]
    | Annotated[ReferenceModel, Tag("ReferenceModel")]
    | Annotated[ImportedModel, Tag("ImportedModel")],
    told_apart_by(name="HubModel", reference="ReferenceModel", imported="ImportedModel"),
]
