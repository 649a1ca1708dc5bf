"""Dagster says of each asset what `gradsim status` says: by its own marks, and by the check `stored_and_fresh`."""

import shutil
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from gradsim.tables import State, TableKey
from gradsim.tables.freshness import transitive_states
from gradsim_assets.build import build_definitions
from gradsim_assets.keys import asset_key, table_key
from gradsim_assets.launch.launching import partition_tags
from gradsim_assets_tests.workplace import Workplace

pytestmark = pytest.mark.slow

PARTITIONS = ["0000-0006", "0007-0013", "0014-0019"]


@pytest.fixture
def instance(finished: Workplace, computed: Workplace) -> Iterator[dg.DagsterInstance]:
    shutil.copytree(finished.home, computed.home)
    with computed.instance() as instance:
        yield instance


def checked(place: Workplace, instance: dg.DagsterInstance) -> dict[TableKey, dg.AssetCheckEvaluation]:
    """Run the job that looks at all files."""
    job = build_definitions([place.study()], place.environment).resolve_job_def("tiny__status")
    evaluations = job.execute_in_process(instance=instance).get_asset_check_evaluations()
    return {table_key(each.asset_key): each for each in evaluations}


def tick(
    place: Workplace, instance: dg.DagsterInstance, cursor: str | None
) -> tuple[list[dg.AssetCheckEvaluation], str | None]:
    """Let the sensor look once; return what it records, and its cursor."""
    definitions = build_definitions([place.study()], place.environment)
    sensor = definitions.get_sensor_def("stored_files")
    resources = {"storage": (definitions.resources or {})["storage"]}
    context = dg.build_sensor_context(instance, cursor, resources=resources)
    result: Any = sensor(context)
    return list(result.asset_events), result.cursor


def marks(place: Workplace, instance: dg.DagsterInstance) -> dict[TableKey, StaleStatus]:
    """Return Dagster's own marks of the assets without partitions."""
    graph = build_definitions([place.study()], place.environment).resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    plain = [node.key for node in place.store().lineage if not node.partitioned]
    return {key: resolver.get_status(asset_key(key)) for key in plain}


def stale(place: Workplace, *, partitioned: bool = False) -> set[TableKey]:
    """Return what `gradsim status` counts as stale."""
    states = transitive_states(place.store())
    lineage = place.store().lineage
    return {
        key
        for key, of_table in states.items()
        if State.STALE in of_table.values() and lineage[key].partitioned in {False, partitioned}
    }


def test_a_finished_study(computed: Workplace, instance: dg.DagsterInstance) -> None:
    found = checked(computed, instance)
    assert found.keys() == set(computed.store().lineage.nodes)
    assert all(each.passed for each in found.values())
    assert set(marks(computed, instance).values()) == {StaleStatus.FRESH}


@pytest.mark.parametrize("change", [{"top_k": 2}, {"seed": 7}])
def test_a_changed_definition(computed: Workplace, instance: dg.DagsterInstance, change: dict[str, int]) -> None:
    path = computed.studies / "tiny.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **change}), encoding="utf-8")
    found = checked(computed, instance)
    assert {key for key, each in found.items() if not each.passed} == stale(computed, partitioned=True) != set()
    assert {key for key, mark in marks(computed, instance).items() if mark is StaleStatus.STALE} == stale(computed)
    assert found[computed.store().lineage.key("report")].severity is dg.AssetCheckSeverity.WARN


def test_a_changed_data_file(computed: Workplace, instance: dg.DagsterInstance) -> None:
    computed.write_rows("originals.jsonl", computed.rows(20, question="How may I {verb} a {thing}?"))
    assert {key for key, each in checked(computed, instance).items() if not each.passed} == stale(
        computed, partitioned=True
    )
    assert {key for key, mark in marks(computed, instance).items() if mark is StaleStatus.STALE} == stale(computed)


def test_deleted_and_damaged_files(computed: Workplace, instance: dg.DagsterInstance) -> None:
    store = computed.store()
    dots, queries = (store.lineage.key(name, "word_dropout") for name in ("dot_products", "queries"))
    store.path(dots, PARTITIONS[1]).unlink()
    path = store.path(queries, PARTITIONS[2])
    path.write_bytes(path.read_bytes()[:-100])

    found = checked(computed, instance)

    assert found[dots].description == (
        f"1 of 3 partitions are missing: {PARTITIONS[1]}; 1 of 3 partitions are stale: {PARTITIONS[2]}"
    )
    assert found[queries].description == f"1 of 3 partitions are corrupt: {PARTITIONS[2]}"
    assert found[queries].severity is dg.AssetCheckSeverity.ERROR
    assert found[store.lineage.key("report")].description == "the stored file is stale"
    assert found[store.lineage.key("queries", "paraphrased")].passed


def test_the_sensor_records_what_changed(computed: Workplace, instance: dg.DagsterInstance) -> None:
    recorded, cursor = tick(computed, instance, None)
    assert all(each.passed for each in recorded)
    assert len(recorded) == len(list(computed.store().lineage))
    recorded, cursor = tick(computed, instance, cursor)
    assert not recorded

    report = computed.store().lineage.key("report")
    computed.store().path(report).unlink()
    recorded, cursor = tick(computed, instance, cursor)
    assert [(each.asset_key, each.passed) for each in recorded] == [(asset_key(report), False)]

    computed.gradsim("run", "tiny")
    recorded, _ = tick(computed, instance, cursor)
    assert [(each.asset_key, each.passed) for each in recorded] == [(asset_key(report), True)]


def test_the_sensor_says_nothing_of_what_was_never_stored(workplace: Workplace) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        recorded, _ = tick(workplace, instance, None)
    assert not recorded


def test_partitions_that_were_fresh_make_nothing_stale(computed: Workplace, instance: dg.DagsterInstance) -> None:
    """A run of fresh partitions records neither other versions nor costs of nothing."""
    key = asset_key(computed.store().lineage.key("dot_products", "word_dropout"))
    job = dg.define_asset_job("again", dg.AssetSelection.assets(key))
    definitions = dg.Definitions.merge(
        build_definitions([computed.study()], computed.environment), dg.Definitions(jobs=[job])
    )
    tags = partition_tags(PARTITIONS[1:2])
    result = definitions.resolve_job_def("again").execute_in_process(instance=instance, tags=tags)

    (made,) = result.asset_materializations_for_node("tiny__gradients")
    assert made.metadata["partitions_computed"].value == 0
    assert "passes" not in made.metadata
    assert set(marks(computed, instance).values()) == {StaleStatus.FRESH}
