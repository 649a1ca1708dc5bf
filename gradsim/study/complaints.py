"""One-line explanations of validation errors in study files, naming the key and the fix."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gradsim.errors import enumerated
from gradsim.study import datasets, definition, section, studied_model
from gradsim.study.chat import Chat
from gradsim.study.definition import Study
from gradsim.study.layers import Layers
from gradsim.study.section import IMPORTED, Section
from gradsim.study.settings import Prices, RewritingQuality, query_methods

# Position of the union member that pydantic inserts into an error's location, by top-level key.
_UNION_DEPTH = {"dataset": 1, "model": 1, "top_k": 1, "settings": 2, "chat": 2}

_LONGEST = 100  # characters of a key or value in a message

# Section class by location component; the last match in a location is the section of the key.
_SECTIONS: Mapping[str, type[Section]] = {
    "HubDataset": datasets.HubDataset,
    "FileDataset": datasets.FileDataset,
    "ImportedDataset": datasets.ImportedDataset,
    "HubModel": studied_model.HubModel,
    "ReferenceModel": studied_model.ReferenceModel,
    "ImportedModel": studied_model.ImportedModel,
    "reference": studied_model.Architecture,
    "finetune": studied_model.Finetune,
    "lora": studied_model.LoRA,
    "chat": Chat,
    "layers": Layers,
    "projections": definition.Projection,
    "quality": RewritingQuality,
    "prices": Prices,
}

# Expected values by type of pydantic error.
_NEEDS: Mapping[str, str] = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a mapping of keys to values",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "model_attributes_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "path_type": "a path",
    "string_type": "text",
    "too_short": "one entry at least",
    "tuple_type": "a list",
}


def explain(error: ValidationError) -> str:
    """Explain the first error of a study file; unknown keys come first because they often cause missing ones."""
    complaints = error.errors()
    first = next((complaint for complaint in complaints if complaint["type"] == "extra_forbidden"), complaints[0])
    place, value = _place(first), first["input"]
    match first["type"]:
        case "extra_forbidden":
            text = _unknown(place, _known_keys(first["loc"]))
        case "missing":
            text = f"key '{place}' is missing; add it"
        case "value_error":
            text = first["msg"].removeprefix("Value error, ")
        case "string_pattern_mismatch" if place == "name":
            text = f"'{_short(value)}' is not a valid study name; use letters, digits and underscores"
        case "string_pattern_mismatch":
            text = _unfit(place, value, ["the name of a file, such as model.gguf"])
        case "union_tag_not_found":
            text = f"key '{place}.method' is missing; it should be {_methods()}"
        case "union_tag_invalid":
            text = _unfit(f"{place}.method", value["method"], [_methods()])
        case section.NO_KIND:
            text = _without_kind(place, value, str(first["ctx"]["keys"]).split())
        case _:
            needs = [_need(complaint) for complaint in complaints if _place(complaint) == place]
            text = _unfit(place, value, needs)
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _place(complaint: ErrorDetails) -> str:
    """Return the key's path in the study file, such as `settings.paraphrased.path`."""
    location = complaint["loc"]
    depth = _UNION_DEPTH.get(str(location[0])) if location else None
    return ".".join(_short(part) for position, part in enumerate(location) if position != depth) or "the study"


def _short(part: object) -> str:
    text = str(part)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _need(complaint: ErrorDetails) -> str:
    if need := _NEEDS.get(complaint["type"]):
        return need.format(**complaint.get("ctx", {}))
    return complaint["msg"].removeprefix("Input should be ")


def _unfit(place: str, value: Any, needs: Iterable[str]) -> str:
    shown = "empty" if value is None else _short(repr(value))
    return f"key '{place}' is {shown}; it should be {' or '.join(needs)}"


def _unknown(place: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(place.rsplit(".", 1)[-1], known, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"known keys: {', '.join(known)}"
    return f"unknown key '{place}'; {hint}"


def _without_kind(place: str, value: Any, keys: list[str]) -> str:
    """Explain an error in a section that has none of the keys that determine its kind."""
    either = " or ".join(f"'{key}'" for key in keys)
    if not isinstance(value, dict):
        return _unfit(place, value, [f"a mapping with the key {either}"])
    for key in value:
        if difflib.get_close_matches(str(key), keys):
            return _unknown(f"{place}.{key}", keys)
    return f"key '{place}' has neither {either.replace(' or ', ' nor ')}; add one"


def _methods() -> str:
    # Nobody writes the method of imported settings by hand.
    return enumerated([f"'{name}'" for name in query_methods() if name != IMPORTED], "or")


def _known_keys(location: tuple[str | int, ...]) -> list[str]:
    """Return the valid keys of the section that contains an unknown key."""
    for part in reversed(location[:-1]):
        if section := query_methods().get(str(part)) or _SECTIONS.get(str(part)):
            return sorted(section.model_fields)
    return sorted(set(Study.model_fields) - {"name", "first_samples"})
