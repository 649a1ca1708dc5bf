"""Search for published results in a folder, and selection of one model, sample size and set of settings."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gradsim.errors import StudyError, TableError
from gradsim.published import layout
from gradsim.study.definition import RESERVED_NAMES

_FIRST_SETTINGS = ("paraphrased", "model_generated")


@dataclass(frozen=True, slots=True)
class SettingFiles:
    """Files of one setting.

    Attributes:
        tables: Table name -> files in order of precedence. `gradient_similarity` and `projections` may have none.
        other_sizes: If there are no gradient similarities of the chosen sample size, the sizes that have some.
    """

    tables: Mapping[str, tuple[layout.Source, ...]]
    other_sizes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PublishedFiles:
    """Files of one model and sample size.

    Attributes:
        folder: Folder that contains `dot_products/`.
        model: Model name; may contain slashes.
        sample_size: `full` or a number.
        settings: Setting name -> files.
        parameters: File of the layer sizes, if it exists.
        findings: Sentences about what was skipped.
    """

    folder: Path
    model: str
    sample_size: str
    settings: Mapping[str, SettingFiles]
    parameters: Path | None
    findings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Results:
    """One folder with dot products or self dot products.

    Attributes:
        setting: Setting name, from the path.
        model: Model name, from the path; may contain slashes.
        sample_size: Sample size, from the path; may be invalid.
        folder: Path as found.
        place: Path with links resolved.
        linked: Whether the path contains a link.
    """

    setting: str
    model: str
    sample_size: str
    folder: Path
    place: Path
    linked: bool


def find_published(
    folder: Path, *, model: str | None = None, sample_size: str | None = None, settings: Sequence[str] | None = None
) -> PublishedFiles:
    """Find the files of one model and sample size without reading them.

    Args:
        folder: Folder that contains `dot_products/`, or its parent if that folder is named `data`.
        model: Model name as in the folder names; None for the only model.
        sample_size: `full` or a number; None for `full`, or the only size if there is no `full`.
        settings: Setting names, with `-` accepted for `_`; None for every setting with this model and sample size.
            `paraphrased` and `model_generated` always come first in the result.

    Raises:
        StudyError: The folder does not have this layout, the choice is ambiguous, or a setting has an invalid name.
        TableError: A setting lacks a table, or the parts of a table are incomplete.
    """
    try:
        return _find(folder, model, sample_size, settings)
    except OSError as error:
        raise StudyError(f"{error.filename}: cannot be read ({error.strerror}); fix this and try again") from error


def _find(folder: Path, model: str | None, sample_size: str | None, settings: Sequence[str] | None) -> PublishedFiles:
    data = _data_folder(folder)
    stored, findings = _walk(data / "dot_products")
    if not stored:
        raise StudyError(
            f"{data / 'dot_products'}: contains no <setting>/<model>/sample_size/<size>/dot_products.json, whole or in "
            "parts; choose another folder"
        )
    wanted = _wanted_settings(data, {each.setting for each in stored}, settings)
    stored = [each for setting in wanted for each in stored if each.setting == setting]
    once, aliases = _each_place_once(stored, model, sample_size)
    model = _chosen(data, "model", model, (each.model for each in once))
    sample_size = _sample_size(data, model, sample_size, [each.sample_size for each in once if each.model == model])

    read = [each for each in once if (each.model, each.sample_size) == (model, sample_size)]
    aliases = [(alias, taken) for alias, taken in aliases if taken in read]
    findings += (
        f"{alias.folder} and {taken.folder} are the same folder; it was read once." for alias, taken in aliases
    )
    there = {each.setting for each in [*read, *(alias for alias, _ in aliases)]}
    for setting in [setting for setting in wanted if setting not in there]:
        mine = [each for each in stored if each.setting == setting]
        sizes = [each.sample_size for each in mine if each.model == model]
        has = f"sample size {_listed(sizes)}" if sizes else f"model {_listed(each.model for each in mine)}"
        if settings is not None:
            raise StudyError(
                f"{data}: setting {setting!r} has no results for {model} with sample size {sample_size}, only for "
                f"{has}; omit the setting, or choose another model or sample size"
            )
        findings.append(f"Setting {setting} was skipped: it only has {has}.")

    names = [each.setting for each in read]
    findings += (
        f"Setting {each.setting}: sample size {each.sample_size!r} was skipped: it is neither {layout.WHOLE_STUDY} "
        "nor a number."
        for each in once
        if each.model == model and each.setting in names and not layout.is_sample_size(each.sample_size)
    )
    for name in names:
        if not layout.is_setting(name):
            raise StudyError(
                f"{data}: {name!r} is not a valid setting name: use letters, digits and underscores, and none of "
                f"{_listed(RESERVED_NAMES)}; rename its folders, or select the other settings with --setting"
            )
    parameters = layout.parameters_path(data, model)
    return PublishedFiles(
        folder=data,
        model=model,
        sample_size=sample_size,
        settings={setting: _setting_files(data, setting, model, sample_size, findings) for setting in names},
        parameters=parameters if parameters.is_file() else None,
        findings=tuple(findings),
    )


def _data_folder(folder: Path) -> Path:
    """Return the folder that contains `dot_products/`."""
    for candidate in (folder, folder / "data"):
        if (candidate / "dot_products").is_dir():
            return candidate
    if not folder.is_dir():
        raise StudyError(f"{folder}: no such folder; pass the folder that contains dot_products/")
    for parent in (folder, *folder.parents):
        if parent.name == "dot_products":
            raise StudyError(f"{folder}: is inside dot_products/; pass the folder that contains it: {parent.parent}")
    raise StudyError(
        f"{folder}: contains neither dot_products/ nor data/dot_products/, but "
        f"{_listed(path.name for path in folder.iterdir())}; pass the folder that contains dot_products/"
    )


def _walk(dots: Path) -> tuple[list[_Results], list[str]]:
    """Return every folder of results below `dot_products/` in path order, and a sentence about each skipped link.

    Raises:
        OSError: A folder cannot be read.
    """
    results: list[_Results] = []
    findings: list[str] = []
    own = dots.resolve()
    for sizes in _size_folders(dots, (), findings):
        setting, *model = sizes.parent.relative_to(dots).parts or ("",)
        for size in sorted(sizes.iterdir()):
            if model and any(layout.is_stored(size / f"{stem}.json") for stem in layout.STEMS.values()):
                place = size.resolve()
                linked = place != own / size.relative_to(dots)
                results.append(_Results(setting, "/".join(model), size.name, size, place, linked))
    return results, findings


def _size_folders(folder: Path, above: Sequence[Path], findings: list[str]) -> Iterator[Path]:
    """Yield the folders named `sample_size`, without descending into them. Links are followed, except cycles."""
    above = (*above, folder.resolve())
    for inner in sorted(folder.iterdir()):
        if inner.is_symlink() and not inner.exists():
            findings.append(f"{inner} is a broken link and was skipped.")
        elif not inner.is_dir():
            continue
        elif inner.name == "sample_size":
            yield inner
        elif inner.resolve() in above:
            findings.append(f"{inner} links back to a folder above it and was skipped.")
        else:
            yield from _size_folders(inner, above, findings)


def _each_place_once(
    results: Sequence[_Results], model: str | None, sample_size: str | None
) -> tuple[list[_Results], list[tuple[_Results, _Results]]]:
    """Keep one path per folder, for folders that links make reachable by several paths.

    In order of preference, keep a path with the requested model and sample size, with names that a study can have, with
    sample size `full`, without links, or else the first one.

    Args:
        results: Folders, possibly several paths to the same one.
        model: Requested model, if any.
        sample_size: Requested sample size, if any.

    Returns:
        The kept paths in order, and each dropped path with the one kept for it.
    """

    def preference(each: _Results) -> tuple[bool, ...]:
        return (
            model not in (None, each.model),
            sample_size not in (None, each.sample_size),
            not (layout.is_setting(each.setting) and layout.is_sample_size(each.sample_size)),
            each.sample_size != layout.WHOLE_STUDY,
            each.linked,
        )

    paths: dict[Path, list[_Results]] = {}
    for each in results:
        paths.setdefault(each.place, []).append(each)
    kept = {place: min(same, key=preference) for place, same in paths.items()}
    aliases = [(each, kept[each.place]) for each in results if each is not kept[each.place]]
    return [each for each in results if each is kept[each.place]], aliases


def _wanted_settings(data: Path, there: set[str], named: Sequence[str] | None) -> list[str]:
    """Return the settings to search for, without duplicates and in the order of the result."""
    every = [name for name in _FIRST_SETTINGS if name in there] + sorted(there - set(_FIRST_SETTINGS))
    if named is None:
        return every
    meant = {name: name if name in there else name.replace("-", "_") for name in named}
    for unknown in [name for name, setting in meant.items() if setting not in there]:
        raise StudyError(f"{data}: has no setting {unknown!r}; it has {_listed(there)}")
    return [setting for setting in every if setting in meant.values()]


def _sample_size(data: Path, model: str, named: str | None, there: Sequence[str]) -> str:
    sizes = [size for size in there if layout.is_sample_size(size)]
    if not sizes:
        raise StudyError(
            f"{data}: {model} only has sample size {_listed(map(repr, there))}, which is neither "
            f"{layout.WHOLE_STUDY} nor a number; rename the folder"
        )
    if named is None and layout.WHOLE_STUDY in sizes:
        return layout.WHOLE_STUDY
    return _chosen(data, "sample size", named, sizes)


def _chosen(data: Path, what: str, named: str | None, there: Iterable[str]) -> str:
    """Return the named choice, or the only one if none is named."""
    choices = set(there)
    if named is None and len(choices) == 1:
        return choices.pop()
    if named is None:
        raise StudyError(
            f"{data}: has results for more than one {what}: {_listed(choices)}; choose one with "
            f"--{what.replace(' ', '-')}"
        )
    if named not in choices:
        raise StudyError(f"{data}: has no results for {what} {named!r}; it has {_listed(choices)}")
    return named


def _setting_files(data: Path, setting: str, model: str, sample_size: str, findings: list[str]) -> SettingFiles:
    """Return the files of a setting, and append a sentence to `findings` about files with unknown names."""
    place = (data, setting, model, sample_size)
    dots = {table: layout.sources(layout.dots_path(*place, table)) for table in layout.STEMS}
    folder = layout.dots_path(*place, "dot_products").parent
    if missing := [f"{layout.STEMS[table]}.json" for table, files in dots.items() if not files]:
        raise TableError(
            f"{folder}: lacks {' and '.join(missing)}, whole and in parts; add what is missing, or exclude "
            f"{setting!r} by selecting the other settings with --setting"
        )
    similarity = layout.similarity_path(*place)
    projections = [files for path in layout.projections_paths(*place) if (files := layout.sources(path))]
    if len(projections) > 1:
        first, second = (files[0].path.parent for files in projections)
        raise TableError(f"{first} and {second} both contain projections for {setting!r}; remove one of the two")

    read = {source.path for files in dots.values() for source in files}
    unknown = {folder: [path.name for path in folder.glob("*.json") if path not in read]}
    for each in dict.fromkeys(path.parent for path in (similarity, *layout.projections_paths(*place))):
        unknown[each] = [path.name for path in each.glob("*.json") if layout.similarity_size(path) is None]
    for each, names in unknown.items():
        if names:
            findings.append(f"Setting {setting}: skipped files with unknown names in {each}: {_listed(names)}.")
    sizes = {size for path in similarity.parent.glob("*.json") if (size := layout.similarity_size(path)) is not None}
    return SettingFiles(
        tables={
            **dots,
            "gradient_similarity": layout.sources(similarity),
            "projections": projections[0] if projections else (),
        },
        other_sizes=() if layout.is_stored(similarity) else tuple(sorted(sizes)),
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(set(names))) or "nothing"
