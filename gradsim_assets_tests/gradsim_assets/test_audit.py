"""The audit of whole studies: made by real jobs, red where a stored dot is wrong, left alone where it is fresh."""

import os
import re
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from gradsim.analysis import audited_pairs
from gradsim.tables import State
from gradsim.tables.lineage import DOT_TABLES
from gradsim_assets.build import build_definitions
from gradsim_assets.keys import asset_key
from gradsim_assets_tests.gradsim.report.studies import Page
from gradsim_assets_tests.web_ui import ENDED, serve
from gradsim_assets_tests.workplace import Workplace

pytestmark = pytest.mark.slow

CHECK = "gradients_agree_with_autograd"
POISON = Path(__file__).parents[1] / "poison"
POISONED_LAYER = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def materialize(computed, instance, monkeypatch):
    """Makes word_dropout's audit alone, as the web UI would; its run."""
    for name, value in computed.variables.items():
        monkeypatch.setenv(name, value)

    def materialize(*, force=False):
        key = audit_key(computed)
        definitions = build_definitions([computed.study()], computed.environment)
        return definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance,
            asset_selection=[asset_key(key)],
            run_config={"ops": {"__".join(key.parts): {"config": {"force": force}}}},
            raise_on_error=False,
        )

    return materialize


def audit_key(place, setting="word_dropout"):
    return place.store().lineage.key("gradient_audit", setting, "analysis")


def spoil(place, table, by):
    """Change what is stored of the first audited number of a combined table, and say where."""
    store = place.store()
    quantity = "dot" if table == "dot_products" else table
    row = store.read(audit_key(place)).filter(quantity=quantity).row(0, named=True)
    where = {name: row[name] for name in ("query_id", "original_id", "layer") if row[name] is not None}
    key, value = store.lineage.key(table, "word_dropout", "results"), "dot" if quantity == "dot" else "self_dot"
    hit = pl.all_horizontal(pl.col(name) == each for name, each in where.items())
    spoilt = store.read(key).with_columns(pl.when(hit).then(pl.col(value) + by).otherwise(value).alias(value))
    store.write(key, spoilt, provenance=store.provenance(key))
    return where


def verdict(run):
    """The audit's check; the asset has another one of its file."""
    (evaluation,) = (each for each in run.get_asset_check_evaluations() if each.check_name == CHECK)
    return evaluation


def metadata(run):
    (event,) = run.get_asset_materialization_events()
    return {name: value.value for name, value in event.materialization.metadata.items()}


def test_every_setting_of_a_whole_study_carries_its_proof(finished):
    store = finished.store()
    layers = store.layers.categories.to_list()
    for setting in store.study.settings:
        inputs = store.lineage.analysis_inputs("gradient_audit", setting)
        names = (*DOT_TABLES, "query_tokens", "original_tokens")
        pairs = audited_pairs(*(store.read(inputs[name]) for name in names), seed=store.study.seed)
        audit = store.read(audit_key(finished, setting))
        audited = audit.filter(quantity="dot")
        assert audited.select("query_id", "original_id").unique(maintain_order=True).rows() == pairs.rows()
        assert audited["layer"].to_list() == layers * len(pairs)
        for side in ("query", "original"):
            of_side = audit.filter(quantity=f"{side}_self")
            assert of_side.height == pairs[f"{side}_id"].n_unique() * len(layers)
        assert (audit["reference"] != 0).any()
        assert audit["error"].max() < 1e-5
        provenance = store.provenance(audit_key(finished, setting))
        assert (provenance.precision, provenance.device) == ("float32", "cpu")


def test_the_command_and_the_report_say_so(finished):
    output = (finished.folder / "output.txt").read_text(encoding="utf-8")
    for setting in finished.study().settings:
        assert re.search(rf"^{setting}: \d+ numbers agree with plain autograd to within [\d.e-]+$", output, re.M)
    report = Page((finished.data / "tiny" / "report.html").read_text(encoding="utf-8"))
    assert report.text.count("computed again with plain autograd") == 3


def test_a_fresh_audit_is_kept_by_its_job(computed, materialize):
    before = computed.digests()
    run = materialize()
    assert run.success
    assert computed.digests() == before
    assert "passes" not in metadata(run)


def test_a_forced_audit_gives_the_same_again(computed, materialize):
    store, key = computed.store(), audit_key(computed)
    earlier, version = store.path(key).stat().st_mtime_ns, store.provenance(key).data_version
    run = materialize(force=True)
    assert store.path(key).stat().st_mtime_ns != earlier
    assert store.provenance(key).data_version == version
    shown = metadata(run)
    assert shown["passes"] == 10
    assert shown["numbers_compared"] == shown["dagster/row_count"] == store.rows(key)
    assert 0 <= shown["median_error"] <= shown["worst_error"] < 1e-5
    assert "data:image/png;base64," in shown["figure"]
    evaluation = verdict(run)
    assert evaluation.passed


@pytest.mark.parametrize("table", ["dot_products", "query_self", "original_self"])
def test_a_wrong_number_is_red_and_named_but_blocks_nothing(computed, materialize, table):
    where = spoil(computed, table, by=0.5)
    assert computed.store().state(audit_key(computed)) is State.STALE
    run = materialize()
    assert run.success
    evaluation = verdict(run)
    assert not evaluation.passed
    assert not evaluation.blocking
    assert evaluation.severity is dg.AssetCheckSeverity.ERROR
    for name in where.values():
        assert name in evaluation.description


def test_a_number_that_is_none_is_red(computed, materialize):
    spoil(computed, "dot_products", by=float("nan"))
    run = materialize()
    evaluation = verdict(run)
    assert not evaluation.passed
    assert "is off by nan" in evaluation.description
    assert metadata(run)["worst_error"] == "nan"


def test_a_study_with_a_wrong_dot_warns_wherever_it_is_read(computed):
    spoil(computed, "dot_products", by=0.5)
    output = computed.gradsim("run", "tiny", fails=True)
    assert "word_dropout: plain autograd differs from 1 of " in output
    assert "Do not rely on this setting" in (computed.data / "tiny" / "report.html").read_text(encoding="utf-8")


def test_a_study_in_float64_is_audited_in_float64(in_float64):
    store, key = in_float64.store(), audit_key(in_float64)
    assert store.provenance(key).precision == "float64"
    assert store.read(key)["error"].max() < 1e-12


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory):
    """A study whose gradients a poisoned job has computed; the exit status of the run was checked."""
    place = Workplace(tmp_path_factory.mktemp("poisoned"))
    place.write_rows("originals.jsonl", place.rows(8))
    place.write_study(projections=[], partition_size=8)
    path = os.pathsep.join([str(POISON), os.environ.get("PYTHONPATH", "")])
    output = place.gradsim("run", "tiny", fails=True, PYTHONPATH=path)
    (place.folder / "output.txt").write_text(output, encoding="utf-8")
    return place


class TestAPoisonedJob:
    """A partition job whose rule for one layer is off by a thousandth, after the engine has checked its rules."""

    def test_the_run_ends_with_one_line_that_says_where_how_far_and_what_to_do(self, poisoned):
        *_, last = (poisoned.folder / "output.txt").read_text(encoding="utf-8").splitlines()
        assert re.fullmatch(
            r"error: the audit of tiny/word_dropout failed: plain autograd differs from \d+ of \d+ numbers by more "
            rf"than 1e-05 of the norms' product; the worst, the (self )?dot of .* in "
            rf"{re.escape(POISONED_LAYER)}, is off by 0\.002\. Do not rely on this setting's numbers; recompute them "
            r"\(gradsim run tiny --setting word_dropout --force\), and report the model if it fails again",
            last,
        )

    def test_only_that_layer_is_off(self, poisoned):
        audit = poisoned.store().read(audit_key(poisoned))
        assert audit.filter(pl.col("error") > 1e-5)["layer"].unique().to_list() == [POISONED_LAYER]

    def test_it_fails_again_though_there_is_nothing_to_do(self, poisoned):
        output = poisoned.gradsim("run", "tiny", fails=True)
        assert "nothing to do" in output
        assert "the audit of tiny/word_dropout failed" in output.splitlines()[-1]

    def test_status_and_report_say_so(self, poisoned):
        assert "word_dropout: plain autograd differs from " in poisoned.gradsim("status", "tiny")
        report = (poisoned.data / "tiny" / "report.html").read_text(encoding="utf-8")
        assert '<h1 class="wrong">Do not rely on this study’s numbers: the audit failed.</h1>' in report

    def test_its_check_is_red(self, poisoned):
        with poisoned.instance() as instance:
            key = dg.AssetCheckKey(asset_key(audit_key(poisoned)), CHECK)
            (record,) = instance.event_log_storage.get_asset_check_execution_history(key, limit=2)
        evaluation = record.event.dagster_event.asset_check_evaluation_data
        assert not evaluation.passed
        assert evaluation.severity is dg.AssetCheckSeverity.ERROR
        assert POISONED_LAYER in evaluation.description

    def test_the_advice_helps_where_the_code_was_corrected(self, poisoned, tmp_path):
        corrected = poisoned.copy(tmp_path)
        output = corrected.gradsim("run", "tiny", "--setting", "word_dropout", "--force")
        assert "numbers agree with plain autograd" in output

    def test_a_backfill_of_the_web_ui_is_red_too(self, poisoned, tmp_path, wait_until):
        place = poisoned.copy(tmp_path)
        store = place.store()
        store.path(audit_key(place)).unlink()
        with serve(place, wait_until) as web:
            backfill = web.launch_backfill([audit_key(place).parts], None)
            wait_until(lambda: web.backfill(backfill)["status"] in ENDED, "the backfill", pause=0.5)
        with place.instance() as instance:
            key = dg.AssetCheckKey(asset_key(audit_key(place)), CHECK)
            (record,) = instance.event_log_storage.get_asset_check_execution_history(key, limit=2)
        evaluation = record.event.dagster_event.asset_check_evaluation_data
        assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.ERROR)
