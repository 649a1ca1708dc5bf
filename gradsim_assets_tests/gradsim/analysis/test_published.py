"""The published numbers of the original study, from its published dots."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from gradsim import analysis
from gradsim.analysis import LayerDots


@pytest.fixture(scope="module")
def published(golden: Path) -> Path:
    return golden / "published"


@pytest.fixture(scope="module")
def dots(published: Path) -> tuple[pl.DataFrame, ...]:
    names = ("dot_products", "query_self", "original_self")
    return tuple(pl.read_parquet(published / f"{name}_paraphrased.parquet") for name in names)


@pytest.fixture(scope="module")
def layer_dots(dots) -> LayerDots:
    return LayerDots.from_tables(*dots)


@pytest.fixture(scope="module")
def similarity(dots) -> pl.DataFrame:
    return analysis.gradient_similarity(*dots)


def read_json(path: Path) -> dict[str, float]:
    return json.loads(path.read_text(encoding="utf-8"))


def test_gradient_similarity(published: Path, similarity: pl.DataFrame) -> None:
    expected = pl.read_parquet(published / "gradient_similarity_paraphrased.parquet")
    pairs = ["query_id", "original_id"]
    assert similarity.select(pairs).equals(expected.select(pairs))
    assert (similarity["rank"] == expected["rank"].cast(pl.Int32)).all()
    # Published dots and similarities are float32 numbers, summed in float32 by the original:
    # its cosines of about 0.5 are good to some 1e-7.
    difference = similarity["similarity"] - expected["similarity"]
    assert np.abs(difference.to_numpy()).max() < 3e-7


def test_accuracy_of_the_full_gradient_and_bm25(published: Path, similarity: pl.DataFrame) -> None:
    for table in (
        similarity,
        pl.read_parquet(published / "gradient_similarity_paraphrased.parquet"),
    ):
        accuracy = analysis.accuracy(table)
        assert dict(accuracy.select("method", "accuracy").iter_rows()) == {
            "full_gradient": 0.992914979757085,
            "bm25": 0.8360323886639676,
        }
        assert accuracy["tied"].sum() == 0


def test_accuracy_of_all_layers(published: Path, layer_dots: LayerDots) -> None:
    table = analysis.accuracy_per_layer(layer_dots)
    expected = read_json(published / "analysis/accuracy_per_layer_paraphrased.json")
    assert table["layer"].to_list() == list(expected)
    assert table["accuracy"].to_list() == list(expected.values())


def test_similarity_of_all_layers_to_the_full_gradient(published: Path, layer_dots) -> None:
    table = analysis.similarity_to_full_gradient(layer_dots)
    expected = read_json(published / "analysis/layer_comparison_full_gradient_paraphrased.json")
    assert table["layer"].to_list() == list(expected)
    np.testing.assert_allclose(table["similarity"], list(expected.values()), rtol=0, atol=1e-12)


def test_best_similarity(published: Path, similarity: pl.DataFrame) -> None:
    printed = read_json(published / "analysis/notebook_printed_values.json")["paraphrased"]
    row = analysis.best_similarity(similarity).row(0, named=True)
    # As in test_gradient_similarity.
    assert row["mean"] == pytest.approx(printed["mean_of_max_similarity"], abs=3e-7)
    assert row["median"] == pytest.approx(printed["median_of_max_similarity"], abs=3e-7)


def test_wrong_decisions(published: Path, similarity: pl.DataFrame) -> None:
    printed = read_json(published / "analysis/notebook_printed_values.json")["paraphrased"]
    decisions = analysis.decisions(similarity)
    wrong = decisions.filter(pl.col("credit") < 1)
    assert wrong["query_id"].to_list() == printed["wrong_decisions"]
    assert (wrong["margin"] < 0).all()


def test_model_generated_queries_are_found_near_chance(published: Path) -> None:
    names = ("dot_products", "query_self", "original_self")
    tables = [pl.read_parquet(published / f"{name}_model_generated.parquet") for name in names]
    full = analysis.accuracy(analysis.gradient_similarity(*tables)).row(0, named=True)
    assert full["accuracy"] == 215 / 988
    assert full["low"] < 0.2 < full["high"]


def test_parameters(published: Path) -> None:
    sizes = read_json(published / "analysis/parameters_per_layer.json")
    table = analysis.parameters_per_layer(pl.DataFrame({"layer": list(sizes), "parameters": list(sizes.values())}))
    assert table["parameters"].sum() == 1_176_764_416
    assert table["share"].sum() == pytest.approx(1)
    assert dict(table["component"].value_counts().iter_rows()) == {
        "embedding": 1,
        **dict.fromkeys(("attention q", "attention k", "attention v", "attention o"), 16),
        **dict.fromkeys(("MLP gate", "MLP up", "MLP down"), 16),
    }
