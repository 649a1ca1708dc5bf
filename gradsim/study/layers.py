"""Section `layers` of a study file: the layers whose gradients are compared."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from pydantic import Field

from gradsim.errors import StudyError
from gradsim.study.section import Section


class Layers(Section):
    """Layers whose gradients are compared: those that match `include` and do not match `exclude`.

    Patterns are those of `fnmatch` for whole names: `*` stands for any characters, dots included.
    """

    include: tuple[str, ...] = Field(("*",), min_length=1)
    exclude: tuple[str, ...] = ()

    def of(self, names: Sequence[str]) -> list[str]:
        """Return the chosen names, in their order.

        Raises:
            StudyError: A pattern matches no name, or every name is excluded.
        """
        for key, patterns in (("include", self.include), ("exclude", self.exclude)):
            for pattern in patterns:
                if not any(fnmatchcase(name, pattern) for name in names):
                    raise StudyError(
                        f"layers.{key}: '{pattern}' matches none of the model's {len(names)} layers, "
                        f"{names[0]} to {names[-1]}; correct it in the study file"
                    )
        chosen = [name for name in names if _matches(name, self.include) and not _matches(name, self.exclude)]
        if not chosen:
            raise StudyError("layers.exclude: leaves no layer; exclude fewer")
        return chosen


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
