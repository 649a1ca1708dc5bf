"""Studies of unusual shapes, and the tables as they are really made."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure

from gradsim import analysis, plots
from gradsim.analysis import QUESTIONS, Criterion
from gradsim.plots import style
from gradsim_assets_tests.gradsim.plots import frames

pytestmark = pytest.mark.slow


def study(layers: list[str], n_queries: int, n_candidates: int, *, tied: bool = False) -> dict[str, pl.DataFrame]:
    """Answers to all questions that need no projection's kind, from random dots; no sizes are known."""
    random = np.random.default_rng(3)
    names = [f"s{number}" for number in range(max(n_queries, n_candidates))]
    shape = (len(names), len(layers), 6)
    originals = np.ones(shape) if tied else random.normal(size=shape)
    queries = np.ones(shape) if tied else originals + random.normal(size=shape)
    pairs = [
        (names[query], names[(query + rank) % len(names)], rank, query, (query + rank) % len(names))
        for query in range(n_queries)
        for rank in range(n_candidates)
    ]

    def long(keys: Mapping[str, Sequence[object]], column: str, values: np.ndarray) -> pl.DataFrame:
        repeated = {name: np.repeat(np.array(key), len(layers)) for name, key in keys.items()}
        return pl.DataFrame({**repeated, "layer": np.tile(layers, len(values)), column: values.ravel()})

    query_ids, original_ids, ranks, query, original = (list(column) for column in zip(*pairs, strict=True))
    dots = np.einsum("plw,plw->pl", queries[query], originals[original])
    tables = {
        "dot_products": long({"query_id": query_ids, "original_id": original_ids, "rank": ranks}, "dot", dots),
        "query_self": long({"query_id": names[:n_queries]}, "self_dot", (queries[:n_queries] ** 2).sum(axis=2)),
        "original_self": long({"original_id": names}, "self_dot", (originals**2).sum(axis=2)),
        "parameters_per_layer": frames.parameters(layers, sized=False),
    }
    similarity = analysis.gradient_similarity(tables["dot_products"], tables["query_self"], tables["original_self"])
    tables |= {
        "gradient_similarity": similarity,
        "candidates": similarity.select(
            "query_id", "original_id", "rank", score=frames.NULL, forced=frames.NULL.cast(pl.Boolean)
        ),
        "projected_similarity": pl.DataFrame(
            schema={"projection": pl.String, "dimension": pl.Int64, **similarity.schema}
        ),
    }
    for name, question in QUESTIONS.items():
        if "projections" not in question.inputs:
            tables[name] = question.answer(tables, 42)
    return tables


def figures_of(tables: dict[str, pl.DataFrame], *, blocks: bool = True) -> Iterator[Callable[[], Figure]]:
    """Every figure that a study without sizes and projections has."""
    sizes = tables["parameters_per_layer"]
    by_accuracy, by_similarity = (tables[f"greedy_by_{criterion}"] for criterion in Criterion)
    yield lambda: plots.accuracy_of_methods({"s": tables["accuracy"]}, {"s": tables["controls"]})
    yield lambda: plots.recall_at_k(tables["retrieval"])
    yield lambda: plots.source_against_others(tables["decisions"])
    yield lambda: plots.accuracy_of_layers(tables["accuracy_per_layer"], sizes)
    yield lambda: plots.layers_against_full_gradient(tables["similarity_to_full_gradient"], sizes)
    yield lambda: plots.means_of_groups(tables["layer_means"])
    yield lambda: plots.differences_of_layers(tables["layer_differences"], tables["accuracy_per_layer"])
    yield lambda: plots.greedy_selection(
        by_accuracy, by_similarity, tables["held_out_selection"], tables["accuracy"], tables["select_or_project"]
    )
    yield lambda: plots.selection_order(by_accuracy, sizes, Criterion.ACCURACY)
    yield lambda: plots.selection_order(by_similarity, sizes, Criterion.SIMILARITY)
    query = tables["similarity_over_layers"]["query_id"][0]
    yield lambda: plots.similarity_over_layers(tables["similarity_over_layers"].filter(pl.col("query_id") == query))
    if blocks:
        yield lambda: plots.means_by_depth(tables["layer_means"])
        yield lambda: plots.attention_and_mlp(tables["layer_means"], tables["attention_against_mlp"])


@pytest.mark.parametrize(
    ("layers", "n_queries", "n_candidates", "tied"),
    [
        (["w"], 1, 1, False),
        (["w"], 4, 3, True),
        (["a", "b", "c"], 5, 1, False),
        (frames.layer_names(1), 1, 3, False),
        (frames.layer_names(2), 12, 5, True),
        (frames.layer_names(3), 12, 5, False),
        (frames.layer_names(1, ["mlp.up_proj"]), 12, 12, False),
    ],
)
@pytest.mark.filterwarnings("error")
def test_every_figure_of_real_tables(layers: list[str], n_queries: int, n_candidates: int, tied: bool) -> None:
    tables = study(layers, n_queries, n_candidates, tied=tied)
    for number, draw in enumerate(figures_of(tables, blocks=len(layers) > 3)):
        figure = draw()
        assert figure.get_size_inches()[0] == style.WIDTH
        assert plots.title_of(figure)
        assert plots.to_png(figure, 40).startswith(b"\x89PNG")
        assert plots.to_svg(figure, f"x{number}").startswith("<svg")


@pytest.mark.parametrize(("n_blocks", "sized"), [(16, False), (57, True)])
@pytest.mark.filterwarnings("error")
def test_every_figure_of_many_layers(n_blocks: int, sized: bool) -> None:
    layers = frames.layer_names(n_blocks, [*frames.PARTS, "self_attn.v_proj"])
    sizes = frames.parameters(layers, sized=sized)
    random = np.random.default_rng(2)
    accuracy = frames.accuracy_per_layer(layers, random.uniform(0.3, 0.9, len(layers)))
    greedy = frames.greedy(layers, sizes=sizes if sized else None)
    blocks = [(str(block), 0.3 + block / 100) for block in range(n_blocks)]
    means = frames.layer_means({"block": blocks, "part": [("attention", 0.5), ("MLP", 0.7)]})
    against = frames.attention_against_mlp(dict.fromkeys([None, *range(n_blocks)], (0.1, 0.05, 0.2)))
    candidates = {f"s{number}": random.normal(size=len(layers)) for number in range(12)}
    differences = frames.layer_differences(layers, 90)
    draws: list[Callable[[], Figure]] = [
        lambda: plots.accuracy_of_layers(accuracy, sizes),
        lambda: plots.layers_against_full_gradient(frames.similarity_to_full_gradient(layers), sizes),
        lambda: plots.means_by_depth(means),
        lambda: plots.attention_and_mlp(means, against),
        lambda: plots.differences_of_layers(differences, accuracy),
        lambda: plots.greedy_selection(
            greedy, greedy, frames.held_out(greedy), frames.accuracy({"full_gradient": 0.6}), frames.contests([])
        ),
        lambda: plots.selection_order(greedy, sizes, Criterion.ACCURACY),
        lambda: plots.similarity_over_layers(frames.over_layers(layers, candidates)),
        lambda: plots.transfer_of_selections(frames.transfer(["a", "b"], greedy["value"], greedy["low"])),
    ]
    for number, draw in enumerate(draws):
        figure = draw()
        assert figure.get_size_inches()[0] == style.WIDTH
        assert plots.to_png(figure, 40).startswith(b"\x89PNG")
        # A page has dozens of them.
        assert len(plots.to_svg(figure, f"x{number}")) < 500_000
