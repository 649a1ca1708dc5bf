"""Read one JSON file into an array and the names of its rows, or report the place where the file is malformed."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gradsim.analysis.arrays import Floats
from gradsim.errors import TableError
from gradsim.published.layout import Source

Key = tuple[str, ...]  # a sample, or a query and an original

# What the keys of nested objects name, outermost first.
_DOT_LEVELS: Mapping[str, tuple[str, ...]] = {
    "dot_products": ("query", "original", "layer"),
    "query_self": ("query", "layer"),
    "original_self": ("original", "layer"),
}
_SIMILARITY_LEVELS = ("query", "original")

COSINE = ("similarity",)  # the only column of similarities, which have no layers
AGAIN = "copy the file from its source again"

_EXACT = 2**53  # floats represent every integer below this


@dataclass(frozen=True, slots=True)
class _JsonObject:
    """JSON object that keeps duplicate keys."""

    keys: tuple[str, ...]
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """Content of one file of a table.

    Attributes:
        name: File path; for projections, with the dimension.
        part: Positions of the queries according to the file name; None for a whole file.
        keys: Key of each row.
        columns: Layers, or `COSINE`.
        values: Values, (rows, columns).
    """

    name: str
    part: range | None
    keys: Sequence[Key]
    columns: tuple[str, ...]
    values: Floats


class _Row(NamedTuple):
    """Innermost JSON object and the keys that lead to it."""

    key: Key
    content: _JsonObject


class Reader:
    """Reader of JSON files that keeps a digest of everything it has read.

    Args:
        folder: Folder that file names in the digest are relative to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._digests: dict[str, str] = {}

    def read(self, path: Path) -> Any:
        """Return the JSON value in a file, with every number as a float and every object as a `_JsonObject`.

        Raises:
            TableError: The file cannot be read or is not JSON in UTF-8.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise TableError(f"{path}: cannot be read ({error.strerror}); fix this and try again") from error
        self._digests[Path(os.path.relpath(path, self._folder)).as_posix()] = sha256(content).hexdigest()
        try:
            # Numbers beyond the range of floats become infinite and are rejected with the other non-finite values.
            return json.loads(content.decode(), object_pairs_hook=_json_object, parse_int=float)
        except UnicodeDecodeError as error:
            raise TableError(f"{path}: is not UTF-8 text (byte {error.start}); {AGAIN}") from error
        except json.JSONDecodeError as error:
            cut = " - the file may be truncated" if error.pos >= len(error.doc.rstrip()) else ""
            raise TableError(f"{path}: is not valid JSON ({error}){cut}; {AGAIN}") from error
        except RecursionError as error:
            raise TableError(f"{path}: is nested too deeply; {AGAIN}") from error

    def digest(self) -> str:
        """Return the hexadecimal SHA-256 of the relative paths and contents of all files read so far."""
        lines = (f"{name}\0{digest}\n" for name, digest in sorted(self._digests.items()))
        return sha256("".join(lines).encode()).hexdigest()


def _json_object(pairs: list[tuple[str, Any]]) -> _JsonObject:
    return _JsonObject(*zip(*pairs, strict=True)) if pairs else _JsonObject((), ())


def read_dots(reader: Reader, source: Source, table: str, layers: Sequence[str] | None = None) -> Block:
    """Read dot products or self dot products.

    Args:
        reader: Reader of the file.
        source: File to read.
        table: `dot_products`, `query_self` or `original_self`.
        layers: Layers in the order of the columns; None for those of the row with the most layers.

    Raises:
        TableError: The file is malformed, a value is not finite, a self dot product is negative, or a row has other
            layers.
    """
    name, levels = str(source.path), _DOT_LEVELS[table]
    rows = list(_rows(reader.read(source.path), levels, name))
    layers = tuple(layers or max((row.content.keys for row in rows), key=len))
    rows = _with_layers(rows, levels, layers, name)
    values = _numbers(rows, levels, name).reshape(len(rows), len(layers))
    if table != "dot_products":
        for row, column in np.argwhere(values < 0)[:1]:
            raise TableError(
                f"{name}: {_at(levels, (*rows[row].key, layers[column]))} is {values[row, column]}, but a self dot "
                f"product is never negative ({(values < 0).sum()} of {values.size} are); {AGAIN}"
            )
    return Block(name, source.queries, [row.key for row in rows], layers, values)


def read_similarities(reader: Reader, source: Source) -> Block:
    """Read gradient similarities.

    Raises:
        TableError: The file is malformed, or a value is not finite.
    """
    return _similarities(source, reader.read(source.path), str(source.path))


def read_projections(reader: Reader, source: Source) -> dict[int, Block]:
    """Read projected similarities, and return them by projection dimension.

    Raises:
        TableError: The file is malformed, a value is not finite, or a dimension is not a positive integer below 2^53.
    """
    name = str(source.path)
    content = _checked_object(reader.read(source.path), name)
    blocks = {}
    for key, similarities in zip(content.keys, content.values, strict=True):
        digits = key.isascii() and key.isdecimal() and not key.startswith("0")
        # Check the length first: Python refuses to parse integers with thousands of digits.
        if not digits or len(key) > len(str(_EXACT)) or int(key) >= _EXACT:
            shown = repr(key) if len(key) <= 20 else f"{key[:20]!r}... ({len(key)} characters)"
            raise TableError(f"{name}: dimension {shown} is not a positive integer below 2^53; {AGAIN}")
        blocks[int(key)] = _similarities(source, similarities, f"{name}, dimension {key}")
    return blocks


def _similarities(source: Source, content: Any, name: str) -> Block:
    rows = list(_rows(content, _SIMILARITY_LEVELS, name))
    keys = [(*row.key, original) for row in rows for original in row.content.keys]
    values = _numbers(rows, _SIMILARITY_LEVELS, name).reshape(-1, 1)
    return Block(name, source.queries, keys, COSINE, values)


def read_parameters(reader: Reader, path: Path) -> dict[str, int]:
    """Read the number of parameters in each layer.

    Raises:
        TableError: The file is malformed, or a number is not a positive integer below 2^53.
    """
    content = _checked_object(reader.read(path), str(path))
    for layer, value in zip(content.keys, content.values, strict=True):
        if not (isinstance(value, float) and value.is_integer() and 0 < value < _EXACT):
            raise TableError(
                f"{path}: the size of layer {layer!r} is {_shown(value)}, not a positive integer below 2^53; {AGAIN}"
            )
    return {layer: int(value) for layer, value in zip(content.keys, content.values, strict=True)}


def _rows(content: Any, levels: Sequence[str], name: str, key: Key = ()) -> Iterator[_Row]:
    """Yield the innermost objects in file order."""
    content = _checked_object(content, f"{name}: {_at(levels, key)}" if key else name)
    if len(key) == len(levels) - 1:
        yield _Row(key, content)
        return
    for inner, value in zip(content.keys, content.values, strict=True):
        yield from _rows(value, levels, name, (*key, inner))


def _checked_object(content: Any, where: str) -> _JsonObject:
    """Return the content if it is a non-empty object without duplicate keys, and every key can be stored as text."""
    if not isinstance(content, _JsonObject):
        raise TableError(f"{where}: expected an object, found {_shown(content)}; {AGAIN}")
    if not content.keys:
        raise TableError(f"{where}: the object is empty; {AGAIN}")
    if repeated := len(content.keys) - len(set(content.keys)):
        first = next(key for key in content.keys if content.keys.count(key) > 1)
        raise TableError(f"{where}: key {first!r} is a duplicate ({repeated} duplicate keys in this object); {AGAIN}")
    for key in content.keys:
        try:
            key.encode()
        except UnicodeEncodeError as error:  # lone surrogates are valid JSON but not valid text
            raise TableError(f"{where}: key {key!r} contains half a surrogate pair; {AGAIN}") from error
    return content


def _with_layers(rows: Sequence[_Row], levels: Sequence[str], layers: tuple[str, ...], name: str) -> list[_Row]:
    """Return the rows with their layers in the given order."""
    known, found, wrong = set(layers), [], []
    for row in rows:
        if row.content.keys == layers:
            found.append(row)
        elif set(row.content.keys) == known:
            value = dict(zip(row.content.keys, row.content.values, strict=True))
            found.append(_Row(row.key, _JsonObject(layers, tuple(value[layer] for layer in layers))))
        else:
            wrong.append(row)
    for row in wrong[:1]:
        there = set(row.content.keys)
        missing = [layer for layer in layers if layer not in there]
        extra = [layer for layer in row.content.keys if layer not in known]
        fault = (
            f"lacks {len(missing)} of {len(layers)} layers, {missing[0]!r} first"
            if missing
            else f"has {len(extra)} layers that dot_products lacks, {extra[0]!r} first"
        )
        count = f"{len(wrong)} of {len(rows)} rows have other layers"
        raise TableError(f"{name}: {_at(levels, row.key)} {fault} ({count}); {AGAIN}")
    return found


def _numbers(rows: Sequence[_Row], levels: Sequence[str], name: str) -> Floats:
    """Return the values of all rows, concatenated."""
    values = list(chain.from_iterable(row.content.values for row in rows))
    if set(map(type, values)) == {float}:
        numbers = np.array(values, dtype=np.float64)
        if np.isfinite(numbers).all():
            return numbers
    wrong = [index for index, value in enumerate(values) if not (isinstance(value, float) and isfinite(value))]
    places = ((*row.key, key) for row in rows for key in row.content.keys)
    place = next(place for index, place in enumerate(places) if index == wrong[0])
    raise TableError(
        f"{name}: {_at(levels, place)} is {_shown(values[wrong[0]])}, not a finite number "
        f"({len(wrong)} of {len(values)} values are not); {AGAIN}"
    )


def _at(levels: Sequence[str], key: Key) -> str:
    """Return the place in a file that a key leads to, for an error message."""
    return ", ".join(f"{level} {name!r}" for level, name in zip(levels, key, strict=False))


def _shown(value: Any) -> str:
    """Return a JSON value for an error message."""
    match value:
        case _JsonObject():
            return "an object"
        case list():
            return "a list"
        case str():
            return f"the text {value!r}"
        case _:
            return json.dumps(value)
