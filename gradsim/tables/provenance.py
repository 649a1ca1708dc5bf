"""What a stored file says of how it came to be."""

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from gradsim import __version__

# Why a sample has no row in a gradient table, as `excluded` says it.
QUERY_LOSS = "the query's loss or gradient is not finite"
ORIGINAL_LOSS = "the original's loss or gradient is not finite"


def now() -> str:
    """The time of this moment in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Provenance(BaseModel):
    """Kept in the metadata of every file, as JSON under the key `gradsim`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    fingerprint: str = Field("", description="digest of all of the study's definition that bears on the table")
    inputs: dict[str, str] = Field({}, description="table or partition -> data version it was made from")
    data_version: str = Field("", description="digest of the rows and the model's revision")
    code_version: str = __version__
    created: str = Field(default_factory=now)
    model: str | None = None
    revision: str | None = None
    device: str | None = None
    precision: str | None = None
    excluded: dict[str, str] = Field({}, description="id of a sample left out -> why")
    layers_left_out: list[str] = Field(
        [], description="layers that the table leaves out, because they hold only rounding"
    )
    measured: dict[str, Any] = Field({}, description="what the computation cost")
