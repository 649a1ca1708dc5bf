"""Which results a folder of the original's layout holds, and which of them are meant."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from gradsim.errors import StudyError, TableError
from gradsim.published.layout import (
    STEMS,
    WHOLE_STUDY,
    PublishedFiles,
    SettingFiles,
    Source,
    dots_path,
    is_stored,
    older_projections_path,
    parameters_path,
    projections_path,
    similarity_path,
    sources,
)

_FIRST_SETTINGS = ("paraphrased", "model_generated")

# Setting -> model -> sample sizes.
_Stored = Mapping[str, Mapping[str, Sequence[str]]]


def find_published(
    folder: Path, *, model: str | None = None, sample_size: str | None = None, settings: Sequence[str] | None = None
) -> PublishedFiles:
    """The files of one model and sample size; nothing is read yet.

    Args:
        folder: the one that holds `dot_products/`, or its parent (then in `data/`).
        model: its name as its folders give it; None: the only one there is.
        sample_size: `full` or a number; None: `full`, or the only one there is.
        settings: which; None: all that have this model and sample size, `paraphrased` and `model_generated` first.

    Raises:
        StudyError: the folder is not of this layout, or it is not clear what is meant; says what there is.
        TableError: a setting lacks a table, or a table's parts do not make a whole.
    """
    try:
        return _find(folder, model, sample_size, settings)
    except OSError as error:
        raise StudyError(f"{error.filename}: cannot be read ({error.strerror}); mend that and try again") from error


def _find(folder: Path, model: str | None, sample_size: str | None, settings: Sequence[str] | None) -> PublishedFiles:
    data = _data_folder(folder)
    stored = _stored(data)
    if not stored:
        raise StudyError(
            f"{data / 'dot_products'}: holds no <setting>/<model>/sample_size/<size>/dot_products.json, whole or in "
            "parts; name the folder of another copy"
        )
    wanted = _wanted_settings(data, stored, settings)
    model = _chosen(data, "model", model, (name for setting in wanted for name in stored[setting]))
    sizes = {setting: stored[setting].get(model, ()) for setting in wanted}
    every_size = [size for found in sizes.values() for size in found]
    if sample_size is None and WHOLE_STUDY in every_size:
        sample_size = WHOLE_STUDY
    sample_size = _chosen(data, "sample size", sample_size, every_size)
    findings = []
    for setting in [setting for setting, found in sizes.items() if sample_size not in found]:
        has = f"sample size {_listed(sizes[setting])}" if sizes[setting] else f"model {_listed(stored[setting])}"
        if settings is not None:
            raise StudyError(
                f"{data}: setting {setting!r} has no results of {model} with sample size {sample_size}, only of {has}; "
                "leave the setting out or choose another model or sample size"
            )
        findings.append(f"Setting {setting} is left out: it has only {has}.")
        del sizes[setting]
    parameters = parameters_path(data, model)
    return PublishedFiles(
        folder=data,
        model=model,
        sample_size=sample_size,
        settings={setting: _setting_files(data, setting, model, sample_size, findings) for setting in sizes},
        parameters=parameters if parameters.is_file() else None,
        findings=tuple(findings),
    )


def _data_folder(folder: Path) -> Path:
    """The folder that holds `dot_products/`."""
    for candidate in (folder, folder / "data"):
        if (candidate / "dot_products").is_dir():
            return candidate
    if not folder.is_dir():
        raise StudyError(f"{folder}: no such folder; name the one that holds dot_products/")
    for parent in (folder, *folder.parents):
        if parent.name == "dot_products":
            raise StudyError(f"{folder}: lies within dot_products/; name the folder that holds it: {parent.parent}")
    raise StudyError(
        f"{folder}: holds neither dot_products/ nor data/dot_products/ but "
        f"{_listed(path.name for path in folder.iterdir())}; name the folder that holds dot_products/"
    )


def _stored(data: Path) -> _Stored:
    """What there are dots or self dots of, settings in their order."""
    found: dict[str, dict[str, list[str]]] = {}
    for sizes in sorted((data / "dot_products").glob("*/**/sample_size")):
        setting, *model = sizes.parent.relative_to(data / "dot_products").parts
        for size in sorted(sizes.iterdir()):
            if model and any(is_stored(size / f"{stem}.json") for stem in STEMS.values()):
                found.setdefault(setting, {}).setdefault("/".join(model), []).append(size.name)
    order = [*_FIRST_SETTINGS, *sorted(found.keys() - set(_FIRST_SETTINGS))]
    return {setting: found[setting] for setting in order if setting in found}


def _wanted_settings(data: Path, stored: _Stored, settings: Sequence[str] | None) -> list[str]:
    for unknown in [setting for setting in settings or () if setting not in stored]:
        raise StudyError(f"{data}: has no setting {unknown!r}; it has {_listed(stored)}")
    return [setting for setting in stored if settings is None or setting in settings]


def _chosen(data: Path, what: str, named: str | None, there: Iterable[str]) -> str:
    choice = list(dict.fromkeys(there))
    if named is None and len(choice) == 1:
        return choice[0]
    if named is None:
        raise StudyError(
            f"{data}: has results of more than one {what}: {_listed(choice)}; say which: --{what.replace(' ', '-')}"
        )
    if named not in choice:
        raise StudyError(f"{data}: has no results of {what} {named!r}; it has {_listed(choice)}")
    return named


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


def _setting_files(data: Path, setting: str, model: str, sample_size: str, findings: list[str]) -> SettingFiles:
    tables = {table: sources(dots_path(data, setting, model, sample_size, table)) for table in STEMS}
    folder = dots_path(data, setting, model, sample_size, "dot_products").parent
    if missing := [f"{STEMS[table]}.json" for table, files in tables.items() if not files]:
        raise TableError(
            f"{folder}: lacks {' and '.join(missing)}, whole and in parts; bring it, or name the settings to read "
            f"without {setting!r}: --setting"
        )
    read = {source.path.name for files in tables.values() for source in files}
    if others := {path.name for path in folder.glob("*.json")} - read:
        findings.append(f"Setting {setting}: not read, because no table is named so: {_listed(others)} in {folder}.")
    similarity = similarity_path(data, setting, model, sample_size)
    return SettingFiles(
        **tables,
        gradient_similarity=sources(similarity),
        projections=_projections(data, setting, model, sample_size),
        other_sizes=() if is_stored(similarity) else _sizes(similarity.parent),
    )


def _projections(data: Path, setting: str, model: str, sample_size: str) -> tuple[Source, ...]:
    places: tuple[Callable[[Path, str, str, str], Path], ...] = (projections_path, older_projections_path)
    found = [files for place in places if (files := sources(place(data, setting, model, sample_size)))]
    if len(found) > 1:
        first, second = (files[0].path.parent for files in found)
        raise TableError(f"{first} and {second} both hold projections of {setting!r}; remove those that do not count")
    return found[0] if found else ()


def _sizes(folder: Path) -> tuple[str, ...]:
    """Sample sizes that a folder has whole files of, or parts."""
    stems = (path.stem.removeprefix("sample_size_") for path in folder.glob("sample_size_*.json"))
    return tuple(sorted({stem.split("_part_")[0] for stem in stems}))
