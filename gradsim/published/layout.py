"""Where the original study's files lie, and which of a table's files are there.

A table is one whole file, parts of it in files `..._part_A_B.json`, or both. A part holds the queries from position A
up to, without, position B.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from gradsim.errors import StudyError, TableError
from gradsim.study.definition import NAME, RESERVED_NAMES

# Our table -> what the original calls it.
STEMS: Mapping[str, str] = {
    "dot_products": "dot_products",
    "query_self": "paraphrased_dot_products",
    "original_self": "original_dot_products",
}
WHOLE_STUDY = "full"  # the sample size of a study that left nothing out

_PART = re.compile(r"(?P<whole>.+)_part_(?P<start>[0-9]+)_(?P<end>[0-9]+)")
_SAMPLE_SIZE = re.compile(rf"{WHOLE_STUDY}|[1-9][0-9]*")


@dataclass(frozen=True, slots=True)
class Source:
    """One file of a table.

    Attributes:
        path: where it lies.
        queries: positions of the queries that a part is of; None for a file of the whole table.
    """

    path: Path
    queries: range | None = None


@dataclass(frozen=True, slots=True)
class SettingFiles:
    """The files of a setting's tables, each table's in the order in which they count: the whole one, then parts.

    Attributes:
        dot_products: there is at least one, as of the next two.
        query_self: self dots of the queries.
        original_self: self dots of the originals.
        gradient_similarity: may be absent.
        projections: similarities of projected gradients; may be absent.
        other_sizes: sample sizes that there are gradient similarities of where there are none of the one chosen.
    """

    dot_products: tuple[Source, ...]
    query_self: tuple[Source, ...]
    original_self: tuple[Source, ...]
    gradient_similarity: tuple[Source, ...]
    projections: tuple[Source, ...]
    other_sizes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PublishedFiles:
    """All files of one model and sample size.

    Attributes:
        folder: the one that holds `dot_products/`.
        model: its name, perhaps with slashes.
        sample_size: `full` or a number.
        settings: name -> files.
        parameters: the file of the layers' sizes, if there is one.
        findings: what was left out, in sentences.
    """

    folder: Path
    model: str
    sample_size: str
    settings: Mapping[str, SettingFiles]
    parameters: Path | None
    findings: tuple[str, ...]


def dots_path(folder: Path, setting: str, model: str, sample_size: str, table: str) -> Path:
    """The whole file of dots or self dots."""
    return folder / "dot_products" / setting / model / "sample_size" / sample_size / f"{STEMS[table]}.json"


def similarity_path(folder: Path, setting: str, model: str, sample_size: str) -> Path:
    """The whole file of cosines of gradients."""
    return folder / "gradient_similarity" / setting / model / f"sample_size_{sample_size}.json"


def projections_path(folder: Path, setting: str, model: str, sample_size: str) -> Path:
    """The whole file of cosines of projected gradients."""
    return similarity_path(folder, f"random_projection/{setting}", model, sample_size)


def older_projections_path(folder: Path, setting: str, model: str, sample_size: str) -> Path:
    """Where the same may lie instead."""
    return folder / "random_projection" / setting / model / f"sample_size_{sample_size}.json"


def parameters_path(folder: Path, model: str) -> Path:
    """The file of the layers' sizes, which lies beside the folder of data."""
    return folder.parent / "results" / "parameters_per_layer" / model / "values.json"


def is_sample_size(name: str) -> bool:
    """Whether it says how many samples there are: `full` or a number."""
    return _SAMPLE_SIZE.fullmatch(name) is not None


def is_setting(name: str) -> bool:
    """Whether a study can have a setting of this name."""
    return re.fullmatch(NAME, name) is not None and name not in RESERVED_NAMES


def size_of_cosines(path: Path) -> str | None:
    """The sample size that a file of cosines, whole or a part, is named by; None: it is misnamed."""
    part = _PART.fullmatch(path.stem)
    size = (part["whole"] if part else path.stem).removeprefix("sample_size_")
    return size if path.stem.startswith("sample_size_") and is_sample_size(size) else None


def checked_names(model: str, sample_size: str, setting: str) -> None:
    """Whether these can name folders of the layout.

    Raises:
        StudyError: one cannot.
    """
    parts = PurePosixPath(model).parts
    if not parts or model.startswith("/") or {"..", "sample_size"} & set(parts) or "/".join(parts) != model:
        raise StudyError(f"model {model!r} cannot name folders; give it a name such as organisation/model")
    if not is_sample_size(sample_size):
        raise StudyError(f"sample size {sample_size!r} is neither {WHOLE_STUDY} nor a number; give one of them")
    if PurePosixPath(setting).parts != (setting,) or setting in ("/", ".."):
        raise StudyError(f"setting {setting!r} cannot name a folder; give it another name")


def sources(whole: Path) -> tuple[Source, ...]:
    """The files of a table whose whole file would lie there: that one, then the parts in order.

    Raises:
        TableError: the parts leave queries out, overlap, or do not begin with the first query.
    """
    parts = sorted(_parts(whole), key=lambda part: _range(part).start)
    _refuse_gaps(parts)
    return (*([Source(whole)] if whole.is_file() else []), *parts)


def is_stored(whole: Path) -> bool:
    """Whether there are files of that table, whether or not its parts make a whole."""
    return whole.is_file() or any(_parts(whole))


def _parts(whole: Path) -> Iterator[Source]:
    for path in sorted(whole.parent.glob("*.json")):
        part = _PART.fullmatch(path.stem)
        if part and part["whole"] == whole.stem and path.is_file():
            yield Source(path, range(int(part["start"]), int(part["end"])))


def _refuse_gaps(parts: list[Source]) -> None:
    expected = 0
    for part in parts:
        queries = _range(part)
        if not queries:
            raise TableError(f"{part.path}: is named as a part that ends where or before it begins; correct its name")
        if queries.start > expected:
            missing = f"{part.path.stem.split('_part_')[0]}_part_{expected}_{queries.start}"
            raise TableError(
                f"{part.path.parent}: queries {expected} up to {queries.start} are missing, which come before "
                f"{part.path.name}; bring {missing}.json or the parts that it consists of"
            )
        if queries.start < expected:
            raise TableError(
                f"{part.path}: begins with query {queries.start}, but the parts before it go up to {expected}; "
                f"remove the parts that overlap, so that each query is in one"
            )
        expected = queries.stop


def _range(part: Source) -> range:
    assert part.queries is not None
    return part.queries
