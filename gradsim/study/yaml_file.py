"""Read YAML files of others: small, without anchors, and with an error of one line for anything malformed."""

import reprlib
from pathlib import Path
from typing import Any

import yaml

from gradsim.errors import StudyError, parsing

_LARGEST = 100_000  # bytes; a second to parse
_DEEPEST = 20  # nested lists and mappings; a study has 5
_BITS = 63  # of an integer, as in tables


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        StudyError: The file cannot be read, or is not a mapping in YAML of limited size and nesting. Anchors and
            aliases are refused because a few lines of them can stand for billions of values.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except FileNotFoundError as error:
        raise StudyError(f"{path}: no such study file; check the name or create it") from error
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror}); make it a readable file") from error
    if len(content) > _LARGEST:
        raise StudyError(f"{path}: is larger than {_LARGEST:,} bytes; keep data in other files")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise StudyError(f"{path}: not UTF-8 text; save it as such") from error
    with parsing(StudyError, f"{path}: not YAML", "correct its syntax"):
        value = _parsed(text, path)
    if not isinstance(value, dict):
        raise StudyError(f"{path}: not a mapping of keys to values; see studies/sample.yaml for one")
    return value


def _parsed(text: str, path: Path) -> Any:
    try:
        return _Loader(text).get_single_data()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        if isinstance(error, _RefusedError):
            raise StudyError(f"{where}: {error.problem}") from error
        reason = getattr(error, "problem", None) or getattr(error, "reason", "")
        raise StudyError(f"{where}: not YAML ({reason}); correct its syntax") from error


class _RefusedError(yaml.MarkedYAMLError):  # type: ignore[misc] # pyyaml has no types
    """Valid YAML that is refused."""

    def __init__(self, problem: str, mark: yaml.Mark) -> None:
        super().__init__(problem=problem, problem_mark=mark)


class _Loader(yaml.SafeLoader):  # type: ignore[misc] # pyyaml has no types
    """Loader that refuses anchors, deep nesting and duplicate keys, and names the line of every fault."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if event.anchor is not None:  # an alias has one, too
            raise _RefusedError(
                f"{reprlib.repr(event.anchor)} is an anchor or alias; write its value out", event.start_mark
            )
        if self._depth == _DEEPEST:
            raise _RefusedError(f"nested more than {_DEEPEST} levels deep; remove levels", event.start_mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if str(key.value) in seen:  # YAML would silently use the last one
                raise _RefusedError(f"key {_shown(key)} is a duplicate; remove it", key.start_mark)
            seen.add(str(key.value))
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        kind = node.tag.rpartition(":")[2]
        try:
            value = super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        except Exception as error:  # such as KeyError for `!!bool x`
            raise _RefusedError(f"{_shown(node)} is not of type {kind}; correct it", node.start_mark) from error
        if isinstance(value, int) and value.bit_length() > _BITS:
            raise _RefusedError(f"{_shown(node)} is out of range; use a smaller number", node.start_mark)
        return value


def _shown(node: Any) -> str:
    return reprlib.repr(node.value)
