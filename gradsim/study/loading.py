"""Load study files; errors are one line that names the file, the key and the fix."""

import difflib
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gradsim.environment import Environment, read_environment
from gradsim.errors import StudyError, parsing
from gradsim.study.complaints import explain
from gradsim.study.definition import NAME, Study
from gradsim.study.section import IMPORTED
from gradsim.study.studied_model import HubModel
from gradsim.study.yaml_file import read_mapping

# Definition of an imported study, in the folder of its tables.
IMPORTED_FILE = "study.yaml"


def load_study(name: str | Path, environment: Environment | None = None) -> Study:
    """Return a study by name or file.

    `MT_SAMPLE_SIZE` and `MT_MODEL_NAME` turn it into another study with its own name.

    Raises:
        StudyError: the study does not exist, or its file is not valid.
    """
    environment = environment or read_environment()
    path = Path(name)
    if path.suffix not in {".yaml", ".yml"}:
        path = study_file(str(name), environment)
    study = _adapted(_read(path), environment)
    if not study.imported and _imports(taken := imported_file(study.name, environment)):
        raise StudyError(
            f"{taken.parent}: contains an imported study, but study '{study.name}' stores its tables there; "
            "rename the study or move the folder"
        )
    return study


def load_studies(environment: Environment | None = None) -> tuple[list[Study], dict[str, StudyError]]:
    """Return all studies of the studies folder, then all imported ones, each sorted by name, and the errors of others.

    The errors are those of studies whose definition is not valid or whose name is taken, by the name of their file, or
    of their folder if they are imported. They do not affect other studies.

    Raises:
        StudyError: there is no studies folder.
    """
    environment = environment or read_environment()
    imported, faults = imported_studies(environment)
    files = [
        *_study_files(environment).items(),
        *((each.name, [imported_file(each.name, environment)]) for each in imported),
    ]
    studies: dict[str, Study] = {}
    for name, paths in files:
        try:
            study = _adapted(_read(path := _only(paths)), environment)
            if study.name in studies:
                raise StudyError(f"{path}: there is another study named '{study.name}'; rename {_what(study)}")
            studies[study.name] = study
        except StudyError as error:
            faults[name] = error
    return list(studies.values()), faults


def _what(study: Study) -> str:
    return "the other study's file, or import this one again under another name" if study.imported else "one file"


def imported_studies(environment: Environment) -> tuple[list[Study], dict[str, StudyError]]:
    """Return the imported studies below the data root, and the errors of those that are not valid, by name.

    Folders without a valid study name and definitions of other studies are ignored: they are copies.
    """
    studies, faults = [], {}
    for path in sorted(environment.data_root.glob(f"*/{IMPORTED_FILE}")):
        if not path.is_file() or not re.fullmatch(NAME, path.parent.name):
            continue
        try:
            if _is_imported(read_mapping(path)):
                studies.append(_read(path))
        except StudyError as error:
            faults[path.parent.name] = error
    return studies, faults


def refuse_name(name: str, environment: Environment) -> None:
    """Raise for a name that no new study can have.

    Raises:
        StudyError: The name is not valid, or a study file has it.
    """
    if not re.fullmatch(NAME, name):
        raise StudyError(f"'{name}' cannot be a study's name; use letters, digits and underscores")
    if name in study_names(environment):
        raise StudyError(f"a study file for '{name}' already exists; choose another name")


def study_names(environment: Environment) -> set[str]:
    """Return the names of all study files, and of their variants under `MT_SAMPLE_SIZE` and `MT_MODEL_NAME`."""
    names = set(_study_files(environment))
    for paths in _study_files(environment).values():
        with suppress(StudyError):  # an invalid file must not block other studies
            names.add(_adapted(_read(_only(paths)), environment).name)
    return names


def _study_files(environment: Environment) -> dict[str, list[Path]]:
    """Return the study files by name; several of one name are an error of that study."""
    folder = environment.studies_folder
    if not folder.is_dir():
        raise StudyError(f"{folder}: no such studies folder; create it or set GRADSIM_STUDIES")
    files: dict[str, list[Path]] = {}
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        files.setdefault(path.stem, []).append(path)
    return files


def _only(paths: list[Path]) -> Path:
    if len(paths) > 1:
        raise StudyError(f"{paths[1]}: conflicts with {paths[0].name}; rename one file")
    return paths[0]


def imported_file(name: str, environment: Environment) -> Path:
    """Return the path of the definition of an imported study."""
    return environment.data_root / name / IMPORTED_FILE


def _imports(path: Path) -> bool:
    """Return whether a file is the definition of an imported study."""
    try:
        return path.is_file() and _is_imported(read_mapping(path))
    except StudyError:
        return False


def study_file(name: str, environment: Environment) -> Path:
    """Return the path of a study's file, or of that which a variant of a study comes from.

    Raises:
        StudyError: there is no such study.
    """
    files = _study_files(environment)
    if name not in files and (path := imported_file(name, environment)).is_file():
        return path
    # A variant is also found by the name of its table folder.
    candidates = [stem for stem in files if name == stem or name.startswith(f"{stem}_")]
    for stem in sorted(candidates, key=len, reverse=True):
        path = _only(files[stem])
        if name == stem or _adapted(_read(path), environment).name == name:
            return path
    names = [*files, *(study.name for study in imported_studies(environment)[0])]
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(names) or 'none'}"
    raise StudyError(f"no study '{name}' in {environment.studies_folder}; {hint}")


def _read(path: Path) -> Study:
    """Read a study, named after its file, or after its folder if it is imported."""
    content = read_mapping(path)
    imported = _is_imported(content)
    name = path.parent.name if path.name == IMPORTED_FILE and imported else path.stem
    # `$` in an imported definition is part of a name.
    definition = {"name": name, **(content if imported else _expanded(content, path))}
    with parsing(StudyError, f"{path}: not a study", "correct it"):
        try:
            return Study.model_validate(definition, context={"folder": path.parent.resolve()})
        except ValidationError as error:
            raise StudyError(f"{path}: {explain(error)}") from error


def _is_imported(content: dict[str, Any]) -> bool:
    return isinstance(dataset := content.get("dataset"), dict) and IMPORTED in dataset


# `$VARIABLE` or `${VARIABLE}`
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|([A-Za-z_]\w*))")


def _expanded(value: Any, path: Path) -> Any:
    """Return a value with environment variables in its strings expanded."""
    if isinstance(value, dict):
        return {key: _expanded(item, path) for key, item in value.items()}
    if isinstance(value, list):
        return [_expanded(item, path) for item in value]
    if not isinstance(value, str):
        return value

    def from_environment(found: re.Match[str]) -> str:
        variable = found[1] or found[2]
        if variable not in os.environ:
            raise StudyError(f"{path}: {value!r} needs the environment variable {variable}; set it")
        return os.environ[variable]

    return _VARIABLE.sub(from_environment, value)


def _adapted(study: Study, environment: Environment) -> Study:
    """Apply `MT_MODEL_NAME` and `MT_SAMPLE_SIZE` to a study; a changed study gets its own name."""
    if study.imported:
        return study
    name, changes = study.name, dict[str, Any]()
    model = environment.model_name
    if model is not None and model != getattr(study.model, "name", None):
        name += "_" + re.sub(r"[^A-Za-z0-9]+", "_", model.rstrip("/").rsplit("/", 1)[-1]).lower()
        changes["model"] = HubModel(
            name=model,
            precision=study.model.precision,
            attention=study.model.attention,
            finetune=study.model.finetune if isinstance(study.model, HubModel) else None,
        )
    if environment.sample_size is not None and environment.sample_size < study.samples:
        name += f"_{environment.sample_size}"
        changes["first_samples"] = environment.sample_size
    return study.model_copy(update={"name": name, **changes}) if changes else study
