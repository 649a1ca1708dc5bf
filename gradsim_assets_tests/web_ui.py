"""A running `gradsim web`, used as a person uses it, through the GraphQL that the browser asks."""

import json
import signal
import socket
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil

CODE_LOCATIONS = """{
  workspaceOrError { ... on Workspace { locationEntries {
    name loadStatus locationOrLoadError { __typename ... on RepositoryLocation { repositories { name } } } } } } }"""

LAUNCH = """mutation($backfill: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $backfill) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""

BACKFILL = """query($id: String!) { partitionBackfillOrError(backfillId: $id) {
  ... on PartitionBackfill { status runs(limit: 100) { id status tags { key value } } } } }"""

TERMINATE = """mutation($run: String!) { terminateRun(runId: $run) {
  __typename ... on TerminateRunFailure { message } ... on PythonError { message } } }"""

ENDED = {"COMPLETED_SUCCESS", "COMPLETED_FAILED", "COMPLETED", "FAILED", "CANCELED"}


class WebUI:
    """A running `gradsim web`, asked through its GraphQL as the browser asks."""

    def __init__(self, process, port, log):
        self.process = process
        self.log = log
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

    def launch_backfill(self, keys, partitions):
        """The id of a backfill that was begun of these asset keys and partitions; None: of all that they have."""
        which = {"allPartitions": True} if partitions is None else {"partitionNames": partitions}
        asked = {"assetSelection": [{"path": list(key)} for key in keys], **which}
        launched = self.query(LAUNCH, backfill={**asked, "title": "a test"})["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        return launched["backfillId"]

    def backfill(self, identifier):
        """What became of a backfill so far, with its runs."""
        return self.query(BACKFILL, id=identifier)["partitionBackfillOrError"]

    def is_up(self):
        assert self.process.poll() is None, self.log.read_text(encoding="utf-8")
        try:
            (location,) = self.query(CODE_LOCATIONS)["workspaceOrError"]["locationEntries"]
        except OSError:
            return False
        return location["loadStatus"] == "LOADED"


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def serve(
    place: Any, wait_until: Callable[..., None], *options: str, port: int = 0, **variables: str
) -> Iterator[WebUI]:
    """The web UI and the daemon of a workplace; nothing of their family remains.

    With options that let it listen elsewhere, it is reached through this port.
    """
    port = port or _free_port()
    log = place.folder / f"web-{port}.log"
    with log.open("w", encoding="utf-8") as output:  # a pipe would be full one day, and hold up the daemon
        process = place.start("gradsim", "web", "--port", str(port), *options, output=output, **variables)
    family: list[psutil.Process] = []
    try:
        ui = WebUI(process, port, log)
        wait_until(ui.is_up, "the web UI", pause=1)
        yield ui
        family = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    # What remains of the family a moment later has lost its parents.
    _, alive = psutil.wait_procs(family, timeout=10)
    assert len(family) >= 2, "web server and daemon"
    assert alive == []
    assert process.returncode == 0
