"""Pydantic models of the section `dataset` of a study file."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, field_validator, model_validator

from gradsim.errors import enumerated
from gradsim.study.section import Section, StudyPath

FormatName = Literal["messages", "sharegpt", "prompt_completion", "alpaca", "text", "tokens"]
SearchedPart = Literal["prompt", "answer", "both"]
SampleKind = Literal["conversations", "text", "tokens"]

TEXT, TOKENS, MASKED_TOKENS = "text", "tokens", "masked tokens"
"""Roles of the messages of samples that are no conversations: a text as it is; token ids with and without a loss."""

TOKEN_MASKS = ("assistant_masks", "completion_mask", "loss_mask")
"""Columns that are 1 at the tokens with a loss, as TRL and others write them."""


class FormatColumns(NamedTuple):
    """Columns of a dataset format; the format fits data with the required ones."""

    required: tuple[str, ...]
    optional: tuple[str, ...] = ("id",)

    @property
    def names(self) -> tuple[str, ...]:
        """All columns."""
        return self.required + self.optional


FORMAT_COLUMNS: Mapping[FormatName, FormatColumns] = MappingProxyType(
    {
        "messages": FormatColumns(("messages",)),
        "sharegpt": FormatColumns(("conversations",)),
        "prompt_completion": FormatColumns(("prompt", "completion")),
        "alpaca": FormatColumns(("instruction", "output"), ("input", "id")),
        "text": FormatColumns(("text",)),
        "tokens": FormatColumns(
            ("input_ids",), ("labels", *TOKEN_MASKS, "attention_mask", "position_ids", "seq_lengths", "id")
        ),
    }
)


class DatasetLayout(Section):
    """The columns of a dataset, and the rows to use; by default, the format follows from the columns' names."""

    format: FormatName | None = None
    columns: dict[str, str] = Field({}, description="name in the data by column of the format")
    single_turn: bool = Field(False, description="use only conversations of one user message and its answer")

    @model_validator(mode="after")
    def _columns_are_known(self) -> Self:
        formats = [self.format] if self.format else list(FORMAT_COLUMNS)
        known = dict.fromkeys(column for name in formats for column in FORMAT_COLUMNS[name].names)
        for column in self.columns:
            if column not in known:
                raise ValueError(
                    f"dataset.columns: '{column}' is not a column of {self.format or 'a format'}; "
                    f"map {enumerated(list(known), 'or')} to names in the data"
                )
        return self


class HubDataset(DatasetLayout):
    """Samples from a Hugging Face dataset."""

    hub: str
    subset: str | None = Field(None, description="name of the configuration, for datasets with several")
    split: str = "train"
    revision: str | None = None
    where: dict[str, Any] = Field({}, description="required value by column")

    @field_validator("where")
    @classmethod
    def _values_are_scalars(cls, where: dict[str, Any]) -> dict[str, Any]:
        for column, value in where.items():
            if not isinstance(value, str | bool | int | float):
                raise ValueError(
                    f"key 'dataset.where.{column}' is {value!r}; it should be text, a number, true or false"
                )
        return where


class FileDataset(DatasetLayout):
    """Samples from a file, or from a folder that `datasets` saved."""

    path: StudyPath


class ImportedDataset(Section):
    """Samples of imported results; only their ids are known."""

    imported: str = Field(description="digest of the imported results")
