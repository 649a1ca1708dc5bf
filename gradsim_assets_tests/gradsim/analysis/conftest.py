"""Small studies whose gradients are known, as the long tables of dots."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

WIDTH = 2


@dataclass(frozen=True)
class SmallStudy:
    """Gradients, (n_layers, WIDTH) each, and the tables made from them."""

    queries: dict[str, np.ndarray]
    originals: dict[str, np.ndarray]
    dot_products: pl.DataFrame
    query_self: pl.DataFrame
    original_self: pl.DataFrame

    @property
    def tables(self) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
        return self.dot_products, self.query_self, self.original_self


def make_study(
    queries: dict[str, np.ndarray], originals: dict[str, np.ndarray], lists: dict[str, list[str]]
) -> SmallStudy:
    """Tables of dots; layer names are out of alphabetical order on purpose."""
    n_layers = len(next(iter(queries.values())))
    layers = [f"layer.{n_layers - position}" for position in range(n_layers)]
    dots = [
        (query, original, rank, layer, float(queries[query][at] @ originals[original][at]))
        for query, candidates in lists.items()
        for rank, original in enumerate(candidates)
        for at, layer in enumerate(layers)
    ]

    def self_dots(side: str, gradients: dict[str, np.ndarray]) -> pl.DataFrame:
        rows = [
            (name, layer, float(gradient[at] @ gradient[at]))
            for name, gradient in gradients.items()
            for at, layer in enumerate(layers)
        ]
        return pl.DataFrame(rows, schema=[f"{side}_id", "layer", "self_dot"], orient="row")

    return SmallStudy(
        queries,
        originals,
        pl.DataFrame(dots, schema=["query_id", "original_id", "rank", "layer", "dot"], orient="row"),
        self_dots("query", queries),
        self_dots("original", originals),
    )


@pytest.fixture(scope="session")
def draw_study() -> Callable[[st.DataObject], SmallStudy]:
    """Draws a study with small whole gradients, so that zeros, ties and lists of one are common."""

    def draw(data: st.DataObject) -> SmallStudy:
        names = [f"s{number}" for number in range(data.draw(st.integers(1, 5), "samples"))]
        shape = (data.draw(st.integers(1, 4), "layers"), WIDTH)
        gradient = hnp.arrays(np.float64, shape, elements=st.integers(-2, 2).map(float))
        lists = {}
        for name in names:
            others = data.draw(st.lists(st.sampled_from(names), unique=True), f"candidates of {name}")
            candidates = sorted({name, *others})
            lists[name] = data.draw(st.permutations(candidates), f"list of {name}")
        return make_study(
            {name: data.draw(gradient, f"query {name}") for name in names},
            {name: data.draw(gradient, f"original {name}") for name in names},
            lists,
        )

    return draw


@pytest.fixture(scope="session")
def study_of() -> Callable[..., SmallStudy]:
    """Makes a study of gradients of queries, gradients of originals, and lists of candidates."""
    return make_study


@pytest.fixture
def study() -> SmallStudy:
    """Three queries: one right, one wrong, one tied with the source among the two best."""
    e1, e2 = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    originals = {
        "a": np.stack([e1, e1]),
        "b": np.stack([e2, e2]),
        "c": np.stack([e2, e2]),
        "unused": np.stack([e1, e2]),
    }
    queries = {"a": np.stack([e1, 2 * e1]), "b": np.stack([e1, e1]), "c": np.stack([e2, e2])}
    lists = {"a": ["b", "a"], "b": ["b", "a", "c"], "c": ["b", "a", "c"]}
    return make_study(queries, originals, lists)


@pytest.fixture
def similarity() -> Callable[..., pl.DataFrame]:
    """Makes `gradient_similarity` from query -> candidates with their similarity, in rank order."""

    def make(**lists: list[tuple[str, float]]) -> pl.DataFrame:
        rows = [
            (query, original, rank, value)
            for query, candidates in lists.items()
            for rank, (original, value) in enumerate(candidates)
        ]
        return pl.DataFrame(
            rows,
            schema={
                "query_id": pl.String,
                "original_id": pl.String,
                "rank": pl.Int32,
                "similarity": pl.Float64,
            },
            orient="row",
        )

    return make
