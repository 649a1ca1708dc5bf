"""A small study in the original layout, as nested dictionaries that tests modify before writing them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from gradsim.published import Published, find_published, read_published
from gradsim_assets_tests.gradsim.published.layout import write_json

MODEL = "org/model"
IDS = ("s0", "s1", "s2", "s3")
LAYERS = ("embed", "attention", "head")
DIMENSIONS = ("64", "8")
STEMS = {
    "dot_products": "dot_products",
    "query_self": "paraphrased_dot_products",
    "original_self": "original_dot_products",
}
COSINES = {"gradient_similarity": "gradient_similarity", "projections": "gradient_similarity/random_projection"}

Tables = dict[str, dict[str, Any]]


def tables_of(seed: int, lists: Mapping[str, list[str]]) -> Tables:
    """Return a setting's tables for random gradients."""
    draw = np.random.default_rng(seed).standard_normal
    originals = dict.fromkeys([*lists, *(original for candidates in lists.values() for original in candidates)])
    gradients = {
        (side, name): draw((len(LAYERS), 3)) for side, names in (("q", lists), ("o", originals)) for name in names
    }

    def dots(first: tuple[str, str], second: tuple[str, str]) -> dict[str, float]:
        products = (gradients[first] * gradients[second]).sum(axis=1).tolist()
        return dict(zip(LAYERS, products, strict=True))

    def cosines() -> dict[str, dict[str, float]]:
        return {query: {original: float(np.tanh(draw())) for original in lists[query]} for query in lists}

    return {
        "dot_products": {
            query: {original: dots(("q", query), ("o", original)) for original in lists[query]} for query in lists
        },
        "query_self": {query: dots(("q", query), ("q", query)) for query in lists},
        "original_self": {original: dots(("o", original), ("o", original)) for original in originals},
        "gradient_similarity": cosines(),
        "projections": {dimension: cosines() for dimension in DIMENSIONS},
    }


@dataclass
class Layout:
    """Content and folder of a study.

    Attributes:
        root: Folder of `data/` and `results/`.
        settings: Setting -> table -> JSON content.
        sizes: Layer -> number of parameters.
        size: Sample size.
    """

    root: Path
    settings: dict[str, Tables] = field(default_factory=dict)
    sizes: dict[str, Any] = field(default_factory=lambda: dict(zip(LAYERS, (30, 20, 10), strict=True)))
    size: str = "full"

    def whole(self, table: str, setting: str = "paraphrased") -> Path:
        """Return the path of a table's whole file."""
        if table in STEMS:
            return (
                self.root / "data/dot_products" / setting / MODEL / "sample_size" / self.size / f"{STEMS[table]}.json"
            )
        return self.root / "data" / COSINES[table] / setting / MODEL / f"sample_size_{self.size}.json"

    def part(self, table: str, start: int, end: int, setting: str = "paraphrased") -> Path:
        whole = self.whole(table, setting)
        return whole.with_name(f"{whole.stem}_part_{start}_{end}.json")

    def write(self) -> None:
        """Write every table as a whole file, and the layer sizes."""
        for setting, tables in self.settings.items():
            for table, content in tables.items():
                write_json(self.whole(table, setting), content)
        if self.sizes:
            write_json(self.root / "results/parameters_per_layer" / MODEL / "values.json", self.sizes)

    def write_parts(self, table: str, *ends: int, setting: str = "paraphrased", keep_whole: bool = False) -> None:
        """Write a table in parts that end before these positions."""
        content = self.settings[setting][table]
        queries = list(self.settings[setting]["query_self"])
        for start, end in zip((0, *ends), ends, strict=False):
            write_json(self.part(table, start, end, setting), self._slice(table, content, queries[start:end], setting))
        if not keep_whole:
            self.whole(table, setting).unlink()

    def _slice(self, table: str, content: dict[str, Any], queries: list[str], setting: str) -> dict[str, Any]:
        if table == "projections":
            return {dimension: {query: lists[query] for query in queries} for dimension, lists in content.items()}
        if table == "original_self":
            lists = self.settings[setting]["dot_products"]
            return {original: content[original] for query in queries for original in lists[query]}
        return {query: content[query] for query in queries}

    def read(self) -> Published:
        return read_published(find_published(self.root))

    @property
    def tables(self) -> Tables:
        """Tables of the paraphrased setting."""
        return self.settings["paraphrased"]


LISTS = {"s0": ["s1", "s0"], "s1": ["s1", "s3", "s0"], "s2": ["s2"], "s3": ["s0", "s3"]}


def same_tables(ours: Mapping[str, pl.DataFrame], theirs: Mapping[str, pl.DataFrame]) -> bool:
    """Return whether two settings have bitwise identical tables."""
    return ours.keys() == theirs.keys() and all(
        ours[name].equals(theirs[name]) and ours[name].schema == theirs[name].schema for name in ours
    )
