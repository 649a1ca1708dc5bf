"""From one JSON file to one flat array and the names of its rows, or an error that says where the file is wrong."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import chain
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradsim.errors import TableError
from gradsim.published.layout import Source

Floats = NDArray[np.float64]
Key = tuple[str, ...]  # a sample, or a query and an original

# What the keys of a file's nested objects are.
DOT_LEVELS = ("query", "original", "layer")
QUERY_LEVELS = ("query", "layer")
ORIGINAL_LEVELS = ("original", "layer")
SIMILARITY_LEVELS = ("query", "original")

COSINE = ("similarity",)  # the only column of cosines, which have no layers

_EXACT = 2**53  # from here on a float skips whole numbers

AGAIN = "take the file from its source again"


@dataclass(frozen=True, slots=True)
class JsonObject:
    """An object as it stands in the text: a key may be there twice."""

    keys: tuple[str, ...]
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Block:
    """What one file says of a table.

    Attributes:
        name: of the file, and of the part of its content.
        part: positions of the queries that it is of, if it is a part.
        keys: one a row.
        columns: the layers, or `COSINE`.
        values: (rows, columns).
    """

    name: str
    part: range | None
    keys: Sequence[Key]
    columns: tuple[str, ...]
    values: Floats

    @cached_property
    def queries(self) -> tuple[str, ...]:
        """The first names of the keys, each once, in order."""
        return tuple(dict.fromkeys(key[0] for key in self.keys))


class _Row(NamedTuple):
    """An innermost object and the keys that lead to it."""

    key: Key
    content: JsonObject


class Reader:
    """Reads files and keeps a digest of all that was read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._digests: dict[str, str] = {}

    def read(self, path: Path) -> JsonObject:
        """The object that a file holds; every number is a float.

        Raises:
            TableError: it cannot be read, or is no JSON object in UTF-8.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise TableError(f"{path}: cannot be read ({error.strerror}); mend that and read again") from error
        self._digests[Path(os.path.relpath(path, self._folder)).as_posix()] = sha256(content).hexdigest()
        try:
            # Numbers that are too large for a float become infinite, and are refused with all that are not finite.
            found = json.loads(content.decode(), object_pairs_hook=_object, parse_int=float)
        except UnicodeDecodeError as error:
            raise TableError(f"{path}: is not UTF-8 text (byte {error.start}); {AGAIN}") from error
        except json.JSONDecodeError as error:
            cut = " - it may be cut off" if error.pos >= len(error.doc.rstrip()) else ""
            raise TableError(f"{path}: is not JSON ({error}){cut}; {AGAIN}") from error
        except RecursionError as error:
            raise TableError(f"{path}: is nested far too deeply; {AGAIN}") from error
        if not isinstance(found, JsonObject):
            raise TableError(f"{path}: is {_shown(found)} where an object should be; {AGAIN}")
        return found

    def digest(self) -> str:
        """SHA-256 of the names (from the folder on) and contents of all files read, in hexadecimal."""
        lines = (f"{name}\0{digest}\n" for name, digest in sorted(self._digests.items()))
        return sha256("".join(lines).encode()).hexdigest()


def _object(pairs: list[tuple[str, Any]]) -> JsonObject:
    return JsonObject(*zip(*pairs, strict=True)) if pairs else JsonObject((), ())


def read_dots(reader: Reader, source: Source, levels: Sequence[str], layers: Sequence[str] | None = None) -> Block:
    """Dots or self dots, columns in the order of `layers`, whatever the file's; None: as its fullest row has them.

    Raises:
        TableError: the file is not as it should be, a value is no finite number, a self dot is negative, or a row
            has other layers.
    """
    name = str(source.path)
    rows = list(_rows(reader.read(source.path), levels, name))
    layers = tuple(layers or max((row.content.keys for row in rows), key=len))
    rows = _in_order(rows, levels, layers, name)
    values = _numbers(rows, levels, name).reshape(len(rows), len(layers))
    if levels is not DOT_LEVELS:
        for row, column in np.argwhere(values < 0)[:1]:
            raise TableError(
                f"{name}: {_at(levels, (*rows[row].key, layers[column]))} is {values[row, column]} and a self dot is "
                f"never negative ({(values < 0).sum()} of {values.size} are); {AGAIN}"
            )
    return Block(name, source.queries, [row.key for row in rows], layers, values)


def read_similarities(reader: Reader, source: Source) -> Block:
    """Cosines of pairs.

    Raises:
        TableError: the file is not as it should be, or a value is no finite number.
    """
    return _similarities(source, reader.read(source.path), str(source.path))


def read_projections(reader: Reader, source: Source) -> dict[int, Block]:
    """Dimension -> cosines of pairs.

    Raises:
        TableError: as `read_similarities`, or a dimension is no positive whole number below 2^53.
    """
    name = str(source.path)
    content = reader.read(source.path)
    _check_object(content, name)
    blocks = {}
    for key, similarities in zip(content.keys, content.values, strict=True):
        if not (key.isascii() and key.isdecimal() and not key.startswith("0")):
            raise TableError(f"{name}: {key!r} stands where a projection's dimension should; {AGAIN}")
        # Python does not read numbers of thousands of digits.
        if len(key) > len(str(_EXACT)) or int(key) >= _EXACT:
            raise TableError(f"{name}: dimension {_cut(key)} is more than any gradient has; {AGAIN}")
        blocks[int(key)] = _similarities(source, similarities, f"{name}, dimension {key}")
    return blocks


def _similarities(source: Source, content: Any, name: str) -> Block:
    rows = list(_rows(content, SIMILARITY_LEVELS, name))
    keys = [(*row.key, original) for row in rows for original in row.content.keys]
    values = _numbers(rows, SIMILARITY_LEVELS, name).reshape(-1, 1)
    return Block(name, source.queries, keys, COSINE, values)


def read_parameters(reader: Reader, path: Path) -> dict[str, int]:
    """Layer -> number of its elements.

    Raises:
        TableError: the file is not as it should be, or a value is no positive whole number below 2^53.
    """
    content = reader.read(path)
    _check_object(content, str(path))
    for layer, value in zip(content.keys, content.values, strict=True):
        if not (isinstance(value, float) and value.is_integer() and value > 0):
            raise TableError(f"{path}: layer {layer!r} has {_shown(value)} and no number of elements; {AGAIN}")
        if value >= _EXACT:
            raise TableError(f"{path}: layer {layer!r} has {value:g} elements, more than any layer has; {AGAIN}")
    return {layer: int(value) for layer, value in zip(content.keys, content.values, strict=True)}


def _rows(content: Any, levels: Sequence[str], name: str, key: Key = ()) -> Iterator[_Row]:
    """The innermost objects, in order."""
    where = f"{name}: {_at(levels, key)}" if key else name
    _check_object(content, where)
    if len(key) == len(levels) - 1:
        yield _Row(key, content)
        return
    for inner, value in zip(content.keys, content.values, strict=True):
        yield from _rows(value, levels, name, (*key, inner))


def _check_object(content: Any, where: str) -> None:
    """Whether it is an object that holds something, each key once, as text that can be stored."""
    if not isinstance(content, JsonObject):
        raise TableError(f"{where} is {_shown(content)} where an object should be; {AGAIN}")
    if not content.keys:
        raise TableError(f"{where} is an empty object; {AGAIN}")
    if repeated := len(content.keys) - len(set(content.keys)):
        first = next(key for key in content.keys if content.keys.count(key) > 1)
        raise TableError(
            f"{where}: key {first!r} stands twice in one object (repeated keys in it: {repeated}); {AGAIN}"
        )
    for key in content.keys:
        if not key.isascii() and not _is_text(key):
            raise TableError(f"{where}: key {key!r} holds half a character and is no text; {AGAIN}")


def _is_text(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:  # a lone surrogate is JSON but not text
        return False
    return True


def _in_order(rows: Sequence[_Row], levels: Sequence[str], layers: tuple[str, ...], name: str) -> list[_Row]:
    """Rows with their layers in this order."""
    known, found, wrong = set(layers), [], []
    for row in rows:
        if row.content.keys == layers:
            found.append(row)
        elif set(row.content.keys) == known:
            value = dict(zip(row.content.keys, row.content.values, strict=True))
            found.append(_Row(row.key, JsonObject(layers, tuple(value[layer] for layer in layers))))
        else:
            wrong.append(row)
    for row in wrong[:1]:
        there = set(row.content.keys)
        missing = [layer for layer in layers if layer not in there]
        odd = [layer for layer in row.content.keys if layer not in known]
        fault = (
            f"lacks {len(missing)} of {len(layers)} layers, {missing[0]!r} first"
            if missing
            else f"has {len(odd)} layers that dot_products has not, {odd[0]!r} first"
        )
        count = f"{len(wrong)} of {len(wrong) + len(found)} have other layers"
        raise TableError(f"{name}: {_at(levels, row.key)} {fault} ({count}); {AGAIN}")
    return found


def _numbers(rows: Sequence[_Row], levels: Sequence[str], name: str) -> Floats:
    """All values, one row after the other."""
    values = list(chain.from_iterable(row.content.values for row in rows))
    if set(map(type, values)) == {float}:
        numbers = np.array(values, dtype=np.float64)
        if np.isfinite(numbers).all():
            return numbers
    wrong = [index for index, value in enumerate(values) if not (isinstance(value, float) and isfinite(value))]
    places = ((*row.key, key) for row in rows for key in row.content.keys)
    place = next(place for index, place in enumerate(places) if index == wrong[0])
    raise TableError(
        f"{name}: {_at(levels, place)} is {_shown(values[wrong[0]])} and no finite number "
        f"({len(wrong)} of {len(values)} are none); {AGAIN}"
    )


def _cut(digits: str) -> str:
    return digits if len(digits) <= 20 else f"{digits[:20]}... ({len(digits)} digits)"


def _at(levels: Sequence[str], key: Key) -> str:
    return ", ".join(f"{level} {name!r}" for level, name in zip(levels, key, strict=False))


def _shown(value: Any) -> str:
    """A JSON value for an error's text."""
    match value:
        case JsonObject():
            return "an object"
        case list():
            return "a list"
        case str():
            return f"the text {value!r}"
        case _:
            return json.dumps(value)
