"""The web UI and its daemon, as a person uses them: assets are looked at, and a backfill is launched and done."""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from gradsim.errors import StudyError
from gradsim.tables import State
from gradsim.tables.lineage import DOT_TABLES
from gradsim_assets.checks.stored_check import NAME as STORED
from gradsim_assets.commands import web as web_command
from gradsim_assets_tests.web_ui import CODE_LOCATIONS, ENDED, serve

pytestmark = pytest.mark.slow

NOBODY = 65534

PARTITIONS = ["0000-0006", "0014-0019"]

ASSETS = """{ assetNodes {
  assetKey { path } groupName kinds owners { ... on TeamAssetOwner { team } } description
  partitionKeys jobNames } }"""

MATERIALIZATIONS = """query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
  assetMaterializations(limit: 10) { partition
    metadataEntries { label ... on IntMetadataEntry { intValue } ... on PathMetadataEntry { path } } }
  assetChecksOrError { ... on AssetChecks { checks { name partitionStatuses {
    ... on AssetCheckDefaultPartitionStatuses { succeededPartitions failedPartitions } } } } } } } }"""


RELOAD = """mutation { reloadRepositoryLocation(repositoryLocationName: "gradsim") {
  __typename ... on WorkspaceLocationEntry { loadStatus } } }"""

LAUNCH = """mutation($run: ExecutionParams!) { launchRun(executionParams: $run) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""


@pytest.fixture(scope="module")
def place(finished, tmp_path_factory):
    """A finished study without the dots of two partitions."""
    place = finished.copy(tmp_path_factory.mktemp("web"))
    for table in DOT_TABLES:
        place.delete(*(f"tiny/word_dropout/{table}/{partition}.parquet" for partition in PARTITIONS))
    return place


@pytest.fixture(scope="module")
def web(place, wait_until):
    with serve(place, wait_until) as ui:
        yield ui


def test_all_assets_of_the_study_are_shown(web, place):
    (location,) = web.query(CODE_LOCATIONS)["workspaceOrError"]["locationEntries"]
    assert location["name"] == "gradsim"
    nodes = {"/".join(node["assetKey"]["path"]): node for node in web.query(ASSETS)["assetNodes"]}
    assert set(nodes) == {str(node.key) for node in place.store().lineage}
    dots = nodes["tiny/word_dropout/dot_products"]
    assert dots["groupName"] == "word_dropout_tiny_gradients"
    assert sorted(dots["kinds"]) == ["parquet", "torch"]
    assert dots["owners"] == [{"team": "gradsim"}]
    assert dots["partitionKeys"] == ["0000-0006", "0007-0013", "0014-0019"]
    assert "tiny__partitions" in dots["jobNames"]


def test_a_backfill_of_two_partitions_computes_them(web, place, wait_until):
    keys = [("tiny", "word_dropout", table) for table in DOT_TABLES]
    before = place.digests()
    launched = web.launch_backfill(keys, PARTITIONS)
    wait_until(lambda: web.backfill(launched)["status"] in ENDED, "the backfill", seconds=240, pause=2)
    assert web.backfill(launched)["status"] == "COMPLETED_SUCCESS"
    assert {run["status"] for run in web.backfill(launched)["runs"]} == {"SUCCESS"}

    store = place.store()
    made = {f"tiny/word_dropout/{table}/{partition}.parquet" for table in DOT_TABLES for partition in PARTITIONS}
    assert set(place.digests()) - set(before) == made
    for table in DOT_TABLES:
        for partition in PARTITIONS:
            assert store.state(store.lineage.key(table, "word_dropout"), partition) is State.FRESH

    shown = web.query(MATERIALIZATIONS, key={"path": list(keys[0])})["assetNodeOrError"]
    assert sorted(each["partition"] for each in shown["assetMaterializations"]) == PARTITIONS
    for each in shown["assetMaterializations"]:
        metadata = {entry["label"]: entry for entry in each["metadataEntries"]}
        assert metadata["dagster/row_count"]["intValue"] > 0
        assert metadata["passes"]["intValue"] > 0
    checks = shown["assetChecksOrError"]["checks"]
    assert checks
    for check in (each for each in checks if each["name"] != STORED):
        assert sorted(check["partitionStatuses"]["succeededPartitions"]) == PARTITIONS, check["name"]
        assert check["partitionStatuses"]["failedPartitions"] == []


def test_a_corrected_study_runs_without_a_restart(workplace, wait_until):
    """Its neighbour is shown all the time."""
    (workplace.studies / "mine.yaml").write_text("samples: [")
    job = {"repositoryLocationName": "gradsim", "repositoryName": "__repository__", "jobName": "mine__dataset"}
    selector = {**job, "assetSelection": [{"path": ["mine", "samples"]}]}
    with serve(workplace, wait_until) as ui:

        def shown():
            nodes = ui.query(ASSETS)["assetNodes"]
            return {"/".join(node["assetKey"]["path"]): node["description"] for node in nodes}

        before = shown()
        assert "mine.yaml, line 1: not YAML" in before["mine/study"]
        workplace.write_study("mine")
        assert ui.query(RELOAD)["reloadRepositoryLocation"]["loadStatus"] == "LOADED"
        assert "mine/study" not in shown()
        assert {"tiny/samples"} < set(before) & set(shown())
        launched = ui.query(LAUNCH, run={"selector": selector, "mode": "default"})["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        wait_until(lambda: all(run.is_finished for run in workplace.runs()), "the run", seconds=240, pause=2)
    (run,) = workplace.runs()
    assert run.is_success
    store = workplace.store("mine")
    assert store.state(store.lineage.key("samples")) is State.FRESH


def test_a_changed_study_is_marked_as_in_its_status(finished, tmp_path, wait_until, chromium):
    place = finished.copy(tmp_path)
    shutil.copytree(finished.home, place.home)
    study = place.studies / "tiny.yaml"
    with serve(place, wait_until) as ui, chromium.new_page() as page:
        asset = f"http://127.0.0.1:{ui.port}/assets/tiny/report"
        page.goto(asset)
        expect(page.get_by_text("Latest check results")).to_be_visible(timeout=60_000)
        expect(page.get_by_text("Unsynced")).to_have_count(0)

        study.write_text(study.read_text().replace("top_k: 3", "top_k: 2"))
        assert ui.query(RELOAD)["reloadRepositoryLocation"]["loadStatus"] == "LOADED"
        page.goto(asset)
        expect(page.get_by_text("Unsynced").first).to_be_visible(timeout=60_000)
        assert "stale" in place.gradsim("status", "tiny")

        # The sensor looks at the files every half minute; partitioned assets have no other mark.
        page.goto(f"http://127.0.0.1:{ui.port}/assets/tiny/word_dropout/candidates?view=checks&checkDetail={STORED}")
        said = page.get_by_text("3 of 3 partitions are stale: 0000-0006, 0007-0013, 0014-0019")
        expect(said).to_be_visible(timeout=150_000)


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:  # which others may enter, unlike pytest's
        Path(folder).chmod(0o755)
        yield Path(folder) / "web.sock"


def connects(path):
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def test_only_this_user_can_open_its_socket(path):
    umask = os.umask(0)
    try:
        with web_command._listener(3000, path):
            assert path.stat().st_mode & 0o777 == 0o600
            assert connects(path)
            if os.geteuid() == 0:
                os.seteuid(NOBODY)
                try:
                    assert not connects(path)
                finally:
                    os.seteuid(0)
        assert os.umask(0) == 0, "other files are created as before"
    finally:
        os.umask(umask)
    assert not path.exists()


def test_a_socket_of_a_killed_server_is_replaced_and_no_other_file(path):
    with web_command._listener(3000, path), pytest.raises(StudyError, match=r"web.sock cannot be used \(Address al"):
        web_command._listener(3000, path).__enter__()
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    with web_command._listener(3000, path):
        assert connects(path)
    path.write_text("precious")
    with pytest.raises(StudyError, match="choose another: --socket PATH"):
        web_command._listener(3000, path).__enter__()
    assert path.read_text() == "precious"
    with pytest.raises(StudyError, match="AF_UNIX path too long"):
        web_command._listener(3000, path.with_name("s" * 120)).__enter__()


def test_a_port_that_is_taken_ends_the_command(workplace):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        output = workplace.gradsim("web", "--port", str(port), fails=True)
    assert output.startswith(f"error: port {port} cannot be used (Address already in use); choose another: --port")
