"""Which results a folder of the original's layout holds, and which of them are meant."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from gradsim.errors import StudyError, TableError
from gradsim.published.layout import (
    STEMS,
    WHOLE_STUDY,
    PublishedFiles,
    SettingFiles,
    Source,
    dots_path,
    is_sample_size,
    is_setting,
    is_stored,
    older_projections_path,
    parameters_path,
    projections_path,
    similarity_path,
    size_of_cosines,
    sources,
)
from gradsim.published.walking import Results, each_place_once, walk
from gradsim.study.definition import RESERVED_NAMES

_FIRST_SETTINGS = ("paraphrased", "model_generated")


def find_published(
    folder: Path, *, model: str | None = None, sample_size: str | None = None, settings: Sequence[str] | None = None
) -> PublishedFiles:
    """The files of one model and sample size; nothing is read yet.

    Args:
        folder: the one that holds `dot_products/`, or its parent (then in `data/`).
        model: its name as its folders give it; None: the only one there is.
        sample_size: `full` or a number; None: `full`, or the only one there is.
        settings: which, `-` perhaps in the place of `_`; None: all that have this model and sample size. In any case
            `paraphrased` and `model_generated` come first.

    Raises:
        StudyError: the folder is not of this layout, it is not clear what is meant, or a setting's folder has a name
            that no setting can have; says what there is.
        TableError: a setting lacks a table, or a table's parts do not make a whole.
    """
    try:
        return _find(folder, model, sample_size, settings)
    except OSError as error:
        raise StudyError(f"{error.filename}: cannot be read ({error.strerror}); mend that and try again") from error


def _find(folder: Path, model: str | None, sample_size: str | None, settings: Sequence[str] | None) -> PublishedFiles:
    data = _data_folder(folder)
    stored, findings = walk(data / "dot_products")
    if not stored:
        raise StudyError(
            f"{data / 'dot_products'}: holds no <setting>/<model>/sample_size/<size>/dot_products.json, whole or in "
            "parts; name the folder of another copy"
        )
    wanted = _wanted_settings(data, [each.setting for each in stored], settings)
    stored = [each for setting in wanted for each in stored if each.setting == setting]
    once, same = each_place_once(stored, model, sample_size)
    model = _chosen(data, "model", model, (each.model for each in once))
    sample_size = _sample_size(data, model, sample_size, [each.sample_size for each in once if each.model == model])

    read = [each for each in once if (each.model, each.sample_size) == (model, sample_size)]
    same = [(other, taken) for other, taken in same if taken in read]
    findings += (f"{other.folder} and {taken.folder} are one folder; it was read once." for other, taken in same)
    there = {each.setting for each in [*read, *(other for other, _ in same)]}
    for setting in [setting for setting in wanted if setting not in there]:
        has = _what_it_has(stored, setting, model)
        if settings is not None:
            raise StudyError(
                f"{data}: setting {setting!r} has no results of {model} with sample size {sample_size}, only of {has}; "
                "leave the setting out or choose another model or sample size"
            )
        findings.append(f"Setting {setting} is left out: it has only {has}.")
    names = [each.setting for each in read]
    findings += _odd_sizes(each for each in once if each.model == model and each.setting in names)
    _refuse_names(data, names)
    parameters = parameters_path(data, model)
    files = {setting: _setting_files(data, setting, model, sample_size, findings) for setting in names}
    return PublishedFiles(
        folder=data,
        model=model,
        sample_size=sample_size,
        settings=files,
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


def _wanted_settings(data: Path, there: Sequence[str], named: Sequence[str] | None) -> list[str]:
    """Settings to look for, each once, in their order."""
    order = [*_FIRST_SETTINGS, *sorted(set(there) - set(_FIRST_SETTINGS))]
    every = [setting for setting in order if setting in there]
    if named is None:
        return every
    meant = {name: name if name in there else name.replace("-", "_") for name in named}
    for unknown in [name for name, setting in meant.items() if setting not in there]:
        raise StudyError(f"{data}: has no setting {unknown!r}; it has {_listed(there)}")
    return [setting for setting in every if setting in meant.values()]


def _sample_size(data: Path, model: str, named: str | None, there: Sequence[str]) -> str:
    sizes = [size for size in there if is_sample_size(size)]
    if not sizes:
        raise StudyError(
            f"{data}: of {model} it has only sample size {_listed(map(repr, there))}, neither {WHOLE_STUDY} nor a "
            "number; rename the folder"
        )
    if named is None and WHOLE_STUDY in sizes:
        return WHOLE_STUDY
    return _chosen(data, "sample size", named, sizes)


def _what_it_has(stored: Iterable[Results], setting: str, model: str) -> str:
    mine = [each for each in stored if each.setting == setting]
    sizes = [each.sample_size for each in mine if each.model == model]
    return f"sample size {_listed(sizes)}" if sizes else f"model {_listed(each.model for each in mine)}"


def _odd_sizes(results: Iterable[Results]) -> Iterator[str]:
    for each in results:
        if not is_sample_size(each.sample_size):
            yield (
                f"Setting {each.setting}: sample size {each.sample_size!r} was not read: it is neither {WHOLE_STUDY} "
                "nor a number."
            )


def _refuse_names(data: Path, settings: Sequence[str]) -> None:
    for name in settings:
        if not is_setting(name):
            raise StudyError(
                f"{data}: {name!r} cannot be a setting's name: use letters, digits and underscores, and none of "
                f"{_listed(RESERVED_NAMES)}; rename its folders, or leave it out by naming the others: --setting"
            )


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
    return ", ".join(sorted(set(names))) or "nothing"


def _setting_files(data: Path, setting: str, model: str, sample_size: str, findings: list[str]) -> SettingFiles:
    tables = {table: sources(dots_path(data, setting, model, sample_size, table)) for table in STEMS}
    folder = dots_path(data, setting, model, sample_size, "dot_products").parent
    if missing := [f"{STEMS[table]}.json" for table, files in tables.items() if not files]:
        raise TableError(
            f"{folder}: lacks {' and '.join(missing)}, whole and in parts; bring it, or name the settings to read "
            f"without {setting!r}: --setting"
        )
    similarity = similarity_path(data, setting, model, sample_size)
    projections = _projections(data, setting, model, sample_size)
    read = {source.path for files in tables.values() for source in files}
    cosines = (similarity_path, projections_path, older_projections_path)
    folders = dict.fromkeys(place(data, setting, model, sample_size).parent for place in cosines)
    misnamed = [path for path in folder.glob("*.json") if path not in read]
    misnamed += (path for each in folders for path in each.glob("*.json") if size_of_cosines(path) is None)
    for place in (folder, *folders):
        if names := [path.name for path in misnamed if path.parent == place]:
            findings.append(f"Setting {setting}: not read, because no table is named so: {_listed(names)} in {place}.")
    others = {size for path in similarity.parent.glob("*.json") if (size := size_of_cosines(path)) is not None}
    return SettingFiles(
        **tables,
        gradient_similarity=sources(similarity),
        projections=projections,
        other_sizes=() if is_stored(similarity) else tuple(sorted(others)),
    )


def _projections(data: Path, setting: str, model: str, sample_size: str) -> tuple[Source, ...]:
    places: tuple[Callable[[Path, str, str, str], Path], ...] = (projections_path, older_projections_path)
    found = [files for place in places if (files := sources(place(data, setting, model, sample_size)))]
    if len(found) > 1:
        first, second = (files[0].path.parent for files in found)
        raise TableError(f"{first} and {second} both hold projections of {setting!r}; remove those that do not count")
    return found[0] if found else ()
