"""Selections of layers beside a plain search, and what they are worth beside plain loops."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradsim.analysis import LayerDots
from gradsim.analysis.layers import parameters_per_layer
from gradsim.analysis.selection import (
    Criterion,
    greedy_selection,
    held_out_selection,
    select_or_project,
    selection_transfer,
    selection_under_budget,
    value_of_selection,
)
from gradsim.analysis.selection.budget import evaluate_selection
from gradsim.analysis.selection.greedy import elimination_order, greedy_order
from gradsim.analysis.selection.halves import HeldOut, split_halves
from gradsim.analysis.statistics import Bootstrap, wilson_interval
from gradsim.errors import TableError


def sizes(dots: LayerDots, known: bool = True) -> pl.DataFrame:
    table = parameters_per_layer(
        pl.DataFrame({"layer": dots.layers, "parameters": [10 * (at + 1) for at in range(len(dots.layers))]})
    )
    return table if known else table.with_columns(parameters=pl.lit(None, pl.Int64), share=pl.lit(None, pl.Float64))


def plain_value(dots: LayerDots, layers: list[str], criterion: Criterion, queries: set[str] | None = None) -> float:
    """Accuracy or similarity to the full gradient, one query after the other."""
    chosen, full = dots.similarity(layers), dots.similarity()
    credit, of_chosen, of_full = [], [], []
    for query in dots.lists.query_ids:
        if queries is not None and query not in queries:
            continue
        at = np.flatnonzero((dots.pairs["query_id"] == query).to_numpy())
        is_best = chosen[at] == chosen[at].max()
        is_source = (dots.pairs["original_id"] == query).to_numpy()[at]
        credit.append(float(is_best[is_source][0]) / is_best.sum())
        of_chosen += list(chosen[at])
        of_full += list(full[at])
    if criterion is Criterion.ACCURACY:
        return float(np.mean(credit))
    norms = np.linalg.norm(of_chosen) * np.linalg.norm(of_full)
    return float(np.dot(of_chosen, of_full) / norms) if norms else 0.0


def random_dots(n_queries: int, n_layers: int, *, n_candidates: int = 4, seed: int = 0) -> LayerDots:
    """Gradients of queries are those of their sources with noise; names of samples ascend."""
    random = np.random.default_rng(seed)
    names = [f"s{number:03d}" for number in range(n_queries)]
    originals = random.normal(size=(n_queries, n_layers, 5))
    queries = originals + random.normal(0, 2.5, size=originals.shape)
    layers = [f"model.layers.{at}.mlp.up_proj.weight" for at in range(n_layers)]
    lists = [(np.arange(n_candidates) + at) % n_queries for at in range(n_queries)]
    pairs = [(at, other, rank) for at, each in enumerate(lists) for rank, other in enumerate(each)]
    dots = pl.DataFrame(
        [
            (names[query], names[original], rank, layer, float(queries[query, at] @ originals[original, at]))
            for query, original, rank in pairs
            for at, layer in enumerate(layers)
        ],
        schema=["query_id", "original_id", "rank", "layer", "dot"],
        orient="row",
    )
    selves = [
        pl.DataFrame(
            [
                (name, layer, float(gradients[row, at] @ gradients[row, at]))
                for row, name in enumerate(names)
                for at, layer in enumerate(layers)
            ],
            schema=[f"{side}_id", "layer", "self_dot"],
            orient="row",
        )
        for side, gradients in (("query", queries), ("original", originals))
    ]
    return LayerDots.from_tables(dots, *selves)


@pytest.fixture(scope="module")
def dots() -> LayerDots:
    return random_dots(24, 6)


@pytest.mark.parametrize("criterion", Criterion)
@given(data=st.data())
def test_every_step_takes_the_best_layer_the_first_of_equal_ones(draw_study, criterion, data) -> None:
    dots = LayerDots.from_tables(*draw_study(data).tables)
    order, values, tied = greedy_order(dots, criterion)
    names = dots.layers.to_list()
    assert sorted(order) == list(range(len(names)))
    for step, value in enumerate(values):
        chosen = [names[at] for at in order[:step]]
        left = [name for name in names if name not in chosen]
        tried = [plain_value(dots, [*chosen, name], criterion) for name in left]
        assert value == pytest.approx(max(tried), abs=1e-12)
        first = next(name for name, each in zip(left, tried, strict=True) if each >= max(tried) - 1e-12)
        assert names[order[step]] == first
        assert tied[step] == sum(each >= max(tried) - 1e-12 for each in tried)


@pytest.mark.parametrize("criterion", Criterion)
def test_an_elimination_gives_up_the_layer_that_the_others_do_best_without(dots, criterion) -> None:
    names = dots.layers.to_list()
    order = elimination_order(dots, criterion)
    assert sorted(order) == list(range(len(names)))
    for kept in range(len(names), 1, -1):
        left = [names[at] for at in sorted(order[:kept])]
        tried = [plain_value(dots, [name for name in left if name != each], criterion) for each in left]
        last = [each for each, value in zip(left, tried, strict=True) if value >= max(tried) - 1e-12][-1]
        assert names[order[kept - 1]] == last


@pytest.mark.parametrize("criterion", Criterion)
def test_values_are_those_of_the_layers_together(dots, criterion) -> None:
    table = greedy_selection(dots, sizes(dots), criterion, seed=1)
    layers = table["layer"].to_list()
    for step in (1, 3, 6):
        assert table["value"][step - 1] == pytest.approx(plain_value(dots, layers[:step], criterion), abs=1e-12)
    assert table["value"][-1] == pytest.approx(plain_value(dots, dots.layers.to_list(), criterion), abs=1e-12)
    assert (table["low"] <= table["value"] + 1e-12).all()
    assert (table["high"] >= table["value"] - 1e-12).all()
    if criterion is Criterion.ACCURACY:
        low, high = wilson_interval(24 * table["value"].to_numpy(), 24)
        assert table["low"].to_numpy() == pytest.approx(low)
        assert table["high"].to_numpy() == pytest.approx(high)
    assert (
        table["parameters"].to_list() == np.cumsum([10 * (dots.layers.to_list().index(x) + 1) for x in layers]).tolist()
    )
    assert table["parameter_share"][-1] == 1.0


def test_sizes_may_be_unknown(dots) -> None:
    unknown = sizes(dots, known=False)
    for criterion in Criterion:
        table = greedy_selection(dots, unknown, criterion, seed=1)
        assert table["parameters"].null_count() == table["parameter_share"].null_count() == 6
    assert held_out_selection(dots, unknown, seed=1)["parameter_share"].null_count() == 12
    assert selection_under_budget(dots, unknown, [50], seed=1).is_empty()


def test_a_layer_without_a_row_in_the_sizes_is_named(dots) -> None:
    with pytest.raises(TableError, match=r"model\.layers\.0\.mlp.*not in parameters_per_layer"):
        greedy_selection(dots, sizes(dots)[1:], Criterion.ACCURACY, seed=1)


@pytest.mark.parametrize("criterion", Criterion)
def test_what_is_held_out_was_not_selected_on(dots, criterion) -> None:
    table = held_out_selection(dots, sizes(dots), seed=3).filter(criterion=str(criterion))
    names, ids = dots.layers.to_list(), dots.lists.query_ids.to_list()
    in_sample, held_out = [], []
    for half in split_halves(len(ids), seed=3):
        assert set(half.chosen_on) | set(half.judged_on) == set(range(len(ids)))
        assert not set(half.chosen_on) & set(half.judged_on)
        first = [names[greedy_order(dots.of_queries(half.chosen_on), criterion).order[0]]]
        in_sample.append(plain_value(dots, first, criterion, {ids[at] for at in half.chosen_on}))
        held_out.append(plain_value(dots, first, criterion, {ids[at] for at in half.judged_on}))
    assert table["in_sample"][0] == pytest.approx(np.mean(in_sample), abs=1e-12)
    assert table["held_out"][0] == pytest.approx(np.mean(held_out), abs=1e-12)
    assert table["low"][0] < table["held_out"][0] < table["high"][0]


def test_intervals_of_halves_are_those_of_plain_resampling(dots) -> None:
    """One layer judged on the halves, resampled query by query."""
    n = len(dots.query_self_dots)
    full, alone = dots.similarity(), dots.similarity([dots.layers[2]])
    held_out = HeldOut()
    for half in split_halves(n, seed=3):
        held_out.add(half, evaluate_selection(dots.of_queries(half.judged_on), np.array([2])))
    bootstrap = Bootstrap(n, seed=4, resamples=50)
    draws = held_out.draws(Criterion.SIMILARITY, bootstrap)[:, 0]
    (weights,) = bootstrap.weights()
    for resample in (0, 17, 49):
        cosines = []
        for half in split_halves(n, seed=3):
            pair = dots.lists.pairs_of(half.judged_on)
            weight = weights[resample][dots.lists.query[pair]]
            if weight.any():
                norms = np.sqrt((weight * alone[pair] ** 2).sum() * (weight * full[pair] ** 2).sum())
                cosines.append((weight * alone[pair] * full[pair]).sum() / norms)
        assert draws[resample] == pytest.approx(np.mean(cosines), abs=1e-10)


def test_noise_is_not_selected_twice() -> None:
    """Where no layer knows the source, the best of many looks good on its own queries, and only there."""
    dots = random_dots(60, 40, seed=5)
    random = np.random.default_rng(6)
    noise = LayerDots(**{**vars(dots), "dots": random.normal(size=dots.dots.shape)})
    first = held_out_selection(noise, sizes(noise), seed=1).filter(criterion="accuracy", step=1).row(0, named=True)
    assert first["in_sample"] > 0.36
    assert first["low"] < 0.25 < first["high"]


def test_a_single_query_cannot_be_held_out() -> None:
    dots = random_dots(1, 3, n_candidates=1)
    assert held_out_selection(dots, sizes(dots), seed=1).is_empty()
    assert greedy_selection(dots, sizes(dots), Criterion.ACCURACY, seed=1)["value"].to_list() == [1.0] * 3


@pytest.mark.parametrize("budget", [10, 25, 60, 210, 10_000])
def test_a_budget_is_kept_and_the_shortest_best_selection_taken(dots, budget) -> None:
    table = selection_under_budget(dots, sizes(dots), [budget], seed=1).filter(budget=budget)
    for row in table.iter_rows(named=True):
        criterion = Criterion(row["criterion"])
        of_layer = dict(sizes(dots).select("layer", "parameters").iter_rows())
        assert row["parameters"] == sum(of_layer[layer] for layer in row["selected"]) <= budget
        assert row["layers"] == len(row["selected"])
        values = [plain_value(dots, row["selected"][:step], criterion) for step in range(1, row["layers"] + 1)]
        assert row[str(criterion)] == pytest.approx(values[-1], abs=1e-12)
        assert all(value < values[-1] for value in values[:-1])
        single = max(plain_value(dots, [layer], criterion) for layer, size in of_layer.items() if size <= budget)
        assert values[-1] >= single - 1e-12
        # Nor is it worse than what an elimination leaves.
        kept = [dots.layers[int(at)] for at in elimination_order(dots, criterion)]
        for step in range(1, len(kept) + 1):
            if sum(of_layer[layer] for layer in kept[:step]) <= budget:
                assert values[-1] >= plain_value(dots, kept[:step], criterion) - 1e-12


def test_a_budget_that_no_layer_fits_has_no_row(dots) -> None:
    assert selection_under_budget(dots, sizes(dots), [9], seed=1).filter(budget=9).is_empty()


def projected(dots: LayerDots, similarity: np.ndarray, dimension: int = 60) -> pl.DataFrame:
    return dots.pairs.with_columns(
        projection=pl.lit("sjlt"), dimension=pl.lit(dimension, pl.Int64), similarity=similarity
    )


def test_selection_beside_a_projection_that_is_the_full_gradient(dots) -> None:
    table = select_or_project(dots, sizes(dots), projected(dots, dots.similarity()), seed=1)
    assert table["criterion"].to_list() == ["accuracy", "similarity"]
    assert table["projected_similarity"].to_list() == pytest.approx([1.0, 1.0])
    full = plain_value(dots, dots.layers.to_list(), Criterion.ACCURACY)
    assert table["projected_accuracy"].to_list() == pytest.approx([full, full])
    assert table["layers"].dtype == pl.Int32
    assert (table["parameters"] <= 60).all()
    for row in table.iter_rows(named=True):
        assert row["difference"] == pytest.approx(row["selected_accuracy"] - full)
        assert row["low"] <= row["difference"] <= row["high"]
        assert row["similarity_difference"] < 0
        assert row["p"] <= row["p_holm"] <= 1


def test_nothing_is_compared_where_nothing_was_projected(dots) -> None:
    nothing = projected(dots, dots.similarity()).clear()
    assert select_or_project(dots, sizes(dots), nothing, seed=1).is_empty()
    some = projected(dots, dots.similarity())
    assert select_or_project(dots, sizes(dots, known=False), some, seed=1).is_empty()
    assert select_or_project(dots, sizes(dots), some.with_columns(dimension=pl.lit(9, pl.Int64)), seed=1).is_empty()


def test_a_projection_of_other_pairs_is_refused(dots) -> None:
    with pytest.raises(TableError, match="does not have the same pairs as"):
        select_or_project(dots, sizes(dots), projected(dots, dots.similarity())[1:], seed=1)


def test_a_selection_in_another_setting(dots) -> None:
    settings = {"a": dots, "b": random_dots(15, 6, seed=9), "more layers": random_dots(9, 8, seed=2)}
    selections = {
        name: {criterion: greedy_selection(each, sizes(each), criterion, seed=1) for criterion in Criterion}
        for name, each in settings.items()
    }
    held_out = {name: held_out_selection(each, sizes(each), seed=1) for name, each in settings.items()}
    two = {name: settings[name] for name in ("a", "b")}
    table = selection_transfer(two, selections, held_out, seed=1)
    assert table.height == 2 * 2 * 6
    row = table.filter(criterion="accuracy", source_setting="b", step=2).row(0, named=True)
    chosen = selections["b"][Criterion.ACCURACY]["layer"].to_list()
    assert row["value"] == pytest.approx(plain_value(dots, chosen[:2], Criterion.ACCURACY))
    assert row["own"] == held_out["a"].filter(criterion="accuracy", step=2)["held_out"][0]
    assert selection_transfer({"a": dots}, selections, held_out, seed=1).is_empty()
    # A target with more layers has those of the source; not the other way round.
    with pytest.raises(TableError, match=r"layers\.[67]\.mlp\.up_proj\.weight' is not in dot_products"):
        selection_transfer({"a": dots, "more layers": settings["more layers"]}, selections, held_out, seed=1)


def as_noise(dots: LayerDots, layer: str) -> LayerDots:
    """Dots that leave a layer out."""
    place = dots.layers.to_list().index(layer)
    arrays = ("dots", "query_self_dots", "original_self_dots")
    return replace(
        dots,
        layers=dots.layers.filter(dots.layers != layer),
        noise=dots.layers.filter(dots.layers == layer),
        **{name: np.delete(getattr(dots, name), place, axis=1) for name in arrays},
    )


def test_a_selection_passes_over_what_only_the_target_leaves_out(dots) -> None:
    selection = {each: greedy_selection(dots, sizes(dots), each, seed=1) for each in Criterion}
    left_out = selection[Criterion.ACCURACY]["layer"][1]
    settings = {"a": dots, "b": as_noise(dots, left_out)}
    selections = {
        "a": selection,
        "b": {each: greedy_selection(settings["b"], sizes(dots), each, seed=1) for each in Criterion},
    }
    held_out = {name: held_out_selection(each, sizes(dots), seed=1) for name, each in settings.items()}
    table = selection_transfer(settings, selections, held_out, seed=1)
    rows = table.filter(criterion="accuracy", source_setting="a")
    chosen = [layer for layer in selection[Criterion.ACCURACY]["layer"] if layer != left_out]
    assert rows["step"].to_list() == list(range(1, len(chosen) + 1))
    assert rows["value"][1] == pytest.approx(plain_value(dots, chosen[:2], Criterion.ACCURACY))


def test_shares_are_of_the_whole_model_where_layers_are_left_out(dots) -> None:
    left_out = dots.layers[1]
    known, some = sizes(dots), as_noise(dots, left_out)
    share = 1 - known.filter(pl.col("layer").cast(pl.String) == left_out)["share"][0]
    assert 0 < share < 1
    assert greedy_selection(some, known, Criterion.ACCURACY, seed=1)["parameter_share"][-1] == pytest.approx(share)
    assert held_out_selection(some, known, seed=1)["parameter_share"].max() == pytest.approx(share)
    budget = selection_under_budget(some, known, seed=1)
    total = int(known["parameters"].sum())
    assert budget["budget_share"].to_list() == pytest.approx((budget["budget"] / total).to_list())
    assert budget["parameter_share"].to_list() == pytest.approx((budget["parameters"] / total).to_list())


def test_layers_of_another_model_are_named(dots) -> None:
    with pytest.raises(TableError, match=r"'lm_head\.weight' is not in dot_products"):
        value_of_selection(dots, ["lm_head.weight"], Criterion.ACCURACY, seed=1)


@given(data=st.data())
def test_dots_of_some_queries_are_those_rows(draw_study, data) -> None:
    study = draw_study(data)
    dots = LayerDots.from_tables(*study.tables)
    n = len(dots.lists.query_ids)
    queries = np.array(sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1))))
    some = dots.of_queries(queries)
    wanted = dots.lists.query_ids.gather(queries)
    expected = LayerDots.from_tables(
        study.dot_products.filter(pl.col("query_id").is_in(wanted.implode())),
        study.query_self.filter(pl.col("query_id").is_in(wanted.implode())),
        study.original_self,
    )
    assert some.pairs.equals(expected.pairs)
    assert some.lists.query_ids.to_list() == wanted.to_list()
    for name in ("query", "starts", "lengths", "source"):
        assert np.array_equal(getattr(some.lists, name), getattr(expected.lists, name))
    assert np.array_equal(some.similarity(), expected.similarity())
    assert np.array_equal(some.layer_similarities(), expected.layer_similarities())


@pytest.mark.parametrize(
    ("setting", "by_accuracy", "by_similarity"),
    [
        (
            "paraphrased",
            ["9.mlp.down_proj", "embed_tokens", "0.self_attn.q_proj"],
            ["6.mlp.up_proj", "3.mlp.down_proj", "9.mlp.up_proj"],
        ),
        ("model_generated", ["1.self_attn.o_proj"], ["3.mlp.down_proj", "6.mlp.up_proj", "0.self_attn.o_proj"]),
    ],
)
def test_published_selections(golden, setting, by_accuracy, by_similarity) -> None:
    names = ("dot_products", "query_self", "original_self")
    dots = LayerDots.from_tables(*(pl.read_parquet(golden / f"published/{name}_{setting}.parquet") for name in names))
    for criterion, first in ((Criterion.ACCURACY, by_accuracy), (Criterion.SIMILARITY, by_similarity)):
        order, values, _ = greedy_order(dots, criterion)
        chosen = [dots.layers[int(at)] for at in order]
        short = [name.removesuffix(".weight").removeprefix("model.").removeprefix("layers.") for name in chosen]
        assert short[: len(first)] == first
        assert values[-1] == pytest.approx(plain_value(dots, dots.layers.to_list(), criterion), abs=1e-12)
        assert np.array_equal(order, plain_order(dots, criterion))


def plain_order(dots: LayerDots, criterion: Criterion) -> list[int]:
    """To the last layer, by one loop over layers within another; lists of one length."""
    left, chosen = list(range(len(dots.layers))), []
    sums = [np.zeros(len(dots.dots)) for _ in range(3)]
    of_pair = (dots.dots, dots.query_self_dots[dots.lists.query], dots.original_self_dots[dots.original])
    full, is_source = dots.similarity(), (dots.pairs["query_id"] == dots.pairs["original_id"]).to_numpy()
    while left:
        values = []
        for layer in left:
            dot, query, original = (total + table[:, layer] for total, table in zip(sums, of_pair, strict=True))
            scores = dot / np.sqrt(query) / np.sqrt(original)
            if criterion is Criterion.ACCURACY:
                values.append(is_source.reshape(988, 5)[np.arange(988), scores.reshape(988, 5).argmax(axis=1)].mean())
            else:
                values.append(scores @ full / np.linalg.norm(scores) / np.linalg.norm(full))
        best = next(at for at, value in zip(left, values, strict=True) if value >= max(values) - 1e-12)
        chosen.append(best)
        left.remove(best)
        sums = [total + table[:, best] for total, table in zip(sums, of_pair, strict=True)]
    return chosen
