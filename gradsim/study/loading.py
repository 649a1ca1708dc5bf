"""Reading study files. Whatever is wrong with one is said in a line that names the file, the key and the mend."""

import difflib
import os
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from gradsim.environment import Environment, read_environment
from gradsim.errors import StudyError
from gradsim.study.definition import HubModel, Study


def load_study(name: str | Path, environment: Environment | None = None) -> Study:
    """The study of this name, or of this file, as the environment wants it.

    `MT_SAMPLE_SIZE` and `MT_MODEL_NAME` make it another study with a name of its own.

    Raises:
        StudyError: no such study, or its file cannot be followed.
    """
    environment = environment or read_environment()
    path = Path(name)
    if path.suffix not in {".yaml", ".yml"}:
        path = _study_file(str(name), environment)
    return _adapted(_read(path), environment)


def load_studies(environment: Environment | None = None) -> list[Study]:
    """Every study of the studies folder, and those that were imported into the data root, by name.

    Raises:
        StudyError: a file cannot be followed, or two studies have one name.
    """
    environment = environment or read_environment()
    studies: dict[str, Study] = {}
    for path in _study_files(environment):
        study = _adapted(_read(path), environment)
        if study.name in studies:
            raise StudyError(f"{path}: there is another study named '{study.name}'; rename one file")
        studies[study.name] = study
    return list(studies.values())


def _study_files(environment: Environment) -> list[Path]:
    folder = environment.studies_folder
    if not folder.is_dir():
        raise StudyError(f"{folder}: no such folder of studies; set GRADSIM_STUDIES or create it")
    return sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])


def _study_file(name: str, environment: Environment) -> Path:
    files = {path.stem: path for path in _study_files(environment)}
    # An adapted study is also found by the name that its tables bear.
    candidates = [stem for stem in files if name == stem or name.startswith(f"{stem}_")]
    for stem in sorted(candidates, key=len, reverse=True):
        if name == stem or _adapted(_read(files[stem]), environment).name == name:
            return files[stem]
    close = difflib.get_close_matches(name, files, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(files) or 'none'}"
    raise StudyError(f"no study '{name}' in {environment.studies_folder}; {hint}")


def _read(path: Path) -> Study:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StudyError(f"{path}: no such study file; check the name or create it") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = f"{path}, line {line + 1}" if line is not None else str(path)
        raise StudyError(f"{where}: not readable as YAML; correct its syntax") from error
    if not isinstance(content, dict):
        raise StudyError(f"{path}: not a mapping of keys to values; see studies/sample.yaml for one")
    definition = {"name": path.stem, **_expanded(content, path)}
    try:
        return Study.model_validate(definition, context={"folder": path.parent.resolve()})
    except ValidationError as error:
        raise StudyError(f"{path}: {_explained(error)}") from error


def _expanded(value: Any, path: Path) -> Any:
    """`$VARIABLE` and `${VARIABLE}` in texts replaced from the environment."""
    if isinstance(value, dict):
        return {key: _expanded(item, path) for key, item in value.items()}
    if isinstance(value, list):
        return [_expanded(item, path) for item in value]
    if not isinstance(value, str):
        return value
    expanded = os.path.expandvars(value)
    if missing := re.search(r"\$\{?(\w+)", expanded):
        raise StudyError(f"{path}: '{value}' needs the environment variable {missing[1]}; set it")
    return expanded


# Pydantic names the member of a union that it tried; a user has never heard of it.
_UNION_MEMBERS = re.compile(r"^(HubDataset|FileDataset|HubModel|ReferenceModel|int|constrained-int|literal\[.*\])$")


def _explained(error: ValidationError) -> str:
    """The first complaint that a user can act on, as `key: what; mend`."""
    complaints = error.errors()
    unknown = next((c for c in complaints if c["type"] == "extra_forbidden"), None)
    first = unknown or complaints[0]
    keys = [str(part) for part in first["loc"] if not _UNION_MEMBERS.match(str(part))]
    place = ".".join(keys) or "the study"
    if first["type"] == "extra_forbidden":
        known = _known_keys(first["loc"])
        close = difflib.get_close_matches(keys[-1], known, n=1)
        mend = f"did you mean '{close[0]}'?" if close else f"known keys: {', '.join(known)}"
        return f"unknown key '{place}'; {mend}"
    if first["type"] == "missing":
        return f"key '{place}' is missing; add it"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return f"{message}; correct it"
    return f"key '{place}' is {first['input']!r}: {message[0].lower()}{message[1:]}; correct it"


def _known_keys(location: tuple[str | int, ...]) -> list[str]:
    """Keys that the section of an unknown key does know."""
    if len(location) == 1:
        return sorted(set(Study.model_fields) - {"name", "first_samples"})
    sections = {section.__name__: section for section in _all_sections()}
    by_method = {
        section.model_fields["method"].annotation.__args__[0]: section
        for section in _all_sections()
        if "method" in section.model_fields
    }
    for part in reversed(location[:-1]):
        if section := sections.get(str(part)) or by_method.get(str(part)):
            return sorted(section.model_fields)
    if location[0] == "projections":
        return sorted(sections["Projection"].model_fields)
    return []


def _all_sections() -> list[type[Any]]:
    from gradsim.study import definition  # noqa: PLC0415 - the classes as data

    return [
        value
        for value in vars(definition).values()
        if isinstance(value, type) and issubclass(value, definition.Section)
    ]


def _adapted(study: Study, environment: Environment) -> Study:
    """The study that `MT_MODEL_NAME` and `MT_SAMPLE_SIZE` ask for; itself where they change nothing."""
    name, changes = study.name, dict[str, Any]()
    model = environment.model_name
    if model is not None and model != getattr(study.model, "name", None):
        name += "_" + re.sub(r"\W+", "_", model.rstrip("/").rsplit("/", 1)[-1]).lower()
        changes["model"] = HubModel(name=model, precision=study.model.precision, attention=study.model.attention)
    if environment.sample_size is not None and environment.sample_size < study.samples:
        name += f"_{environment.sample_size}"
        changes["first_samples"] = environment.sample_size
    return study.model_copy(update={"name": name, **changes}) if changes else study
