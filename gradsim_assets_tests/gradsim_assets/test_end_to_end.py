"""Whole studies through the real command: what it computes, what it leaves alone, and whether the numbers are right."""

import re
from types import SimpleNamespace

import dagster as dg
import numpy as np
import polars as pl
import pytest

from gradsim.analysis import LayerDots
from gradsim.gradients.reference import reference_dots, reference_gradient
from gradsim.models import load_model
from gradsim.study import ModelConfiguration
from gradsim.tables import State
from gradsim.tables.lineage import ANALYSES, COMBINED_TABLES, DOT_TABLES, GRADIENT_TABLES, PROJECTED_DOT_TABLES
from gradsim.tables.validation import CHECKS
from gradsim_assets.build import build_definitions
from gradsim_assets.keys import asset_key
from gradsim_assets.launch.launching import partition_tags, run_launches
from gradsim_assets.launch.targets import plan_launches

pytestmark = pytest.mark.slow

PARTITIONS = ["0000-0006", "0007-0013", "0014-0019"]
TOLERANCE = 1e-5  # rule 5 of the design, relative to the gradients' norms


def written(before, after):
    """Files that were made or changed."""
    return {name for name, digest in after.items() if before.get(name) != digest}


def partition_files(setting, tables, partitions=PARTITIONS):
    return {f"tiny/{setting}/{table}/{partition}.parquet" for table in tables for partition in partitions}


@pytest.fixture
def without_gradients(computed):
    """Of word_dropout, nothing that needs gradients; all else is there and fresh."""
    for table in GRADIENT_TABLES:
        computed.delete(f"tiny/word_dropout/{table}/*", f"tiny/word_dropout/results/{table}.parquet")
    computed.delete("tiny/word_dropout/analysis/*", "tiny/report.html")
    return computed


# -- a whole study -------------------------------------------------------------------------


def test_a_whole_study_leaves_every_table_fresh_and_complete(finished):
    store = finished.store()
    for node in store.lineage:
        for partition in store.partitions(node.key):
            assert store.state(node.key, partition) is State.FRESH, (node.key, partition)
    for setting in store.study.settings:
        rows = {table: store.read(store.lineage.key(table, setting, "results")).height for table in COMBINED_TABLES}
        layers = len(store.layers.categories)
        assert rows == {
            "candidates": 60,
            "dot_products": 60 * layers,
            "query_self": 20 * layers,
            "original_self": 20 * layers,
            "gradient_similarity": 60,
            "projected_similarity": 60,
            "projected_dots": 60 * layers,
            "projected_query_self": 20 * layers,
            "projected_original_self": 20 * layers,
        }


def test_a_whole_study_says_what_it_made_and_found(finished):
    output = (finished.folder / "output.txt").read_text(encoding="utf-8")
    made = set(re.findall(r"✓ (\S+)", output))
    assert made == {str(node.key) for node in finished.store().lineage}
    assert re.search(r"full gradient +[\d.]+ \(\d+–\d+\) +[\d.]+", output)
    assert re.search(r"chance +33\.3 +33\.3 +33\.3", output)
    assert f"report: {finished.data / 'tiny' / 'report.html'}" in output
    assert "Traceback" not in output


def test_nothing_but_tables_the_model_the_report_and_journals_lies_in_the_data_root(finished):
    hidden_or_odd = [
        name
        for name in finished.digests()
        if not name.endswith((".parquet", ".arrow", "report.html")) and not name.startswith("tiny/model/")
    ]
    partitions = [partition.key for partition in finished.study().partitions]
    assert hidden_or_odd == [f".journals/tiny/model_generated/{partition}.jsonl" for partition in partitions]


def test_tables_can_be_read_with_a_glob(finished):
    rows = pl.scan_parquet(finished.data / "tiny" / "paraphrased" / "dot_products" / "*.parquet").collect()
    assert rows.columns == ["query_id", "original_id", "rank", "layer", "dot"]
    assert rows["query_id"].n_unique() == 20
    order = rows.select(pl.col("query_id", "layer").to_physical(), "rank")
    assert order.equals(order.sort("query_id", "rank", "layer"))


def test_the_dots_are_those_of_plain_autograd(finished):
    store = finished.store()
    model = load_model(ModelConfiguration(str(store.model_folder), device="cpu"))
    originals = store.read(store.lineage.key("tokenized"))
    for setting in store.study.settings:
        queries = store.read(store.lineage.key("tokenized", setting))
        dots = store.read(store.lineage.key("dot_products", setting, "results"))
        similarities = store.read(store.lineage.key("gradient_similarity", setting, "results"))
        for query, original, similarity in similarities[[0, 25, 59]].select(pl.exclude("rank")).iter_rows():
            q, o = gradient(model, queries, query), gradient(model, originals, original)
            expected, q_self, o_self = (np.array(reference_dots(*pair)) for pair in ((q, o), (q, q), (o, o)))
            found = dots.filter(pl.col("query_id") == query, pl.col("original_id") == original)["dot"].to_numpy()
            assert (np.abs(found - expected) <= TOLERANCE * np.sqrt(q_self * o_self)).all()
            cosine = expected.sum() / np.sqrt(q_self.sum() * o_self.sum())
            assert similarity == pytest.approx(cosine, abs=TOLERANCE)


def gradient(model, tokenized, sample):
    row = tokenized.row(by_predicate=pl.col("id") == sample, named=True)
    return reference_gradient(model, SimpleNamespace(**row))


def test_a_second_run_finds_nothing_to_do_and_touches_nothing(computed):
    before = computed.digests()
    output = computed.gradsim("run", "tiny")
    assert "nothing to do: everything requested is fresh" in output
    assert f"report: {computed.data / 'tiny' / 'report.html'}" in output
    assert computed.digests() == before
    assert not computed.home.exists(), "no Dagster instance is needed to find that out"


def test_status_counts_every_partition(computed):
    computed.delete(f"tiny/word_dropout/dot_products/{PARTITIONS[1]}.parquet")
    (computed.data / "tiny/word_dropout/query_self" / f"{PARTITIONS[0]}.parquet").write_bytes(b"PAR1 no more")
    lines, setting = {}, ""
    for line in computed.gradsim("status", "tiny", "--all").splitlines():
        table, *counts = line.split() or [""]
        setting = table if len(counts) == 0 and table in computed.study().settings else setting
        lines[f"{setting}/{table}" if setting else table] = counts
    assert lines["paraphrased/dot_products"] == ["3", "·", "·", "·"]
    assert lines["word_dropout/dot_products"] == ["2", "·", "1", "·"]
    assert lines["word_dropout/query_self"] == ["2", "1", "·", "·"]
    assert lines["word_dropout/results/dot_products"] == ["·", "·", "·", "1"]
    assert lines["samples"] == ["1", "·", "·", "·"]


# -- what Dagster remembers ----------------------------------------------------------------


def test_runs_and_materialized_partitions_are_in_the_instance(finished):
    runs = finished.runs()
    assert [run.status for run in runs] == [dg.DagsterRunStatus.SUCCESS] * 3
    with finished.instance() as instance:
        for node in finished.store().lineage:
            partitions = instance.get_materialized_partitions(asset_key(node.key))
            assert partitions == (set(PARTITIONS) if node.partitioned else set()), node.key
            latest = instance.get_latest_materialization_event(asset_key(node.key))
            assert latest is not None, node.key


def test_row_counts_and_costs_are_in_the_metadata(finished):
    with finished.instance() as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(["tiny", "word_dropout", "dot_products"]))
    metadata = event.asset_materialization.metadata
    first, last = map(int, event.asset_materialization.partition.split("-"))
    # Three candidates of each query, eight layers: of the partition, not of the run.
    assert metadata["dagster/row_count"].value == (last - first + 1) * 3 * 8
    assert metadata["partitions_computed"].value == 3
    assert metadata["partitions_already_fresh"].value == 0
    assert metadata["passes"].value == 80, "each query of three settings and each original once"
    assert metadata["peak_memory_bytes"].value > 0


def test_figures_and_first_rows_are_in_the_metadata(finished):
    with finished.instance() as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(["tiny", "paraphrased", "analysis", "accuracy"]))
    metadata = event.asset_materialization.metadata
    assert metadata["figure"].value.startswith("![")
    assert "data:image/png;base64," in metadata["figure"].value
    assert "| full_gradient" in metadata["preview"].value


def test_every_check_of_every_partition_is_recorded_with_what_it_looked_at(finished):
    with finished.instance() as instance:
        for table in (node.key for node in finished.store().lineage if node.partitioned):
            key, names = asset_key(table), CHECKS[table.name]
            infos = instance.event_log_storage.get_asset_check_partition_info(
                [dg.AssetCheckKey(key, name) for name in names], partition_keys=PARTITIONS
            )
            assert {(info.check_key.name, info.partition_key) for info in infos} == {
                (name, partition) for name in names for partition in PARTITIONS
            }
            assert {info.latest_execution_status.value for info in infos} == {"SUCCEEDED"}
            assert all(info.is_current for info in infos)


# -- parts of a study ----------------------------------------------------------------------


def test_a_dry_run_says_what_would_run_and_runs_nothing(without_gradients):
    before = without_gradients.digests()
    output = without_gradients.gradsim("run", "tiny", "--dry-run")
    assert "run 1 of 2  tiny/word_dropout: " in output
    assert "(0000-0006 to 0014-0019)" in output
    assert "tiny/report" in output
    assert "tiny/paraphrased" not in output
    assert without_gradients.digests() == before
    assert not without_gradients.home.exists()


def test_the_dots_of_a_range_of_partitions_in_two_runs(without_gradients):
    before = without_gradients.digests()
    options = ("--partition-start", "7", "--partition-end", "20", "--num-partitions", "2")
    output = without_gradients.gradsim("run", "tiny", "--computation", "dot-product", *options)
    expected = partition_files("word_dropout", DOT_TABLES, PARTITIONS[1:])
    assert written(before, without_gradients.digests()) == expected
    assert "run 1 of 2" in output
    assert [run.tags["dagster/partition"] for run in without_gradients.runs()] == PARTITIONS[1:]
    with without_gradients.instance() as instance:
        for table in GRADIENT_TABLES:
            materialized = instance.get_materialized_partitions(dg.AssetKey(["tiny", "word_dropout", table]))
            assert materialized == (set(PARTITIONS[1:]) if table in DOT_TABLES else set())


def test_force_computes_again_what_was_asked_for_and_nothing_else(computed):
    store, before = computed.store(), computed.digests()
    options = ("--setting", "paraphrased", "--computation", "gradient-similarity", "--partition", PARTITIONS[0])
    assert "nothing to do" in computed.gradsim("run", "tiny", *options)
    earlier = store.read(store.lineage.key("gradient_similarity", "paraphrased"))
    made = computed.data / "tiny/paraphrased/gradient_similarity" / f"{PARTITIONS[0]}.parquet"
    times = {path: path.stat().st_mtime_ns for path in computed.data.rglob("*.parquet")}
    tables = []
    for _ in range(2):
        computed.gradsim("run", "tiny", "--force", *options)
        assert {path for path, time in times.items() if path.stat().st_mtime_ns != time} == {made}
        assert set(computed.digests()) == set(before)
        tables.append(store.read(store.lineage.key("gradient_similarity", "paraphrased")))
    assert tables[0].equals(tables[1]), "the same job gives the same bits"
    # Another job than the first, which ran all partitions, may round otherwise.
    expected = State.FRESH if tables[1].equals(earlier) else State.STALE
    assert store.state(store.lineage.key("gradient_similarity", "paraphrased", "results")) is expected


def test_one_table_asked_for_in_dagster_alone(without_gradients, monkeypatch):
    for name, value in without_gradients.variables.items():
        monkeypatch.setenv(name, value)
    before, key = without_gradients.digests(), dg.AssetKey(["tiny", "word_dropout", "gradient_similarity"])
    definitions = build_definitions([without_gradients.study()], without_gradients.environment)
    with dg.DagsterInstance.ephemeral() as instance:
        result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance, asset_selection=[key], tags=partition_tags(PARTITIONS[:2])
        )
    assert result.success
    assert {event.asset_key for event in result.get_asset_materialization_events()} == {key}
    expected = partition_files("word_dropout", ["gradient_similarity"], PARTITIONS[:2])
    assert written(before, without_gradients.digests()) == expected


def test_prepare_makes_queries_and_what_they_need(workplace):
    settings = {
        "paraphrased": {"method": "file", "path": "originals.jsonl"},
        "word_dropout": {"method": "word_dropout"},
    }
    workplace.write_study(settings=settings)
    workplace.gradsim("prepare", "tiny", "paraphrased")
    expected = {"tiny/samples.parquet"} | partition_files("paraphrased", ["queries"])
    assert set(workplace.digests()) == expected


def test_combine_makes_only_the_combined_tables(computed):
    computed.delete("tiny/word_dropout/results/*", "tiny/word_dropout/analysis/*")
    before = computed.digests()
    computed.gradsim("combine", "tiny", "--setting", "word-dropout")
    made = written(before, computed.digests())
    assert made == {f"tiny/word_dropout/results/{table}.parquet" for table in COMBINED_TABLES}


def test_report_makes_what_it_is_made_from_but_no_gradients(computed):
    computed.delete("tiny/word_dropout/results/*", "tiny/word_dropout/analysis/*", "tiny/report.html")
    before = computed.digests()
    output = computed.gradsim("report", "tiny")
    made = written(before, computed.digests())
    assert made == {
        "tiny/report.html",
        "tiny/analysis/selection_transfer.parquet",
        *(
            f"tiny/word_dropout/results/{table}.parquet"
            for table in COMBINED_TABLES
            if table not in PROJECTED_DOT_TABLES
        ),
        *(f"tiny/word_dropout/analysis/{name}.parquet" for name in ANALYSES),
    }
    assert f"report: {computed.data / 'tiny' / 'report.html'}" in output


def test_combine_and_report_say_what_has_to_be_computed_first(without_gradients):
    before = without_gradients.digests()
    for command in ("combine", "report"):
        output = without_gradients.gradsim(command, "tiny", fails=True)
        assert "error: tiny/word_dropout/dot_products: 3 partitions are missing or stale, 0000-0006 first" in output
        assert "compute them: gradsim run tiny" in output
    assert without_gradients.digests() == before


# -- projections ---------------------------------------------------------------------------


def test_projected_cosines_of_any_layers_follow_from_stored_dots(finished):
    """Those of all layers are the stored similarities; nothing is run again for a few of them."""
    store, key = finished.store(), finished.store().lineage.key
    read = [store.read(key(table, "paraphrased", "results")) for table in PROJECTED_DOT_TABLES]
    projected = LayerDots.from_tables(*(rows.filter(pl.col("projection") == "sjlt_10pct") for rows in read))
    stored = store.read(key("projected_similarity", "paraphrased", "results"))
    np.testing.assert_allclose(projected.similarity(), stored["similarity"], atol=1e-12)
    exact = LayerDots.from_tables(*(store.read(key(table, "paraphrased", "results")) for table in DOT_TABLES))
    few = store.layers.categories.to_list()[1:4]
    # Layers of 256 elements are not larger than their 512 dimensions: kept whole.
    np.testing.assert_allclose(projected.similarity(few), exact.similarity(few), atol=1e-12)
    assert not np.allclose(projected.similarity(), exact.similarity(), atol=1e-6)


def test_a_study_without_projections(in_float64):
    store = in_float64.store()
    states = {store.state(node.key, each) for node in store.lineage for each in store.partitions(node.key)}
    assert states == {State.FRESH}
    for table in (*PROJECTED_DOT_TABLES, "projected_similarity"):
        assert store.read(store.lineage.key(table, "word_dropout", "results")).is_empty()


def test_the_audit_of_projections_is_stored_with_its_figure(finished):
    store = finished.store()
    audit = store.read(store.lineage.key("projection_audit", "paraphrased", "analysis"))
    (row,) = audit.iter_rows(named=True)
    assert (row["projection"], row["pairs"]) == ("sjlt", 60)
    assert 0.5 < row["sd_ratio"] < 1.5
    with finished.instance() as instance:
        key = dg.AssetKey(["tiny", "paraphrased", "analysis", "projection_audit"])
        metadata = instance.get_latest_materialization_event(key).asset_materialization.metadata
    assert "data:image/png;base64," in metadata["figure"].value


# -- rule 5 --------------------------------------------------------------------------------


def test_any_split_into_partitions_gives_the_same_tables(finished, tmp_path, monkeypatch):
    reference = finished.store()
    settings = {"word_dropout": {"method": "word_dropout"}}
    for size, number in ((20, 1), (3, 7), (2, 10)):
        place = finished.copy(tmp_path / str(number))
        place.delete("tiny/word_dropout/*/*", "tiny/paraphrased/*/*")
        place.write_study(partition_size=size, settings=settings)
        for name, value in place.variables.items():
            monkeypatch.setenv(name, value)
        store = place.store()
        assert len(store.study.partitions) == number
        combined = [store.lineage.key(table, "word_dropout", "results") for table in COMBINED_TABLES]
        launches = plan_launches(store, combined, store.study.partitions)
        assert [len(launch.partitions) for launch in launches] == [number, 0], "samples, model and tokens are kept"
        run_launches(store.study, launches, place.environment)
        for key in combined:
            assert_within_tolerance(key.name, store.read(key), reference.read(key), reference)


def assert_within_tolerance(table, found, expected, reference):
    """The same rows in the same order, and numbers within rule 5."""
    if "loss" in found.columns:
        assert ((found["loss"] - expected["loss"]).abs() <= TOLERANCE * expected["loss"]).all()
        found, expected = found.drop("loss"), expected.drop("loss")
    number = "self_dot" if "self_dot" in found.columns else found.columns[-1]
    if table == "candidates":
        assert found.equals(expected)
        return
    assert found.drop(number).equals(expected.drop(number))
    allowed = pl.lit(TOLERANCE)
    if number == "dot":
        _, queries, originals = PROJECTED_DOT_TABLES if table == "projected_dots" else DOT_TABLES
        for side, selves in (("query", queries), ("original", originals)):
            self_dots = reference.read(reference.lineage.key(selves, "word_dropout", "results"))
            self_dots = self_dots.drop("loss", "noise", strict=False)
            keys = self_dots.columns[:-1]
            expected = expected.join(self_dots, on=keys, suffix=f"_{side}", maintain_order="left")
        allowed = TOLERANCE * (pl.col("self_dot") * pl.col("self_dot_original")).sqrt()
    elif number == "self_dot":
        allowed = TOLERANCE * pl.col("self_dot")
    differences = expected.select(allowed=allowed, difference=(pl.col(number) - found[number]).abs())
    assert differences.filter(pl.col("difference") > pl.col("allowed")).is_empty(), table
