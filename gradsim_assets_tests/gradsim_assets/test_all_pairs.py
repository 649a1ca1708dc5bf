"""A whole study that compares every query with every original, whose tables are larger than what is held at a time."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from gradsim.gradients.reference import reference_dots, reference_gradient
from gradsim.models import load_model
from gradsim.study import ModelConfiguration
from gradsim.tables import State
from gradsim.tables.lineage import COMBINED_TABLES
from gradsim_assets_tests.workplace import Workplace

pytestmark = pytest.mark.slow

SAMPLES, PARTITION = 12, 5


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    place = Workplace(tmp_path_factory.mktemp("all_pairs"))
    place.write_rows("originals.jsonl", place.rows(SAMPLES))
    place.write_study(top_k="all", partition_size=PARTITION)
    place.gradsim("run", "tiny")
    return place.store()


def combined(store, table):
    return store.read(store.lineage.key(table, "word_dropout", "results"))


def test_every_table_is_fresh(store):
    for node in store.lineage:
        assert {store.state(node.key, partition) for partition in store.partitions(node.key)} == {State.FRESH}


def test_every_pair_stands_once_in_order(store):
    rows, layers = combined(store, "dot_products"), store.layers.categories.to_list()
    assert rows.height == SAMPLES**2 * len(layers)
    places = rows.select(pl.col("query_id", "layer").to_physical(), "rank").select("query_id", "rank", "layer")
    assert places.rows() == [
        (query, rank, layer) for query in range(SAMPLES) for rank in range(SAMPLES) for layer in range(len(layers))
    ]
    pairs = rows.select("query_id", "original_id", "rank").unique(maintain_order=True)
    assert pairs.select("query_id", "original_id").n_unique() == SAMPLES**2
    candidates = combined(store, "candidates")
    assert pairs.equals(candidates.select(pairs.columns))
    assert not candidates["forced"].any()
    for table in ("gradient_similarity", "projected_similarity"):
        assert combined(store, table).select(pairs.columns).equals(pairs)


def test_combined_tables_hold_the_partitions_rows(store):
    for table in COMBINED_TABLES:
        partitions = store.read(store.lineage.key(table, "word_dropout"))
        if table.endswith("original_self"):
            assert partitions.height == combined(store, table).height * len(store.study.partitions)
            partitions = partitions.unique(pl.exclude("self_dot"), keep="first", maintain_order=True)
        assert combined(store, table).equals(partitions)


def test_the_dots_are_those_of_plain_autograd(store):
    model = load_model(ModelConfiguration(str(store.model_folder), device="cpu"))

    def gradients(key):
        rows = store.read(key).iter_rows(named=True)
        return {row["id"]: reference_gradient(model, SimpleNamespace(**row)) for row in rows}

    queries = gradients(store.lineage.key("tokenized", "word_dropout"))
    originals = gradients(store.lineage.key("tokenized"))
    dots = combined(store, "dot_products").partition_by("query_id", "original_id", as_dict=True)
    for query, original in [("s00", "s00"), ("s04", "s11"), ("s11", "s03")]:
        q, o = queries[query], originals[original]
        expected, q_self, o_self = (np.array(reference_dots(*pair)) for pair in ((q, o), (q, q), (o, o)))
        found = dots[query, original]["dot"].to_numpy()
        assert (np.abs(found - expected) <= 1e-5 * np.sqrt(q_self * o_self)).all()
