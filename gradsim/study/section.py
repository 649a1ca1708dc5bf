"""Base class of the sections of a study file, and sections of several kinds."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, ValidationInfo
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """A section of a study file: frozen, and without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _relative_to_study_file(path: Path, info: ValidationInfo) -> Path:
    if "\0" in str(path):
        raise PydanticCustomError("path_type", "not a path")
    folder = (info.context or {}).get("folder")
    return (folder / path).resolve() if folder is not None else path


StudyPath = Annotated[Path, AfterValidator(_relative_to_study_file)]

# Pydantic error type of a section that has none of the keys that determine its kind.
NO_KIND = "no_kind"

# Key and setting method of studies created by `gradsim import-published`; not for use in study files.
IMPORTED = "imported"


def told_apart_by(**kinds: str) -> Discriminator:
    """Return a discriminator for a section of several kinds.

    Args:
        kinds: tag of each kind by a key that only this kind has.
    """

    def kind_of(value: Any) -> str | None:
        keys = value if isinstance(value, dict) else type(value).model_fields if isinstance(value, Section) else ()
        return next((tag for key, tag in kinds.items() if key in keys), None)

    return Discriminator(
        kind_of,
        custom_error_type=NO_KIND,
        custom_error_message="has none of the keys {keys}",
        custom_error_context={"keys": " ".join(key for key in kinds if key != IMPORTED)},
    )
