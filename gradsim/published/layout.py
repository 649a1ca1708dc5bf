"""File layout of the original study: names of folders and files, and the parts that make up a table.

A table is stored as one whole file, as parts `..._part_A_B.json`, or as both. A part holds the queries from position A
up to, but not including, position B.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from gradsim.errors import StudyError, TableError
from gradsim.study.definition import NAME, RESERVED_NAMES

# Required tables and their file names in the original study.
STEMS: Mapping[str, str] = {
    "dot_products": "dot_products",
    "query_self": "paraphrased_dot_products",
    "original_self": "original_dot_products",
}
WHOLE_STUDY = "full"  # sample size of a study that uses every sample

_PART = re.compile(r"(?P<whole>.+)_part_(?P<start>[0-9]+)_(?P<end>[0-9]+)")
_SAMPLE_SIZE = re.compile(rf"{WHOLE_STUDY}|[1-9][0-9]*")


@dataclass(frozen=True, slots=True)
class Source:
    """One file of a table.

    Attributes:
        path: Path of the file.
        queries: Positions of the queries in a part; None for a whole file.
    """

    path: Path
    queries: range | None = None


def dots_path(folder: Path, setting: str, model: str, sample_size: str, table: str) -> Path:
    """Return the path of the whole file of a table in `STEMS`."""
    return folder / "dot_products" / setting / model / "sample_size" / sample_size / f"{STEMS[table]}.json"


def similarity_path(folder: Path, setting: str, model: str, sample_size: str) -> Path:
    """Return the path of the whole file of gradient similarities."""
    return folder / "gradient_similarity" / setting / model / f"sample_size_{sample_size}.json"


def projections_paths(folder: Path, setting: str, model: str, sample_size: str) -> tuple[Path, Path]:
    """Return the path of the whole file of projected similarities, and an alternative path that is also read."""
    return (
        similarity_path(folder, f"random_projection/{setting}", model, sample_size),
        folder / "random_projection" / setting / model / f"sample_size_{sample_size}.json",
    )


def parameters_path(folder: Path, model: str) -> Path:
    """Return the path of the layer sizes, which are stored next to the data folder."""
    return folder.parent / "results" / "parameters_per_layer" / model / "values.json"


def is_sample_size(name: str) -> bool:
    """Return whether a name is a sample size: `full` or a positive number."""
    return _SAMPLE_SIZE.fullmatch(name) is not None


def is_setting(name: str) -> bool:
    """Return whether a study can have a setting of this name."""
    return re.fullmatch(NAME, name) is not None and name not in RESERVED_NAMES


def similarity_size(path: Path) -> str | None:
    """Return the sample size in the name of a whole or partial file of similarities; None for any other name."""
    part = _PART.fullmatch(path.stem)
    size = (part["whole"] if part else path.stem).removeprefix("sample_size_")
    return size if path.stem.startswith("sample_size_") and is_sample_size(size) else None


def check_names(model: str, sample_size: str, setting: str) -> None:
    """Check that a model, sample size and setting can be written as folder names.

    Raises:
        StudyError: A name is not a valid folder name, or the sample size is neither `full` nor a number.
    """
    parts = PurePosixPath(model).parts
    if not parts or model.startswith("/") or {"..", "sample_size"} & set(parts) or "/".join(parts) != model:
        raise StudyError(f"model {model!r} is not a valid folder name; use a name such as organisation/model")
    if not is_sample_size(sample_size):
        raise StudyError(f"sample size {sample_size!r} is neither {WHOLE_STUDY} nor a number; use one of these")
    if PurePosixPath(setting).parts != (setting,) or setting in ("/", ".."):
        raise StudyError(f"setting {setting!r} is not a valid folder name; use another name")


def is_stored(whole: Path) -> bool:
    """Return whether a table has any files, complete or not, given the path of its whole file."""
    return whole.is_file() or bool(_parts(whole))


def sources(whole: Path) -> tuple[Source, ...]:
    """Return the files of a table in order of precedence: the whole file, then the parts by position.

    Args:
        whole: Path of the whole file, which need not exist.

    Raises:
        TableError: The parts overlap, leave a gap, or do not start at the first query.
    """
    parts = _parts(whole)
    expected = 0
    for queries, path in parts:
        if not queries:
            raise TableError(f"{path}: the range in the file name is empty; correct the name")
        if queries.start > expected:
            missing = f"{whole.stem}_part_{expected}_{queries.start}.json"
            raise TableError(
                f"{path.parent}: {missing} is missing before {path.name}; add it, or parts that cover the same queries"
            )
        if queries.start < expected:
            raise TableError(
                f"{path}: starts at query {queries.start}, but the parts before it extend to {expected}; remove the "
                "overlapping parts, so that each query is in only one"
            )
        expected = queries.stop
    return (*([Source(whole)] if whole.is_file() else []), *(Source(path, queries) for queries, path in parts))


def _parts(whole: Path) -> list[tuple[range, Path]]:
    """Return the positions and path of each part of a table, by first position."""
    found = []
    for path in sorted(whole.parent.glob("*.json")):
        part = _PART.fullmatch(path.stem)
        if part and part["whole"] == whole.stem and path.is_file():
            found.append((range(int(part["start"]), int(part["end"])), path))
    return sorted(found, key=lambda each: each[0].start)
