"""Table keys, which determine a table's path below the data root and its Dagster asset key, and states of its files."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePath
from typing import Any, Literal, Self

Room = Literal["results", "analysis"]

# Suffixes of files other than Parquet.
_SUFFIXES = {"report": "html", "gradient_index": "arrow"}


class State(StrEnum):
    """Freshness of a stored file."""

    FRESH = "fresh"
    STALE = "stale"
    MISSING = "missing"
    CORRUPT = "corrupt"


@dataclass(frozen=True, slots=True)
class TableKey:
    """Key of a table of a study, of one of its settings, or of a setting's `results` or `analysis`."""

    study: str
    name: str
    setting: str | None = None
    room: Room | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """Components of the key, for example `("sample", "paraphrased", "results", "dot_products")`."""
        return tuple(part for part in (self.study, self.setting, self.room, self.name) if part)

    @property
    def below_study(self) -> str:
        """The key without the study: `paraphrased/results/dot_products`."""
        return "/".join(self.parts[1:])

    @classmethod
    def from_parts(cls, parts: tuple[str, ...]) -> Self:
        """Return the key with these `parts`."""
        study, *middle, name = parts
        room: Any = middle.pop() if middle and middle[-1] in {"results", "analysis"} else None
        return cls(study, name, middle[0] if middle else None, room)

    def file(self, partition: str | None = None) -> PurePath:
        """Return the path below the data root: `<key>.parquet` or `<key>/<partition>.parquet`.

        The report is an `.html` file, the gradient index consists of `.arrow` files.
        """
        folder = PurePath(*self.parts)
        suffix = _SUFFIXES.get(self.name, "parquet")
        return folder / f"{partition}.{suffix}" if partition else folder.with_name(f"{self.name}.{suffix}")

    def __str__(self) -> str:
        return "/".join(self.parts)
