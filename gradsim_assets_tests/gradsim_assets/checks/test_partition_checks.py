"""Checks of stored partitions: what is damaged is named, by partition, and gets no further."""

import dagster as dg
import polars as pl
import pytest

from gradsim_assets.build import build_definitions
from gradsim_assets.checks.stored_check import NAME as STORED
from gradsim_assets.keys import asset_key
from gradsim_assets.launch.launching import RANGE_END, RANGE_START, partition_tags

pytestmark = pytest.mark.slow

PARTITIONS = ["0000-0006", "0007-0013", "0014-0019"]


@pytest.fixture
def damage(computed):
    """Changes the rows of a stored partition, and leaves all else of the file as it was."""

    def change(table, partition, rows, setting="word_dropout"):
        store = computed.store()
        key = store.lineage.key(table, setting)
        store.write(key, rows(store.read(key, [partition])), partition, store.provenance(key, partition))

    return change


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def execute(computed, instance, selection, tags):
    """Run assets or checks of the tagged partitions as a job of the web UI would."""
    job = dg.define_asset_job("asked_for", selection)
    definitions = dg.Definitions.merge(
        build_definitions([computed.study()], computed.environment), dg.Definitions(jobs=[job])
    )
    return definitions.resolve_job_def("asked_for").execute_in_process(
        instance=instance, tags=tags, raise_on_error=False
    )


def check_table(computed, instance, table, tags):
    """Evaluate a table's checks alone; (check, partition) -> evaluation."""
    key = asset_key(computed.store().lineage.key(table, "word_dropout"))
    result = execute(computed, instance, dg.AssetSelection.checks_for_assets(key), tags)
    evaluations = result.get_asset_check_evaluations()
    return {(each.check_name, each.partition): each for each in evaluations if each.check_name != STORED}


def no_numbers(rows):
    return rows.with_columns(dot=pl.when(pl.int_range(pl.len()) < 2).then(pl.lit(float("nan"))).otherwise("dot"))


DAMAGES = [
    ("dot_products", no_numbers, "values_finite", "2 values of dot are missing or not finite"),
    ("dot_products", lambda rows: rows[1:], "rows_complete", "167 rows, expected 168"),
    ("query_self", lambda rows: rows.with_columns(-pl.col("self_dot")), "self_dots_positive", "self dots are negative"),
    (
        "gradient_similarity",
        lambda rows: rows.with_columns(similarity=pl.lit(1.5)),
        "cosines_possible",
        "21 similarities are outside [-1, 1]",
    ),
    (
        "candidates",
        lambda rows: rows.filter(pl.col("query_id") != pl.col("original_id")),
        "source_among_candidates",
        "lack their source among the candidates",
    ),
]


@pytest.mark.parametrize(("table", "rows", "check", "fault"), DAMAGES, ids=[each[2] for each in DAMAGES])
def test_a_damaged_partition_is_named_with_its_fault(computed, damage, instance, table, rows, check, fault):
    damage(table, PARTITIONS[1], rows)
    found = check_table(computed, instance, table, partition_tags(PARTITIONS))
    for partition in PARTITIONS:
        assert found[check, partition].passed == (partition != PARTITIONS[1])
    assert fault in found[check, PARTITIONS[1]].description
    assert found[check, PARTITIONS[1]].blocking
    assert not found[check, None].passed, "the step's own verdict"
    assert found[check, None].description.startswith(f"{PARTITIONS[1]}: ")


def test_a_partition_of_others_rows_is_found(computed, damage, instance):
    store = computed.store()
    others = store.read(store.lineage.key("query_self", "word_dropout"), [PARTITIONS[0]])
    damage("query_self", PARTITIONS[1], lambda rows: others)
    found = check_table(computed, instance, "query_self", partition_tags(PARTITIONS))
    assert found["ids_known", PARTITIONS[1]].description == "query_id 's00' is not in the partition"


def test_a_run_over_one_partition_records_its_evaluation_once(computed, instance):
    found = check_table(computed, instance, "dot_products", {"dagster/partition": PARTITIONS[2]})
    assert {partition for _, partition in found} == {PARTITIONS[2]}
    assert all(each.passed for each in found.values())


def test_a_backfill_of_one_partition_is_a_run_over_a_range_of_one(computed, instance):
    found = check_table(computed, instance, "dot_products", {RANGE_START: PARTITIONS[2], RANGE_END: PARTITIONS[2]})
    assert {partition for _, partition in found} == {PARTITIONS[2], None}
    assert all(each.passed for each in found.values())


def test_what_lies_downstream_of_a_failed_check_does_not_run(computed, damage, instance, monkeypatch):
    for name, value in computed.variables.items():
        monkeypatch.setenv(name, value)
    # A job keeps a generated partition that says that it is fresh, and so the damage in it.
    damage("queries", PARTITIONS[0], lambda rows: rows[:-1], setting="model_generated")
    queries, tokenized = (dg.AssetKey(["tiny", "model_generated", table]) for table in ("queries", "tokenized"))
    before = computed.digests()
    result = execute(computed, instance, dg.AssetSelection.assets(queries, tokenized), partition_tags(PARTITIONS))
    assert not result.success
    assert {event.asset_key for event in result.get_asset_materialization_events()} == {queries}
    assert computed.digests() == before
    failed = [each for each in result.get_asset_check_evaluations() if each.blocking and not each.passed]
    assert {each.check_name for each in failed} == {"rows_complete"}
    assert [each.partition for each in failed] == [PARTITIONS[0], None]


def test_a_damaged_partition_is_never_combined(computed, damage):
    damage("dot_products", PARTITIONS[1], no_numbers)
    before = computed.digests()
    output = computed.gradsim("run", "tiny", fails=True)
    path = computed.data / "tiny/word_dropout/dot_products" / f"{PARTITIONS[1]}.parquet"
    assert f"{path}: values_finite: 2 values of dot are missing or not finite; delete it and run again" in output
    assert "Traceback" not in output
    assert computed.digests()["tiny/report.html"] == before["tiny/report.html"]
