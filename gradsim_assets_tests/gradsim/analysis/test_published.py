"""The published numbers of the original study, from its published dots."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from gradsim import analysis
from gradsim.analysis import LayerDots
from gradsim.analysis.comparisons import layer_differences, method_differences
from gradsim.analysis.divergence import divergence, similarity_over_layers
from gradsim.analysis.layer_means import attention_against_mlp, layer_means
from gradsim.analysis.metrics import retrieval_metrics

# What the original calls its components.
PRINTED_COMPONENTS = {
    "embed_tokens": "embedding",
    "self_attn.q_proj": "attention q",
    "self_attn.k_proj": "attention k",
    "self_attn.v_proj": "attention v",
    "self_attn.o_proj": "attention o",
    "mlp.gate_proj": "MLP gate",
    "mlp.up_proj": "MLP up",
    "mlp.down_proj": "MLP down",
}
MOST_DIVERGENT = ["lima_802", "lima_815", "lima_849"]


@pytest.fixture(scope="module")
def published(golden: Path) -> Path:
    return golden / "published"


def read_dots(published: Path, setting: str) -> tuple[pl.DataFrame, ...]:
    names = ("dot_products", "query_self", "original_self")
    return tuple(pl.read_parquet(published / f"{name}_{setting}.parquet") for name in names)


@pytest.fixture(scope="module")
def dots(published: Path) -> tuple[pl.DataFrame, ...]:
    return read_dots(published, "paraphrased")


@pytest.fixture(scope="module")
def layer_dots(dots) -> LayerDots:
    return LayerDots.from_tables(*dots)


@pytest.fixture(scope="module")
def model_generated(published: Path) -> LayerDots:
    return LayerDots.from_tables(*read_dots(published, "model_generated"))


@pytest.fixture(scope="module")
def parameters(published: Path) -> pl.DataFrame:
    sizes = read_json(published / "analysis/parameters_per_layer.json")
    return analysis.parameters_per_layer(pl.DataFrame({"layer": list(sizes), "parameters": list(sizes.values())}))


@pytest.fixture(scope="module")
def similarity(dots) -> pl.DataFrame:
    return analysis.gradient_similarity(*dots)


def read_json(path: Path) -> dict:
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
    table = analysis.similarity_to_full_gradient(layer_dots, seed=42)
    expected = read_json(published / "analysis/layer_comparison_full_gradient_paraphrased.json")
    assert table["layer"].to_list() == list(expected)
    np.testing.assert_allclose(table["similarity"], list(expected.values()), rtol=0, atol=1e-12)
    assert (table["low"] < table["similarity"]).all()
    assert (table["similarity"] < table["high"]).all()
    printed = read_json(published / "analysis/notebook_printed_values.json")["paraphrased"]
    assert table.sort("similarity")["layer"][-1] == printed["layer_most_similar_to_full_gradient"]


def test_best_similarity(published: Path, similarity: pl.DataFrame) -> None:
    printed = read_json(published / "analysis/notebook_printed_values.json")["paraphrased"]
    row = analysis.best_similarity(similarity, seed=42).row(0, named=True)
    # As in test_gradient_similarity.
    assert row["mean"] == pytest.approx(printed["mean_of_max_similarity"], abs=3e-7)
    assert row["median"] == pytest.approx(printed["median_of_max_similarity"], abs=3e-7)


def test_wrong_decisions(published: Path, similarity: pl.DataFrame) -> None:
    printed = read_json(published / "analysis/notebook_printed_values.json")["paraphrased"]
    decisions = analysis.decisions(similarity)
    wrong = decisions.filter(pl.col("credit") < 1)
    assert wrong["query_id"].to_list() == printed["wrong_decisions"]
    assert (wrong["margin"] < 0).all()


def test_means_of_components(published: Path, layer_dots: LayerDots, parameters: pl.DataFrame) -> None:
    printed = read_json(published / "analysis/notebook_printed_values.json")["paraphrased"]
    # Sizes are not needed.
    table = layer_means(layer_dots, parameters.with_columns(parameters=None, share=None), seed=42)
    components = table.filter(grouping="component")
    for column, name in (
        ("accuracy", "accuracy_avg_by_component"),
        ("similarity", "similarity_to_full_avg_by_component"),
    ):
        expected = {PRINTED_COMPONENTS[component]: value for component, value in printed[name].items()}
        assert components["group"].to_list() == list(expected)
        assert components[column].round(3).to_list() == list(expected.values())
    assert table.filter(grouping="part").select("group", "layers").rows() == [
        ("embedding", 1), ("attention", 64), ("MLP", 48),
    ]  # fmt: skip
    assert table.filter(grouping="block")["group"].to_list() == [str(block) for block in range(16)]


def test_mlp_layers_find_more_than_attention_in_every_block(layer_dots: LayerDots, parameters: pl.DataFrame) -> None:
    table = attention_against_mlp(layer_dots, parameters, seed=42)
    assert table["block"].to_list() == [None, *range(16)]
    assert (table["accuracy_high"] < 0).all()
    assert (table["similarity_high"] < 0).all()


def test_most_divergent_queries(published: Path, layer_dots: LayerDots) -> None:
    printed = read_json(published / "analysis/notebook_printed_values.json")["paraphrased"]
    table = divergence(layer_dots)
    assert table["query_id"][:3].to_list() == MOST_DIVERGENT == printed["most_divergent_examples"]
    assert table["layer"].unique().to_list() == [printed["best_layer_by_accuracy"]]


@pytest.mark.parametrize("query_id", MOST_DIVERGENT)
def test_similarity_over_layers(published: Path, layer_dots: LayerDots, query_id: str) -> None:
    expected = pl.read_csv(published / f"analysis/self_similarity_over_layers_paraphrased_{query_id}.csv")
    table = similarity_over_layers(layer_dots, [query_id])
    short = pl.col("layer").cast(pl.String).str.replace(r"^model\.(layers\.)?", "").str.replace(r"\.weight$", "")
    wide = table.with_columns(
        short, pair=pl.format("{} <=> {}", pl.col("query_id").cast(pl.String), pl.col("original_id").cast(pl.String))
    ).pivot("pair", index="layer", values="similarity")
    assert wide.columns == expected.columns
    assert wide["layer"].to_list() == expected["layer"].to_list()
    np.testing.assert_allclose(wide.drop("layer"), expected.drop("layer"), rtol=0, atol=1e-12)


def test_which_layers_differ_from_the_full_gradient_by_more_than_chance(layer_dots: LayerDots) -> None:
    """None is better than the full gradient, not even the best one; 31 find less."""
    table = analysis.accuracy_per_layer(layer_dots)
    differ = table.filter(pl.col("p_holm") < 0.05)
    assert len(differ) == 31
    assert (differ["only_layer"] < differ["only_full"]).all()
    best = table.sort("accuracy").row(-1, named=True)
    assert (best["only_layer"], best["only_full"], best["p"]) == (5, 0, 0.0625)


def test_pairs_of_layers(layer_dots: LayerDots) -> None:
    assert len(layer_differences(layer_dots)) == 113 * 112 / 2


def test_the_full_gradient_beside_bm25(similarity: pl.DataFrame) -> None:
    (row,) = method_differences(similarity, seed=42).iter_rows(named=True)
    assert (row["only_method"], row["only_other"]) == (158, 3)
    assert row["low"] > 0.13
    assert row["p_holm"] < 1e-40
    # Where the source stands, by rank: 826, 24, 16, 6, 116.
    found = retrieval_metrics(similarity, seed=42).filter(method="bm25")
    assert found.select("k", "value").rows() == [
        (1, 826 / 988), (2, 850 / 988), (3, 866 / 988),
        (None, pytest.approx((826 + 24 / 2 + 16 / 3 + 6 / 4 + 116 / 5) / 988)),
    ]  # fmt: skip


def test_model_generated_queries_are_found_near_chance(model_generated: LayerDots, parameters: pl.DataFrame) -> None:
    similarity = model_generated.pairs.with_columns(similarity=model_generated.similarity())
    full = analysis.accuracy(similarity).row(0, named=True)
    assert full["accuracy"] == 215 / 988
    assert full["low"] < 0.2 < full["high"]
    assert divergence(model_generated)["query_id"][:3].to_list() == ["lima_50", "lima_670", "lima_190"]
    # Single layers find more: the best one 137 sources more than the full gradient, far from chance.
    best = analysis.accuracy_per_layer(model_generated).sort("accuracy").row(-1, named=True)
    assert best["layer"] == "model.layers.1.self_attn.o_proj.weight"
    assert best["p_holm"] < 1e-14
    assert len(layer_means(model_generated, parameters, seed=42)) == 8 + 3 + 16


def test_parameters(parameters: pl.DataFrame) -> None:
    assert parameters["parameters"].sum() == 1_176_764_416
    assert parameters["share"].sum() == pytest.approx(1)
    assert dict(parameters["component"].value_counts().iter_rows()) == {
        "embedding": 1,
        **dict.fromkeys(("attention q", "attention k", "attention v", "attention o"), 16),
        **dict.fromkeys(("MLP gate", "MLP up", "MLP down"), 16),
    }
