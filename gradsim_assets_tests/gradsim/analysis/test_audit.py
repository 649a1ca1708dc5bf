import math

import numpy as np
import polars as pl
import pytest

from gradsim.analysis import audit_verdict, audited_pairs, gradient_audit
from gradsim.analysis.audit import DOT, MEMORISED, ORIGINAL_SELF, QUERY_SELF, TOLERANCES
from gradsim.errors import TableError

PAIRS = [("a", "b"), ("b", "b"), ("b", "c")]
LAYERS = ["layer.2", "layer.1"]


def reference_of(queries, originals, pairs=PAIRS):
    """What plain autograd gives of these gradients, (layers, width) each."""
    rows = [
        (query, original, layer, float(q @ o), float(q @ q), float(o @ o))
        for query, original in pairs
        for layer, q, o in zip(LAYERS, queries[query], originals[original], strict=True)
    ]
    columns = ["query_id", "original_id", "layer", DOT, QUERY_SELF, ORIGINAL_SELF]
    table = pl.DataFrame(rows, columns, orient="row")
    return table.with_columns(
        pl.col("query_id", "original_id").cast(pl.Enum(list("abcd"))), pl.col("layer").cast(pl.Enum(LAYERS))
    )


def stored_of(reference, noise=()):
    """The three stored tables that agree with it, and rows of others besides; layers of `noise` are marked."""
    d = pl.lit("d", reference.schema["query_id"])
    others = reference.filter(query_id="a").with_columns(query_id=d, original_id=d)
    rows = pl.concat([others, reference])
    return {
        "dot_products": rows.select("query_id", "original_id", "layer", rank=pl.lit(0, pl.Int32), dot=DOT),
        **{
            table: rows.select(
                side,
                "layer",
                self_dot=table,
                loss=pl.lit(1.0),
                noise=pl.col("layer").cast(pl.String).is_in(list(noise)),
            ).unique([side, "layer"], maintain_order=True)
            for table, side in ((QUERY_SELF, "query_id"), (ORIGINAL_SELF, "original_id"))
        },
    }


@pytest.fixture
def reference():
    """Norms of 5 and 2 of query a, of 5 and 2 of original b, and so on."""
    gradients = {
        name: np.array([[3.0, 4.0], [0.0, 2.0]]) * factor for name, factor in zip("abc", (1, 2, 3), strict=True)
    }
    return reference_of(gradients, gradients)


@pytest.fixture
def stored(reference):
    return stored_of(reference)


def changed(table, column, value, **where):
    """One value of a table changed."""
    hit = pl.all_horizontal(pl.col(name) == value for name, value in where.items())
    assert table.filter(hit).height == 1
    return table.with_columns(pl.when(hit).then(value).otherwise(column).alias(column))


def pairs_study(lengths=None, losses=None):
    """A hundred pairs in two layers, and what `audited_pairs` reads of their samples; all alike but those named."""
    pairs = pl.DataFrame(
        {"query_id": [f"s{n // 10}" for n in range(100)], "original_id": [f"s{n}" for n in range(100)]}
    )
    layers = pl.DataFrame({"layer": LAYERS})
    tables = [pairs.join(layers, how="cross", maintain_order="left")]
    for side in ("query_id", "original_id"):
        ids = pairs[side].unique(maintain_order=True).to_list()
        loss = [(losses or {}).get((side, name), 2.0) for name in ids]
        own = pl.DataFrame({side: ids, "loss": loss})
        tables.append(own.join(layers, how="cross", maintain_order="left").with_columns(self_dot=pl.lit(1.0)))
    for side in ("query_id", "original_id"):
        ids = pairs[side].unique(maintain_order=True).to_list()
        tokens = [[1] * (lengths or {}).get((side, name), 3) for name in ids]
        tables.append(pl.DataFrame({"id": ids, "input_ids": tokens}))
    return tables


class TestPairs:
    def test_drawn_by_the_seed(self):
        study = pairs_study()
        drawn = audited_pairs(*study, seed=42)
        assert drawn.columns == ["query_id", "original_id"]
        assert drawn.height == drawn.n_unique() == 5
        assert drawn.equals(audited_pairs(*study, seed=42))
        assert not drawn.equals(audited_pairs(*study, seed=43))
        order = study[0].select("query_id", "original_id").rows()
        places = [order.index(pair) for pair in drawn.rows()]
        assert places == sorted(places), "in the table's order"

    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize(
        ("longest", "memorised"),
        [
            (("original_id", "s77"), ("query_id", "s3")),
            (("query_id", "s9"), ("original_id", "s42")),
            (("original_id", "s55"), ("original_id", "s55")),
        ],
    )
    def test_the_longest_and_the_most_memorised_sample_are_always_among_them(self, longest, memorised, seed):
        study = pairs_study({longest: 4}, {memorised: 1e-4})
        drawn = audited_pairs(*study, seed=seed)
        assert drawn.height == drawn.n_unique() == 5
        for side, name in (longest, memorised):
            assert name in drawn[side]

    def test_a_sample_that_no_pair_has_is_not_looked_for(self):
        *tables, original_tokens = pairs_study()
        unpaired = pl.DataFrame({"id": ["other"], "input_ids": [[1] * 99]})
        tables.append(pl.concat([unpaired, original_tokens]))
        assert audited_pairs(*tables, seed=1).height == 5

    def test_all_if_there_are_no_more(self):
        dot_products, *others = pairs_study()
        three = dot_products.head(6)
        pairs = three.select("query_id", "original_id").unique(maintain_order=True)
        assert audited_pairs(three, *others, seed=1).equals(pairs)
        assert audited_pairs(three, *others, seed=1, number=2).height == 2

    def test_none(self):
        dot_products, *others = pairs_study()
        with pytest.raises(TableError, match="dot_products has no rows"):
            audited_pairs(dot_products.clear(), *others, seed=1)


class TestErrors:
    def test_numbers_that_agree(self, reference, stored):
        audit = gradient_audit(reference, **stored)
        rows = audit.select("query_id", "original_id", "quantity", "layer").rows()
        assert rows == [
            *((query, original, DOT, layer) for query, original in PAIRS for layer in LAYERS),
            *((query, None, QUERY_SELF, layer) for query in "ab" for layer in LAYERS),
            *((None, original, ORIGINAL_SELF, layer) for original in "bc" for layer in LAYERS),
        ]
        assert audit["stored"].equals(audit["reference"].rename("stored"))
        assert set(audit["error"]) == {0.0}
        assert audit.schema["layer"] == stored["dot_products"].schema["layer"]

    def test_an_error_is_relative_to_the_norms_in_its_layer(self, reference, stored):
        where = {"query_id": "b", "original_id": "c", "layer": "layer.1"}  # norms of 4 and 6
        stored["dot_products"] = changed(stored["dot_products"], "dot", 24 + 0.48, **where)
        stored["query_self"] = changed(stored["query_self"], "self_dot", 16 - 0.16, query_id="b", layer="layer.1")
        errors = gradient_audit(reference, **stored).filter(pl.col("error") > 0)
        assert errors.select("query_id", "original_id", "quantity", "layer").rows() == [
            ("b", "c", DOT, "layer.1"),
            ("b", None, QUERY_SELF, "layer.1"),
        ]
        assert errors["error"].to_list() == pytest.approx([0.02, 0.01])

    @pytest.mark.parametrize("zero", [0.0, 1e-9])
    def test_a_layer_that_holds_only_rounding_is_measured_by_the_whole(self, zero):
        """Biases of keys have no gradient but rounding: what is stored may be anything as small, and nothing larger."""
        gradients = {name: np.array([[3.0, 4.0], [0.0, zero]]) for name in "abc"}
        reference = reference_of(gradients, gradients)
        stored, where = stored_of(reference, noise=["layer.1"]), {"query_id": "a", "original_id": "b"}
        assert audit_verdict(gradient_audit(reference, **stored), "float32").worst == 0
        for layer, value, error in (("layer.1", 2 * zero**2, 0), ("layer.1", 1e-3, 4e-5), ("layer.2", 25.001, 4e-5)):
            off = {**stored, "dot_products": changed(stored["dot_products"], "dot", value, **where, layer=layer)}
            verdict = audit_verdict(gradient_audit(reference, **off), "float32")
            assert verdict.passed == (error == 0)
            assert verdict.worst == pytest.approx(error, abs=1e-12)

    @pytest.mark.parametrize(("norm", "measured_by"), [(1e-3, 1e-3), (1e-9, 5e-6)])
    def test_a_tiny_layer_is_measured_by_itself_or_by_a_millionth_of_the_whole(self, norm, measured_by):
        gradients = {name: np.array([[3.0, 4.0], [0.0, norm]]) for name in "abc"}
        reference = reference_of(gradients, gradients)
        stored, where = stored_of(reference), {"query_id": "a", "original_id": "b", "layer": "layer.1"}
        stored["dot_products"] = changed(stored["dot_products"], "dot", 2 * norm**2, **where)
        worst = audit_verdict(gradient_audit(reference, **stored), "float32").worst
        assert worst == pytest.approx((norm / measured_by) ** 2)

    @pytest.mark.parametrize(
        ("loss", "precision", "tolerance"),
        [
            (2.0, "float32", 1e-5),
            (0.5, "float32", 1e-5),
            (0.1, "float32", 2e-4),
            (1e-3, "float32", 2e-3),
            (0.0, "float32", 2e-3),
            (0.1, "float64", 1e-5),
            (0.1, "bfloat16", 0.1),
        ],
    )
    def test_float32_keeps_fewer_digits_of_memorised_samples(self, loss, precision, tolerance):
        gradients = {name: np.array([[3.0, 4.0], [1.0, 0.0]]) for name in "abc"}
        reference = reference_of(gradients, gradients)
        stored, where = stored_of(reference), {"query_id": "a", "original_id": "b", "layer": "layer.2"}
        stored["query_self"] = stored["query_self"].with_columns(loss=pl.lit(3.0))
        stored["original_self"] = stored["original_self"].with_columns(
            loss=pl.when(original_id="b").then(loss).otherwise(3.0)
        )
        for share, passes in ((0.99, True), (1.01, False)):
            dots = changed(stored["dot_products"], "dot", 25 * (1 + share * tolerance), **where)
            verdict = audit_verdict(gradient_audit(reference, **{**stored, "dot_products": dots}), precision)
            assert verdict.passed == passes
            assert (verdict.memorised > 0) == (loss < 0.5 and precision == "float32")

    def test_a_gradient_of_zeros(self):
        gradients = {name: np.zeros((2, 2)) for name in "abc"}
        reference = reference_of(gradients, gradients)
        stored = stored_of(reference)
        assert set(gradient_audit(reference, **stored)["error"]) == {0.0}
        where = {"query_id": "a", "original_id": "b", "layer": "layer.1"}
        stored["dot_products"] = changed(stored["dot_products"], "dot", 1e-30, **where)
        assert audit_verdict(gradient_audit(reference, **stored), "bfloat16").worst == math.inf

    @pytest.mark.parametrize("table", ["dot_products", "query_self", "original_self"])
    def test_a_stored_table_that_lacks_or_doubles_a_row(self, reference, stored, table):
        for rows in (stored[table][:-1], pl.concat([stored[table], stored[table][-1:]])):
            with pytest.raises(
                TableError, match=f"^{table} does not have each layer of the audited samples exactly once"
            ):
                gradient_audit(reference, **{**stored, table: rows})

    def test_a_model_of_fewer_layers(self, reference, stored):
        with pytest.raises(TableError, match="audited samples exactly once"):
            gradient_audit(reference.filter(layer="layer.1"), **stored)


class TestVerdict:
    def test_precisions_and_memorised_samples_are_the_engines(self):
        from gradsim.gradients.capture import precision

        assert set(TOLERANCES) == set(precision.PRECISIONS)
        assert precision.MEMORISED == MEMORISED

    def test_agreement(self, reference, stored):
        verdict = audit_verdict(gradient_audit(reference, **stored), "float32")
        assert verdict.passed
        assert str(verdict).startswith("plain autograd gives the same 14 numbers within 1e-05 of the norms' product; ")
        assert (verdict.pairs, verdict.numbers, verdict.beyond, verdict.tolerance) == (3, 14, 0, 1e-5)
        assert (verdict.worst, verdict.median) == (0.0, 0.0)

    def test_the_worst_is_named(self, reference, stored):
        where = {"query_id": "b", "original_id": "c", "layer": "layer.2"}
        stored["dot_products"] = changed(stored["dot_products"], "dot", 150 + 15.0, **where)
        stored["original_self"] = changed(
            stored["original_self"], "self_dot", 36 + 0.0036, original_id="c", layer="layer.1"
        )
        audit = gradient_audit(reference, **stored)
        assert str(audit_verdict(audit, "float32")) == (
            "plain autograd differs from 2 of 14 numbers by more than 1e-05 of the norms' product; "
            "the worst, the dot of query 'b' and original 'c' in layer.2, is off by 0.1"
        )
        assert audit_verdict(audit, "tf32").beyond == 1
        assert audit_verdict(audit.filter(quantity=ORIGINAL_SELF), "float32").where == (
            "self dot of original 'c' in layer.1"
        )

    @pytest.mark.parametrize("column", ["stored", "reference"])
    def test_what_is_no_number_is_the_worst(self, reference, stored, column):
        where = {"query_id": "a", "original_id": "b", "layer": "layer.1"}
        if column == "stored":
            stored["dot_products"] = changed(stored["dot_products"], "dot", math.nan, **where)
        else:
            reference = changed(reference, DOT, math.nan, **where)
        verdict = audit_verdict(gradient_audit(reference, **stored), "bfloat16")
        assert not verdict.passed
        assert verdict.beyond == 1
        assert math.isnan(verdict.worst)
        assert verdict.where == "dot of query 'a' and original 'b' in layer.1"

    def test_nothing_compared_proves_nothing(self, reference, stored):
        verdict = audit_verdict(gradient_audit(reference, **stored).clear(), "float32")
        assert not verdict.passed
        assert str(verdict) == "nothing was compared"
