"""The web UI and its daemon, as a person uses them: assets are looked at, and a backfill is launched and done."""

import json
import signal
import socket
import urllib.error
import urllib.request

import psutil
import pytest

from gradsim.tables import State
from gradsim.tables.lineage import DOT_TABLES

pytestmark = pytest.mark.slow

PARTITIONS = ["0000-0006", "0014-0019"]

CODE_LOCATIONS = """{
  workspaceOrError { ... on Workspace { locationEntries {
    name loadStatus locationOrLoadError { __typename ... on RepositoryLocation { repositories { name } } } } } } }"""

ASSETS = """{ assetNodes {
  assetKey { path } groupName kinds owners { ... on TeamAssetOwner { team } } description
  partitionKeys jobNames } }"""

LAUNCH = """mutation($backfill: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $backfill) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""

BACKFILL = """query($id: String!) { partitionBackfillOrError(backfillId: $id) {
  ... on PartitionBackfill { status runs(limit: 10) { status tags { key value } } } } }"""

MATERIALIZATIONS = """query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
  assetMaterializations(limit: 10) { partition
    metadataEntries { label ... on IntMetadataEntry { intValue } ... on PathMetadataEntry { path } } }
  assetChecksOrError { ... on AssetChecks { checks { name partitionStatuses {
    ... on AssetCheckDefaultPartitionStatuses { succeededPartitions failedPartitions } } } } } } } }"""


class WebUI:
    """A running `gradsim web`, asked through its GraphQL as the browser asks."""

    def __init__(self, process, port):
        self.process = process
        self.port = port

    def query(self, text, **variables):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql",
            data=json.dumps({"query": text, "variables": variables}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def is_up(self):
        assert self.process.poll() is None, self.process.communicate()[0]
        try:
            (location,) = self.query(CODE_LOCATIONS)["workspaceOrError"]["locationEntries"]
        except (urllib.error.URLError, ConnectionError):
            return False
        return location["loadStatus"] == "LOADED"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def place(finished, tmp_path_factory):
    """A finished study of which two partitions lack their dots."""
    place = finished.copy(tmp_path_factory.mktemp("web"))
    for table in DOT_TABLES:
        place.delete(*(f"tiny/word_dropout/{table}/{partition}.parquet" for partition in PARTITIONS))
    return place


@pytest.fixture(scope="module")
def web(place, wait_until):
    port = free_port()
    process = place.start("gradsim", "web", "--port", str(port))
    family = []
    try:
        ui = WebUI(process, port)
        wait_until(ui.is_up, "the web UI", pause=1)
        yield ui
        family = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    # What remains of the family a moment later has lost its parents.
    _, alive = psutil.wait_procs(family, timeout=10)
    assert len(family) >= 2, "web server and daemon"
    assert alive == []
    assert process.returncode == 0


def test_all_assets_of_the_study_are_shown(web, place):
    (location,) = web.query(CODE_LOCATIONS)["workspaceOrError"]["locationEntries"]
    assert location["name"] == "gradsim"
    nodes = {"/".join(node["assetKey"]["path"]): node for node in web.query(ASSETS)["assetNodes"]}
    assert set(nodes) == {str(node.key) for node in place.store().lineage}
    dots = nodes["tiny/word_dropout/dot_products"]
    assert dots["groupName"] == "tiny_word_dropout"
    assert sorted(dots["kinds"]) == ["parquet", "torch"]
    assert dots["owners"] == [{"team": "gradsim"}]
    assert dots["partitionKeys"] == ["0000-0006", "0007-0013", "0014-0019"]
    assert "tiny__partitions" in dots["jobNames"]


def test_a_backfill_of_two_partitions_computes_them(web, place, wait_until):
    keys = [{"path": ["tiny", "word_dropout", table]} for table in DOT_TABLES]
    before = place.digests()
    launched = web.query(
        LAUNCH, backfill={"assetSelection": keys, "partitionNames": PARTITIONS, "title": "two partitions"}
    )["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched

    def backfill():
        return web.query(BACKFILL, id=launched["backfillId"])["partitionBackfillOrError"]

    ended = {"COMPLETED_SUCCESS", "COMPLETED_FAILED", "COMPLETED", "FAILED", "CANCELED"}
    wait_until(lambda: backfill()["status"] in ended, "the backfill", seconds=240, pause=2)
    assert backfill()["status"] == "COMPLETED_SUCCESS"
    assert {run["status"] for run in backfill()["runs"]} == {"SUCCESS"}

    store = place.store()
    made = {f"tiny/word_dropout/{table}/{partition}.parquet" for table in DOT_TABLES for partition in PARTITIONS}
    assert set(place.digests()) - set(before) == made
    for table in DOT_TABLES:
        for partition in PARTITIONS:
            assert store.state(store.lineage.key(table, "word_dropout"), partition) is State.FRESH

    shown = web.query(MATERIALIZATIONS, key=keys[0])["assetNodeOrError"]
    assert sorted(each["partition"] for each in shown["assetMaterializations"]) == PARTITIONS
    for each in shown["assetMaterializations"]:
        metadata = {entry["label"]: entry for entry in each["metadataEntries"]}
        assert metadata["dagster/row_count"]["intValue"] > 0
        assert metadata["passes"]["intValue"] > 0
    for check in shown["assetChecksOrError"]["checks"]:
        assert sorted(check["partitionStatuses"]["succeededPartitions"]) == PARTITIONS, check["name"]
        assert check["partitionStatuses"]["failedPartitions"] == []


def test_a_port_that_is_taken_ends_the_command(workplace):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        output = workplace.gradsim("web", "--port", str(port), fails=True)
    assert output.startswith(f"error: port {port} cannot be had (Address already in use); choose another: --port")
