"""Names of tables. A table's key is its place under the data root and its asset key in Dagster."""

from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal, Self

Room = Literal["results", "analysis"]

# Of what is no table of rows: a page, and vectors that are read in place.
_SUFFIXES = {"report": "html", "gradient_index": "arrow"}


@dataclass(frozen=True, slots=True)
class TableKey:
    """A table of a study, of one of its settings, or of a setting's `results` or `analysis`."""

    study: str
    name: str
    setting: str | None = None
    room: Room | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """For example `("sample", "paraphrased", "results", "dot_products")`."""
        return tuple(part for part in (self.study, self.setting, self.room, self.name) if part)

    @classmethod
    def from_parts(cls, parts: tuple[str, ...]) -> Self:
        """The inverse of `parts`."""
        study, *middle, name = parts
        room: Any = middle.pop() if middle and middle[-1] in {"results", "analysis"} else None
        return cls(study, name, middle[0] if middle else None, room)

    def file(self, partition: str | None = None) -> PurePath:
        """Path below the data root: `<key>.parquet`, or `<key>/<partition>.parquet`; report and index differ."""
        folder = PurePath(*self.parts)
        suffix = _SUFFIXES.get(self.name, "parquet")
        return folder / f"{partition}.{suffix}" if partition else folder.with_name(f"{self.name}.{suffix}")

    def __str__(self) -> str:
        return "/".join(self.parts)
