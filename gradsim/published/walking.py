"""All folders of results below `dot_products/`, links followed; a folder of several names counts once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gradsim.published.layout import STEMS, WHOLE_STUDY, is_sample_size, is_setting, is_stored

_SAMPLE_SIZE = "sample_size"


@dataclass(frozen=True, slots=True)
class Results:
    """A folder of dots or self dots.

    Attributes:
        setting: by the folder's name, as the next two.
        model: perhaps with slashes.
        sample_size: perhaps none that there can be.
        folder: by this name.
        place: the same for all its names.
        linked: whether links lead to it.
    """

    setting: str
    model: str
    sample_size: str
    folder: Path
    place: Path
    linked: bool


def walk(dots: Path) -> tuple[list[Results], list[str]]:
    """What there are dots or self dots of, in the order of the names; and what could not be followed, in sentences.

    Args:
        dots: the folder `dot_products/`.

    Raises:
        OSError: a folder cannot be read.
    """
    results: list[Results] = []
    findings: list[str] = []
    own = dots.resolve()
    for sizes in _sample_sizes(dots, (), findings):
        setting, *model = sizes.parent.relative_to(dots).parts or ("",)
        for size in sorted(sizes.iterdir()):
            if model and any(is_stored(size / f"{stem}.json") for stem in STEMS.values()):
                place = size.resolve()
                linked = place != own / size.relative_to(dots)
                results.append(Results(setting, "/".join(model), size.name, size, place, linked))
    return results, findings


def _sample_sizes(folder: Path, above: Sequence[Path], findings: list[str]) -> Iterator[Path]:
    """Folders called `sample_size`, none below another."""
    above = (*above, folder.resolve())
    for inner in sorted(folder.iterdir()):
        if inner.is_symlink() and not inner.exists():
            findings.append(f"{inner} is a link that leads nowhere; it was not followed.")
        elif not inner.is_dir():
            continue
        elif inner.name == _SAMPLE_SIZE:
            yield inner
        elif inner.resolve() in above:
            findings.append(f"{inner} is a link that leads back to a folder above it; it was not followed.")
        else:
            yield from _sample_sizes(inner, above, findings)


def each_place_once(
    results: Sequence[Results], model: str | None, sample_size: str | None
) -> tuple[list[Results], list[tuple[Results, Results]]]:
    """Each folder by one name.

    That is the one asked for, else one that a study can have, the whole study's, its own, or the first.

    Args:
        results: folders, some perhaps by several names.
        model: that was asked for, if one was.
        sample_size: likewise.

    Returns:
        Folders in order; and the other names, each with the one that was taken.
    """

    def preference(each: Results) -> tuple[bool, ...]:
        return (
            model not in (None, each.model),
            sample_size not in (None, each.sample_size),
            not (is_setting(each.setting) and is_sample_size(each.sample_size)),
            each.sample_size != WHOLE_STUDY,
            each.linked,
        )

    names: dict[Path, list[Results]] = {}
    for each in results:
        names.setdefault(each.place, []).append(each)
    taken = {place: min(same, key=preference) for place, same in names.items()}
    others = [(each, taken[each.place]) for each in results if each is not taken[each.place]]
    return [each for each in results if each is taken[each.place]], others
