"""Machine-specific settings: folders, device, secrets. They are never part of a study's definition.

Values come from the process environment, with the `.env` file in the project's root as fallback.
"""

import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeVar

from dotenv import load_dotenv
from dotenv.parser import parse_stream
from pydantic import ByteSize, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from gradsim.errors import StudyError, parsing


def project_root() -> Path:
    """Return the checkout that contains this package, or the working directory if there is no checkout."""
    checkout = Path(__file__).resolve().parents[1]
    return checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()


@cache
def code_commit() -> str | None:
    """Return the git commit of the checkout that contains this package, and whether its files were changed since.

    Without a checkout or git, as on compute nodes, the commit is unknown: None.
    """
    checkout, git = Path(__file__).resolve().parents[1], shutil.which("git")
    if git is None or not (checkout / ".git").exists():
        return None
    of_head = ("describe", "--always", "--exclude=*", "--abbrev=40", "--dirty= with uncommitted changes")
    command = [git, "--no-optional-locks", "-C", str(checkout), *of_head]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None


class Settings(BaseSettings):
    """Base class of settings read from environment variables."""

    model_config = SettingsConfigDict(extra="ignore", env_ignore_empty=True, populate_by_name=True)


AnySettings = TypeVar("AnySettings", bound=Settings)


class Environment(Settings):
    """Settings of this machine."""

    data: Path = Field(Path("data/store"), alias="GRADSIM_DATA")
    studies: Path = Field(Path("studies"), alias="GRADSIM_STUDIES")
    device: str = Field("auto", alias="MT_DEVICE")
    model_name: str | None = Field(None, alias="MT_MODEL_NAME")
    sample_size: int | None = Field(None, alias="MT_SAMPLE_SIZE", ge=1)
    memory_budget: ByteSize | None = Field(None, alias="GRADSIM_MEMORY_BUDGET", ge=1)
    openai_base_url: str | None = Field(None, alias="OPENAI_BASE_URL")
    compute: Literal["local", "slurm"] = Field("local", alias="GRADSIM_COMPUTE")
    partitions_per_job: int | None = Field(None, alias="GRADSIM_PARTITIONS_PER_JOB", ge=1)
    concurrent_jobs: int = Field(8, alias="GRADSIM_CONCURRENT_JOBS", ge=1)

    @property
    def data_root(self) -> Path:
        """Folder of all computed data; a relative `GRADSIM_DATA` is resolved against the project's root."""
        return _folder("GRADSIM_DATA", self.data)

    @property
    def studies_folder(self) -> Path:
        """Folder of the study files; a relative `GRADSIM_STUDIES` is resolved against the project's root."""
        return _folder("GRADSIM_STUDIES", self.studies)


def _folder(variable: str, path: Path) -> Path:
    try:
        return (project_root() / path.expanduser()).resolve()
    except RuntimeError as error:
        raise StudyError(f"{variable}={str(path)!r}: no such home directory; fix the path") from error


def read_environment() -> Environment:
    """Return the current settings of this machine.

    Raises:
        StudyError: A variable has an invalid value.
    """
    return read_settings(Environment)


def read_settings(kind: type[AnySettings]) -> AnySettings:
    """Return the current settings of the given class.

    Load `.env` into the process environment first, without overriding existing variables, because libraries read
    variables such as `HF_TOKEN` from there.

    Args:
        kind: Class of the settings.

    Raises:
        StudyError: A required variable is not set, a variable has an invalid value, or `.env` is malformed.
    """
    _load_dotenv(project_root() / ".env")
    try:
        return kind()
    except ValidationError as error:
        first = error.errors()[0]
        variable = first["loc"][0]
        if first["type"] == "missing":
            raise StudyError(f"{variable} is not set; set it in .env or the environment") from error
        size = first["type"].startswith("byte_size")
        ours = first["type"] == "value_error"
        said = first["msg"].removeprefix("Value error, ") if ours else first["msg"].removeprefix("Input ").split(",")[0]
        need = "should be a size such as 4GiB" if size else said
        raise StudyError(
            f"{variable}={first['input']!r} in the environment or .env {need}; correct or unset it"
        ) from error


def _load_dotenv(path: Path) -> None:
    """Load a file that may not exist; unlike python-dotenv alone, raise an error for every malformed line."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise StudyError(f"{path}, line {line}: not UTF-8 text; save the file as such") from error
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror}); make it a readable file or rename it") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise StudyError(f"{path}, line {line}: contains a null character; remove it")
    for binding in parse_stream(StringIO(text)):
        if binding.error or "=" in (binding.key or ""):
            content = binding.original.string
            blank_lines = content[: len(content) - len(content.lstrip())].count("\n")
            raise StudyError(
                f"{path}, line {binding.original.line + blank_lines}: not NAME=value; correct or remove it"
            )
    with parsing(StudyError, f"{path}: cannot be put into the environment", "correct its values"):
        load_dotenv(stream=StringIO(text), override=False)


# glibc returns freed memory to the system and requests it again in the next pass, which costs up to 9 µs per 4 KiB page
# on virtual machines. These settings keep it: trim nothing, map no block separately, and grow the heap by 64 MiB.
KEEP_FREED_MEMORY: Mapping[str, str] = {
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TOP_PAD_": str(1 << 26),
}

JOB_VARIABLES: Mapping[str, str] = {**KEEP_FREED_MEMORY, "OMP_WAIT_POLICY": "PASSIVE"}
"""Defaults of a process that computes gradients. Threads that wait actively would slow down every other process."""


@cache
def extensions(
    kind: Literal["query_methods", "projection_kinds", "dataset_formats", "analyses", "quality_checks"],
) -> Mapping[str, EntryPoint]:
    """Return what installed packages add to this project: entry points of the group `gradsim.KIND`, by name.

    Raises:
        StudyError: two packages add the same name.
    """
    found: dict[str, EntryPoint] = {}
    for each in entry_points(group=f"gradsim.{kind}"):
        if found.setdefault(each.name, each).value != each.value:
            raise StudyError(
                f"two packages add {each.name!r} to gradsim.{kind}: {found[each.name].value} and {each.value}; "
                "uninstall one"
            )
    return MappingProxyType(found)
