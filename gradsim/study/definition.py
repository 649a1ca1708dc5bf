"""Pydantic models of a study file's sections: everything that affects results, and nothing else."""

import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, Tag, model_validator
from pydantic_core import PydanticKnownError

from gradsim.environment import extensions
from gradsim.errors import enumerated
from gradsim.study.chat import Chat, TemplateName, Truncation
from gradsim.study.datasets import FileDataset, HubDataset, ImportedDataset, SearchedPart
from gradsim.study.layers import Layers
from gradsim.study.model_configuration import ADAPTED, ModelConfiguration
from gradsim.study.partitions import Partition, partition_ranges
from gradsim.study.section import Section, told_apart_by
from gradsim.study.settings import Imported, Setting
from gradsim.study.studied_model import HubModel, ImportedModel, Model, ReferenceModel

# Pattern of study and setting names, which become names of folders, assets and steps.
NAME = "[A-Za-z0-9_]+"


Dataset = Annotated[
    Annotated[HubDataset, Tag("HubDataset")]
    | Annotated[FileDataset, Tag("FileDataset")]
    | Annotated[ImportedDataset, Tag("ImportedDataset")],
    told_apart_by(hub="HubDataset", path="FileDataset", imported="ImportedDataset"),
]


MOST_PARTITIONS = 100_000  # recommended by Dagster for an asset

PROJECTION_KINDS = ("sjlt", "logra", "srht", "mask", "rademacher", "traker")


def _known_kind(kind: str) -> str:
    kinds = [*PROJECTION_KINDS, *extensions("projection_kinds")]
    if kind not in kinds:
        raise PydanticKnownError("literal_error", {"expected": enumerated(list(map(repr, kinds)), "or")})
    return kind


class Projection(Section):
    """A random projection of the gradients; exactly one of `share`, `total` and `dimensions` sets its size."""

    kind: Annotated[str, AfterValidator(_known_kind)] = "sjlt"
    share: float | None = Field(None, gt=0, le=1, description="dimensions per parameter of each layer, as published")
    total: int | None = Field(None, ge=1, description="total dimensions, distributed in proportion to layer sizes")
    dimensions: dict[str, int] | None = Field(None, description="dimensions by layer, for every layer")
    nonzeros: int = Field(1, ge=1, description="nonzeros per column of an sjlt matrix")
    scaling: Literal["unbiased", "as_published"] = Field(
        "unbiased", description="as_published: weight each layer by its dimensions"
    )
    store_projected: bool = Field(False, description="store the originals' projected gradients for `gradsim query`")
    stored_format: Literal["float16", "float32"] = "float16"

    @property
    def method(self) -> str:
        """Name without dimensions: `sjlt`, `sjlt_4_nonzeros`, `rademacher_as_published`."""
        return self._numbers + ("_as_published" if self.scaling == "as_published" else "")

    @property
    def _numbers(self) -> str:
        """Name of the method without its scaling, which does not affect the projected gradients."""
        return self.kind + (f"_{self.nonzeros}_nonzeros" if self.nonzeros > 1 else "")

    @property
    def name(self) -> str:
        """Name with dimensions, without scaling: `sjlt_1pct`, `logra_total_5000`, `mask_by_layer_1a2b3c4d`."""
        if self.share is not None:
            size = f"{100 * self.share:.12g}pct".replace(".", "_")
        elif self.total is not None:
            size = f"total_{self.total}"
        else:
            text = json.dumps(self.dimensions, sort_keys=True)
            size = f"by_layer_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        return f"{self._numbers}_{size}"

    @property
    def size(self) -> float | int | dict[str, int]:
        """Share, total, or dimensions by layer."""
        sizes = [size for size in (self.share, self.total, self.dimensions) if size is not None]
        return sizes[0]


class Study(Section):
    """One dataset, one model, and the settings to compare."""

    name: str = Field(pattern=f"^{NAME}$")
    description: str = ""
    dataset: Dataset
    samples: int = Field(ge=1, description="number of samples in the dataset")
    first_samples: int | None = Field(None, description="number of samples of a trial, from the first one on", ge=1)
    model: Model
    chat: Chat = Chat()
    layers: Layers | None = Field(None, description="layers to compare; None: all")
    settings: dict[str, Setting] = Field(min_length=1)
    top_k: Annotated[int, Field(ge=1)] | Literal["all"] = 5
    bm25_part: SearchedPart = Field("prompt", description="part of the samples by which candidates are chosen")
    projections: tuple[Projection, ...] = ()
    partition_size: int = Field(100, ge=1)
    seed: int = 42
    max_length: int | None = Field(None, ge=2, description="most tokens of a sample, beside the model's own limit")
    truncate: Truncation = Field("none", description="side on which tokens beyond the limit are cut off")
    on_long_sample: Literal["error", "exclude", "keep"] = "error"
    on_bad_sample: Literal["error", "exclude"] = "error"

    @model_validator(mode="after")
    def _setting_names_are_usable(self) -> Self:
        for name in self.settings:
            if not re.fullmatch(NAME, name) or name in RESERVED_NAMES:
                raise ValueError(
                    f"settings: '{name}' cannot be a setting's name; use letters, digits and underscores, "
                    f"and none of {', '.join(sorted(RESERVED_NAMES))}"
                )
        return self

    @model_validator(mode="after")
    def _prompts_are_there(self) -> Self:
        rewritten = [name for name, setting in self.settings.items() if setting.source is None]
        for name, setting in self.settings.items():
            if setting.source is not None and setting.source not in rewritten:
                fix = f"choose among {', '.join(rewritten)}" if rewritten else "add one"
                raise ValueError(
                    f"settings.{name}.prompts: '{setting.source}' is not a setting with rewritten prompts; {fix}"
                )
        return self

    @model_validator(mode="after")
    def _projections_make_sense(self) -> Self:
        for place, each in enumerate(self.projections):
            given = [key for key in ("share", "total", "dimensions") if getattr(each, key) is not None]
            if len(given) != 1:
                said = f"has both {' and '.join(given)}; keep one" if given else "has no dimensions"
                fix = "" if given else "; set share, total or dimensions"
                raise ValueError(f"projections.{place}: {said}{fix}")
            if each.nonzeros > 1 and each.kind != "sjlt":
                raise ValueError(f"projections.{place}.nonzeros: not supported by kind {each.kind}; remove it")
        if len({(each.name, each.scaling) for each in self.projections}) < len(self.projections):
            raise ValueError("projections: one is a duplicate; remove it")
        if sum(each.store_projected for each in self.projections) > 1:
            raise ValueError("projections: store_projected is set on more than one; set it on one only")
        return self

    @model_validator(mode="after")
    def _partitions_are_manageable(self) -> Self:
        if self.samples > MOST_PARTITIONS * self.partition_size:
            least = math.ceil(self.samples / MOST_PARTITIONS)
            raise ValueError(
                f"partition_size: {self.partition_size:,} makes more than {MOST_PARTITIONS:,} partitions of "
                f"{self.samples:,} samples; use at least {least:,}"
            )
        return self

    @model_validator(mode="after")
    def _lengths_make_sense(self) -> Self:
        if self.max_length is not None and (self.on_long_sample, self.truncate) == ("keep", "none"):
            raise ValueError(
                "max_length: has no effect where on_long_sample is keep; set truncate, or on_long_sample to exclude"
            )
        return self

    @property
    def length_limit(self) -> dict[str, Any]:
        """`max_length` and `truncate`, if they are set."""
        return self.model_dump(include={"max_length", "truncate"}, exclude_defaults=True)

    @model_validator(mode="after")
    def _imported_as_a_whole(self) -> Self:
        kinds = (ImportedDataset, ImportedModel, Imported)
        parts = [isinstance(part, kinds) for part in (self.dataset, self.model, *self.settings.values())]
        if any(parts) and not all(parts):
            raise ValueError("imported and other sections cannot be combined; import the results again")
        return self

    @model_validator(mode="after")
    def _chat_fits_the_model(self) -> Self:
        if isinstance(self.model, ReferenceModel) and self.chat.template not in (None, "tulu"):
            raise ValueError("chat.template: a reference model is trained with the tulu template; remove it")
        if self.template == "tulu" and self.chat.loss_on != "last_answer":
            raise ValueError("chat.loss_on: the tulu template supports last_answer; set another chat.template")
        return self

    @property
    def template(self) -> TemplateName:
        """Chat template: tulu, or that of the model's tokenizer, which `chat.template` can replace by a file's."""
        if self.chat.template is None:
            return "tulu" if isinstance(self.model, ReferenceModel | ImportedModel) else "model"
        return "tulu" if self.chat.template == "tulu" else "model"

    def model_configuration(
        self, revision: str | None, folder: Path | None = None, device: str = "auto"
    ) -> ModelConfiguration:
        """Return what a process needs to load the studied model and its tokenizer.

        Args:
            revision: revision of the model; with an adapter, both revisions as in the table `model`.
            folder: folder of the model or the adapter that the study trains; None: it trains none.
            device: device of the model.

        Raises:
            StudyError: The file of the chat template cannot be read.
        """
        model = self.model
        common = ModelConfiguration("", revision, device, model.precision, model.attention, self.chat.file_text())
        if not isinstance(model, HubModel) or (model.finetune and not model.finetune.lora):
            return replace(common, name=str(folder))
        named = replace(common, name=model.name, gguf=model.gguf, quantization=model.quantization)
        adapter = str(folder) if model.finetune else model.adapter
        if adapter is None:
            return named
        of_base, _, of_adapter = (revision or "").partition(ADAPTED)
        return replace(
            named,
            revision=of_base or None,
            adapter=adapter,
            adapter_revision=of_adapter or model.adapter_revision,
        )

    def start_configuration(self, device: str = "auto") -> ModelConfiguration:
        """Return what a process needs to load the model of the Hub or a folder as it is before any fine-tuning.

        Raises:
            StudyError: The file of the chat template cannot be read.
        """
        model = self.model
        assert isinstance(model, HubModel)
        pretrained = self.model_copy(update={"model": model.model_copy(update={"finetune": None})})
        return pretrained.model_configuration(model.revision, device=device)

    @property
    def imported(self) -> bool:
        """Whether the tables were imported; such a study has no texts and no model to run."""
        return isinstance(self.dataset, ImportedDataset)

    @property
    def size(self) -> int:
        """Number of loaded samples, before any exclusion."""
        return min(self.samples, self.first_samples or self.samples)

    @property
    def projected(self) -> tuple[Projection, ...]:
        """Projections to compute, without duplicates that differ only in scaling; all unbiased."""
        unbiased = {each.name: each.model_copy(update={"scaling": "unbiased"}) for each in reversed(self.projections)}
        return tuple(unbiased[name] for name in dict.fromkeys(each.name for each in self.projections))

    @property
    def stored_projection(self) -> Projection | None:
        """The projection with `store_projected`, if any."""
        stored = [each for each in self.projections if each.store_projected]
        return stored[0] if stored else None

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """Partitions of the query positions, in order."""
        return partition_ranges(self.size, self.partition_size)

    def ordered_settings(self) -> Iterator[tuple[str, Setting]]:
        """Yield the settings so that each follows the setting that it takes its prompts from."""
        yield from sorted(self.settings.items(), key=lambda item: item[1].source is not None)


# Names of tables and folders beside the settings' folders.
RESERVED_NAMES = frozenset(
    {"samples", "model", "layers", "tokenized", "projections", "gradient_index", "analysis", "results", "report"}
)
