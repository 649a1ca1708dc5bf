"""Projected similarities beside theory: the published ones, and projections that are made here."""

import json

import numpy as np
import polars as pl
import pytest

from gradsim.analysis import LayerDots, projection_audit, projection_errors
from gradsim.analysis.projections import (
    AS_PUBLISHED,
    PROJECTION_AUDIT,
    PROJECTION_ERRORS,
    UNBIASED,
    Gram,
    drawn_grams,
)
from gradsim.analysis.schema import column_types
from gradsim.errors import TableError
from gradsim.gradients import Projector

PUBLISHED = {11_767_808: 0.01, 58_838_016: 0.05}
SETTINGS = ("paraphrased", "model_generated")


def rows_of(name, dimension, kind, scaling, elements, dimensions):
    return pl.DataFrame(
        {
            "projection": name,
            "dimension": dimension,
            "kind": kind,
            "scaling": scaling,
            "layer": list(elements),
            "parameters": list(elements.values()),
            "layer_dimension": [dimensions[layer] for layer in elements],
        }
    )


@pytest.fixture(scope="module")
def published(golden):
    """Setting -> the audit of the published projections."""
    folder = golden / "published"
    elements = json.loads((folder / "analysis/parameters_per_layer.json").read_text())
    shapes = {layer: (n,) for layer, n in elements.items()}
    projections = pl.concat(
        rows_of(
            "rademacher_as_published", dimension, "rademacher", AS_PUBLISHED, elements,
            Projector("rademacher", share, 42, "p").layer_dimensions(shapes),
        )
        for dimension, share in PUBLISHED.items()
    )  # fmt: skip
    audits = {}
    for setting in SETTINGS:
        tables = [
            pl.read_parquet(folder / f"{table}_{setting}.parquet")
            for table in ("dot_products", "query_self", "original_self")
        ]
        projected = pl.read_parquet(folder / f"random_projection_{setting}.parquet").select(
            "query_id", "original_id", "rank", "similarity",
            projection=pl.lit("rademacher_as_published"), dimension=pl.col("projection_dim").cast(pl.Int64),
        )  # fmt: skip
        errors = projection_errors(LayerDots.from_tables(*tables), projected, projections, seed=42)
        audits[setting] = projection_audit(errors, seed=42)
    return audits


@pytest.mark.parametrize("setting", SETTINGS)
def test_published_projections_are_cosines_weighted_by_dimension(published, setting):
    """What is left of the published similarities has the standard deviation of theory, within 5 %, and no bias."""
    audit = published[setting]
    assert audit["dimension"].to_list() == list(PUBLISHED)
    assert audit["pairs"].to_list() == [4940, 4940]
    assert audit["sd_ratio"].is_between(0.95, 1.05).all()
    assert (audit["mean_error"].abs() < 4 * audit["error_sd"] / 4940**0.5).all()


def test_right_scaling_brings_projections_to_the_full_gradient(published):
    one_percent = published["paraphrased"].row(0, named=True)
    assert one_percent["agreement"] == pytest.approx(0.9988, abs=5e-5)
    # Not the noise: the weights alone make the difference.
    assert one_percent["agreement_without_noise"] == pytest.approx(one_percent["agreement"], abs=1e-5)
    assert one_percent["agreement_rightly_scaled"] > 0.9999


LAYERS = {"a": 400, "b": 900, "whole": 30}
DIMENSIONS = {"a": 40, "b": 60, "whole": 30}
QUERIES, CANDIDATES = 300, 2


def made_here(scaling, *, spoilt=1.0):
    """Gradients, their exact dots, and what dense projections, one a pair, make of them."""
    random = np.random.default_rng(1)
    ids = [f"s{number:03d}" for number in range(QUERIES)]
    dots, query_self, original_self, projected = [], [], [], []
    gradients = {
        side: {name: random.standard_normal((QUERIES, n)) for name, n in LAYERS.items()}
        for side in ("query", "original")
    }
    for name in LAYERS:
        gradients["query"][name] += 0.7 * gradients["original"][name]
    for query in range(QUERIES):
        for rank in range(CANDIDATES):
            original = (query + rank) % QUERIES
            sums = np.zeros(3)
            for name, n in LAYERS.items():
                g, h = gradients["query"][name][query], gradients["original"][name][original]
                dots.append((ids[query], ids[original], rank, name, float(g @ h)))
                k = DIMENSIONS[name]
                r = np.eye(n) if k == n else random.choice([-1.0, 1.0], size=(k, n)) / np.sqrt(k)
                weight = k if scaling == AS_PUBLISHED else 1.0
                a, b = r @ g, r @ h
                sums += weight * np.array([a @ b, a @ a, b @ b])
            projected.append((ids[query], ids[original], rank, sums[0] / np.sqrt(sums[1] * sums[2]) * spoilt))
        for name in LAYERS:
            query_self.append((ids[query], name, float((gradients["query"][name][query] ** 2).sum())))
            original_self.append((ids[query], name, float((gradients["original"][name][query] ** 2).sum())))
    layer_dots = LayerDots.from_tables(
        pl.DataFrame(dots, ["query_id", "original_id", "rank", "layer", "dot"], orient="row"),
        pl.DataFrame(query_self, ["query_id", "layer", "self_dot"], orient="row"),
        pl.DataFrame(original_self, ["original_id", "layer", "self_dot"], orient="row"),
    )
    similarity = pl.DataFrame(projected, ["query_id", "original_id", "rank", "similarity"], orient="row")
    return layer_dots, similarity.with_columns(projection=pl.lit("p"), dimension=pl.lit(130, pl.Int64))


@pytest.mark.parametrize("scaling", [UNBIASED, AS_PUBLISHED])
def test_dense_projections_err_as_theory_says(scaling):
    layer_dots, projected = made_here(scaling)
    errors = projection_errors(
        layer_dots, projected, rows_of("p", 130, "rademacher", scaling, LAYERS, DIMENSIONS), seed=0
    )
    assert errors.schema == pl.Schema(column_types(PROJECTION_ERRORS))
    audit = projection_audit(errors, seed=0)
    assert audit.schema == pl.Schema(column_types(PROJECTION_AUDIT))
    (row,) = audit.iter_rows(named=True)
    assert row["sd_ratio"] == pytest.approx(1, abs=0.1)
    assert abs(row["mean_error"]) < 0.2 * row["predicted_sd"]
    if scaling == UNBIASED:
        assert (errors["expected"] == errors["full"]).all()
        drawn = ((errors["rightly_scaled"] - errors["full"]).to_numpy() ** 2).mean() ** 0.5
        assert drawn == pytest.approx(row["error_sd"], rel=0.15)
    else:
        assert (errors["expected"] != errors["full"]).all()


def test_a_projection_that_does_not_do_what_it_promises_shows():
    layer_dots, projected = made_here(UNBIASED, spoilt=1.5)
    errors = projection_errors(layer_dots, projected, rows_of("p", 130, "sjlt", UNBIASED, LAYERS, DIMENSIONS), seed=0)
    assert projection_audit(errors, seed=0)["sd_ratio"][0] > 1.3


@pytest.mark.parametrize("kind", ["logra", "mask"])
def test_kinds_whose_variance_needs_more_than_dots_have_none(kind):
    layer_dots, projected = made_here(UNBIASED)
    audit = projection_audit(
        projection_errors(layer_dots, projected, rows_of("p", 130, kind, UNBIASED, LAYERS, DIMENSIONS), seed=0), seed=0
    )
    assert audit["predicted_sd"].to_list() == audit["sd_ratio"].to_list() == [None]
    assert audit["error_sd"][0] > 0


def test_all_rows_of_a_hadamard_transform_leave_no_error():
    layer_dots, projected = made_here(UNBIASED)
    dimensions = dict.fromkeys(LAYERS, 0) | {"a": 399, "b": 899, "whole": 30}
    errors = projection_errors(layer_dots, projected, rows_of("p", 130, "srht", UNBIASED, LAYERS, dimensions), seed=0)
    dense = projection_errors(
        layer_dots, projected, rows_of("p", 130, "rademacher", UNBIASED, LAYERS, dimensions), seed=0
    )
    # 512 and 1024 rows: 399 and 899 of them leave less than a quarter of a dense projection's variance.
    assert (errors["predicted_sd"] < 0.5 * dense["predicted_sd"]).all()


@pytest.mark.parametrize("dimension", [1, 2, 30])
def test_drawn_gram_matrices_are_unbiased(dimension):
    """Also those of a single dimension, in which two vectors are always parallel."""
    pairs = 40_000
    gram = Gram(*(np.full((pairs, 1), value) for value in (0.3, 1.0, 2.0)))
    random = np.random.default_rng(0)
    sums = drawn_grams(gram, np.array([float(dimension)]), np.array([1000]), random)
    np.testing.assert_allclose(sums.mean(axis=1), [0.3, 1.0, 2.0], atol=5 * np.sqrt(8 / dimension / pairs))
    if dimension == 1:
        np.testing.assert_allclose(sums[0] ** 2, sums[1] * sums[2], rtol=1e-9)


def test_no_projection_no_rows():
    layer_dots, projected = made_here(UNBIASED)
    nothing = rows_of("p", 130, "sjlt", UNBIASED, LAYERS, DIMENSIONS).clear()
    audit = projection_audit(projection_errors(layer_dots, projected.clear(), nothing, seed=0), seed=0)
    assert audit.is_empty()
    assert audit.schema == pl.Schema(column_types(PROJECTION_AUDIT))


def test_agreement_has_an_interval_over_queries():
    layer_dots, projected = made_here(UNBIASED)
    errors = projection_errors(layer_dots, projected, rows_of("p", 130, "sjlt", UNBIASED, LAYERS, DIMENSIONS), seed=0)
    (row,) = projection_audit(errors, seed=3).iter_rows(named=True)
    observed, full = (errors[name].to_numpy().reshape(QUERIES, CANDIDATES) for name in ("observed", "full"))
    agreements = []
    for drawn in np.random.default_rng(3).integers(QUERIES, size=(1000, QUERIES)):
        one, other = observed[drawn].ravel(), full[drawn].ravel()
        agreements.append(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))
    low, high = np.quantile(agreements, [0.025, 0.975])
    assert row["agreement_low"] == pytest.approx(low, abs=1e-12)
    assert row["agreement_high"] == pytest.approx(high, abs=1e-12)
    assert low < row["agreement"] < high


def test_tables_that_do_not_fit():
    layer_dots, projected = made_here(UNBIASED)
    rows = rows_of("p", 130, "sjlt", UNBIASED, LAYERS, DIMENSIONS)
    with pytest.raises(TableError, match="does not have the same pairs as dot_products: combine both again"):
        projection_errors(layer_dots, projected.head(9), rows, seed=0)
    with pytest.raises(TableError, match="projections has no dimension for layer 'whole': materialize it again"):
        projection_errors(layer_dots, projected, rows.head(2), seed=0)
