"""Provenance metadata of stored files."""

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from gradsim import __version__
from gradsim.errors import VersionError

# Version of the files' format. Files of version 1 (gradsim 0.2 and earlier) have no seal and do not know their name.
SCHEMA_VERSION = 2

# Reasons in `excluded` of gradient tables. Stored files contain them: do not reword.
QUERY_LOSS = "the query's loss or gradient is not finite"
ORIGINAL_LOSS = "the original's loss or gradient is not finite"


def now() -> str:
    """Return the current UTC time in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Provenance(BaseModel):
    """Provenance of a file, stored as JSON under the key `gradsim` of its metadata.

    The validation context of a file's JSON is its path.

    Raises:
        VersionError: a later version of gradsim wrote the file.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    schema_version: int = SCHEMA_VERSION
    table: str | None = Field(None, description="name of the table below the study; unknown in version 1")
    partition: str | None = None
    fingerprint: str = Field("", description="digest of everything in the study's definition that affects the table")
    inputs: dict[str, str] = Field({}, description="data version of each input table or partition")
    data_version: str = Field("", description="digest of the rows and the model's revision")
    code_version: str = __version__
    commit: str | None = Field(None, description="git commit of the code; unknown without a checkout")
    created: str = Field(default_factory=now)
    model: str | None = None
    revision: str | None = None
    device: str | None = None
    precision: str | None = None
    format: str | None = Field(None, description="format of the dataset that the samples come from")
    excluded: dict[str, str] = Field({}, description="reason by id of each excluded sample")
    truncated: dict[str, str] = Field({}, description="what is left of each truncated sample, by id")
    layers_left_out: list[str] = Field(
        [], description="layers without rows because their gradients are only rounding noise"
    )
    files: dict[str, str] = Field(
        {}, description="SHA-256 of each file that was written beside the table, by path below the study's folder"
    )
    measured: dict[str, Any] = Field({}, description="measured cost of the computation")

    @model_validator(mode="before")
    @classmethod
    def _is_readable(cls, values: Any, info: ValidationInfo) -> Any:
        """Refuse files of later versions, and files that know their name but have no seal."""
        if info.mode != "json" or not isinstance(values, dict):
            return values
        values = {"schema_version": 1, **values}
        if isinstance(version := values["schema_version"], int) and version > SCHEMA_VERSION:
            raise VersionError(
                f"{info.context}: written by gradsim {values.get('code_version')}, in a format that gradsim "
                f"{__version__} cannot read; upgrade gradsim, or set GRADSIM_DATA to another folder"
            )
        if values.get("table") and "seal" not in values:
            raise ValueError("its seal is missing")
        return values
