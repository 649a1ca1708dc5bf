"""Base class of the sections of a study file."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo
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
