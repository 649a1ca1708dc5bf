"""The web UI answers its own pages and programs, and no other page. It listens on a Unix socket, behind `ssh -L`."""

import http.client
import json
import os
import re
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from socketserver import StreamRequestHandler, TCPServer, ThreadingTCPServer

import pytest
from playwright.sync_api import Browser
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from gradsim_assets_tests.web_ui import LAUNCH, WebUI, serve
from gradsim_assets_tests.workplace import Workplace

pytestmark = pytest.mark.slow

SEARCH = "{ runsOrError { ... on Runs { results { status assetSelection { path } } } } }"
BACKFILLS = "{ partitionBackfillsOrError { ... on PartitionBackfills { results { id } } } }"

# A mutation as a page would smuggle it in: it starts a backfill if it is executed.
DOTS = {"path": ["tiny", "word_dropout", "dot_products"]}
VARIABLES = {"backfill": {"assetSelection": [DOTS], "allPartitions": True, "title": "a smuggled one"}}
MUTATION = json.dumps({"query": LAUNCH, "variables": VARIABLES})
IN_ADDRESS = re.sub(r"\s+", "%20", f"?query={LAUNCH}&variables={json.dumps(VARIABLES)}").replace('"', "%22")

JSON = {"Content-Type": "application/json"}


class Forwarder(StreamRequestHandler):
    """Forwards a connection of a browser to a Unix socket, as `ssh -L PORT:PATH` does."""

    path: str

    def handle(self) -> None:
        with socket.socket(socket.AF_UNIX) as there, suppress(OSError):
            there.connect(self.path)
            threading.Thread(target=self._copy, args=(there, self.connection), daemon=True).start()
            self._copy(self.connection, there)

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(1 << 16):
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)


class Threads(ThreadingTCPServer):
    daemon_threads = True


@pytest.fixture(scope="module")
def run_server() -> Iterator[Callable[..., int]]:
    """Runs a TCP server on a free port of this machine until the tests of this file end, and gives the port."""
    servers: list[TCPServer] = []

    def run(handler: type[StreamRequestHandler] | partial[SimpleHTTPRequestHandler]) -> int:
        server = Threads(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return int(server.server_address[1])

    yield run
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:  # shorter than pytest's: paths of Unix sockets are limited
        yield Path(folder) / "web.sock"


@pytest.fixture(scope="module")
def web(tmp_path_factory, wait_until, run_server, path) -> Iterator[WebUI]:
    place = Workplace(tmp_path_factory.mktemp("web"))
    place.write_rows("originals.jsonl", place.rows(20))
    place.write_study()
    port = run_server(type("Here", (Forwarder,), {"path": str(path)}))
    umask = os.umask(0)
    try:
        with serve(place, wait_until, "--socket", str(path), "--host-name", "gradsim.example.org", port=port) as ui:
            yield ui
    finally:
        os.umask(umask)
    assert not path.exists()


@pytest.fixture(autouse=True)
def nothing_was_launched(web: WebUI) -> Iterator[None]:
    yield
    assert web.query(BACKFILLS)["partitionBackfillsOrError"]["results"] == []


def ask(
    web: WebUI, method: str, target: str, body: str | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """The status and the text of the answer to a request."""
    with closing(http.client.HTTPConnection("127.0.0.1", web.port, timeout=60)) as connection:
        connection.request(method, target, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def own(web: WebUI) -> str:
    return f"http://127.0.0.1:{web.port}"


OTHER_PAGE = r"only pages of http://127.0.0.1:\d+ may do this \(Origin: .*"
NO_JSON = "POST is answered to application/json only"
NO_GET = "GraphQL is answered to POST only"


@pytest.mark.parametrize(
    ("method", "target", "headers", "reason"),
    [
        ("POST", "/graphql", {**JSON, "Origin": "http://evil.example"}, OTHER_PAGE),
        ("POST", "/graphql", {**JSON, "Origin": "http://127.0.0.1:1"}, OTHER_PAGE),
        ("POST", "/graphql", {**JSON, "Origin": "null"}, OTHER_PAGE),
        ("POST", "/graphql", {**JSON, "Sec-Fetch-Site": "cross-site"}, OTHER_PAGE),
        ("POST", "/graphql", {**JSON, "Sec-Fetch-Site": "same-site"}, OTHER_PAGE),
        ("POST", "/graphql", {**JSON, "Host": "evil.example"}, "unknown host name 'evil.example'; .* --host-name NAME"),
        ("POST", "/graphql", {**JSON, "Host": "localhost.evil.example:3000"}, "unknown host name .*"),
        ("POST", "/graphql", {**JSON, "Host": "evil.example:80@localhost"}, "unknown host name .*"),
        ("POST", "/graphql", {**JSON, "Host": ""}, "unknown host name ''; .*"),
        ("POST", "/graphql", {}, NO_JSON),
        ("POST", "/graphql", {"Content-Type": "text/plain"}, NO_JSON),
        ("POST", "/graphql", {"Content-Type": "text/plain; application/json"}, NO_JSON),
        ("POST", "/graphql", {"Content-Type": "application/x-www-form-urlencoded"}, NO_JSON),
        ("POST", "/graphql", {"Content-Type": "application/graphql"}, NO_JSON),
        ("POST", "/graphql?", {"Content-Type": "multipart/form-data; boundary=x"}, NO_JSON),
        ("GET", "/graphql?", {}, NO_GET),
        ("GET", "/graphql?", {"Origin": "http://evil.example"}, NO_GET),
        ("GET", "/%67raphql?", {}, NO_GET),
        ("GET", "/graphql%0A?", {}, NO_GET),
        ("HEAD", "/graphql?", {}, ""),
        ("OPTIONS", "/graphql", {"Origin": "http://evil.example"}, OTHER_PAGE),
        ("POST", "/report_asset_materialization/tiny/samples", {**JSON, "Origin": "http://evil.example"}, OTHER_PAGE),
        ("POST", "/report_asset_materialization/tiny/samples", {"Content-Type": "text/plain"}, NO_JSON),
        ("POST", "/report_asset_check/tiny/samples", {}, NO_JSON),
        ("POST", "/report_asset_observation/tiny/samples", {"Sec-Fetch-Site": "cross-site"}, OTHER_PAGE),
        ("GET", "/", {"Host": "evil.example"}, "unknown host name .*"),
        ("GET", "/logs/x/compute_logs/y.out", {"Host": "evil.example"}, "unknown host name .*"),
    ],
)
def test_what_another_page_may_send_is_refused(web, method, target, headers, reason):
    target = target.replace("?", IN_ADDRESS)
    status, said = ask(web, method, target, None if method in {"GET", "HEAD"} else MUTATION, headers)
    assert status == 403
    assert re.fullmatch(f"{reason}\n" if reason else "", said), said


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": "localhost:3000"},
        {"Host": "LOCALHOST"},
        {"Host": "[::1]:3000", "Origin": "http://[::1]:3000"},
        {"Host": "localhost:8", "Origin": "http://localhost:8", "Sec-Fetch-Site": "same-origin"},
        {"Host": "gradsim.example.org", "Origin": "https://gradsim.example.org"},
        {"Content-Type": "application/json; charset=utf-8", "Sec-Fetch-Site": "none"},
    ],
)
def test_its_own_pages_and_programs_are_answered(web, headers):
    status, said = ask(web, "POST", "/graphql", json.dumps({"query": SEARCH}), {**JSON, **headers})
    assert (status, set(json.loads(said))) == (200, {"data"})


def test_pages_may_be_linked_to_but_not_framed(web):
    with closing(http.client.HTTPConnection("127.0.0.1", web.port, timeout=60)) as connection:
        connection.request("GET", "/assets", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"})
        answer = connection.getresponse()
        assert (answer.status, answer.headers["X-Frame-Options"]) == (200, "SAMEORIGIN")
        assert "<html" in answer.read().decode()
    assert ask(web, "GET", "/logs/no/compute_logs/such.out")[0] == 404
    assert ask(web, "GET", "/server_info")[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", None])
def test_a_websocket_of_another_page_is_refused(web, origin):
    asked = Origin(origin) if origin else None
    with pytest.raises(InvalidStatus) as refused, open_websocket(web, asked):
        pass
    assert refused.value.response.status_code == 403
    assert re.fullmatch(f"{OTHER_PAGE}\n", refused.value.response.body.decode())


def test_its_own_websocket_is_answered(web):
    with open_websocket(web, Origin(own(web))) as connection:
        connection.send(json.dumps({"type": "connection_init"}))
        assert json.loads(connection.recv(60)) == {"type": "connection_ack"}


def open_websocket(web, origin):
    address = f"ws://127.0.0.1:{web.port}/graphql"
    return connect(address, origin=origin, subprotocols=[Subprotocol("graphql-ws")], proxy=None, open_timeout=60)


def test_only_this_user_can_open_the_socket(web, path):
    assert path.stat().st_mode & 0o777 == 0o600
    assert "ssh -L" in web.log.read_text(encoding="utf-8")


HOSTILE = """<form method="post" enctype="text/plain" target="shown" action="ADDRESS/graphql">
<input name='MUTATION' value=''></form>
<iframe name="shown"></iframe><img src="ADDRESS/graphqlQUERY"><script>
document.forms[0].submit();
const said = [];
const note = what => { said.push(what); document.title = said.join(" "); };
const types = ["text/plain", "application/x-www-form-urlencoded", "application/json"];
for (const type of types) {
  const mode = type.endsWith("json") ? "cors" : "no-cors";
  fetch("ADDRESS/graphql", {method: "POST", mode, headers: {"Content-Type": type}, body: document.forms[0][0].name})
    .then(() => note("sent"), () => note("refused"));
}
const socket = new WebSocket("ws" + "ADDRESS".slice(4) + "/graphql", "graphql-ws");
socket.onopen = () => note("open");
socket.onerror = () => note("closed");
</script>"""


def test_another_page_in_the_same_browser_starts_nothing(web, chromium: Browser, run_server, tmp_path):
    content = HOSTILE.replace("ADDRESS", own(web)).replace("MUTATION", MUTATION).replace("QUERY", IN_ADDRESS)
    (tmp_path / "page.html").write_text(content, encoding="utf-8")
    port = run_server(partial(SimpleHTTPRequestHandler, directory=str(tmp_path)))
    tab = chromium.new_page()
    answers: list[tuple[str, int]] = []
    tab.on("response", lambda answer: answers.append((answer.request.method, answer.status)))
    tab.goto(f"http://localhost:{port}/page.html")
    tab.wait_for_function("document.title.split(' ').length == 4")
    assert sorted(tab.title().split()) == ["closed", "refused", "sent", "sent"]
    tab.wait_for_timeout(500)
    assert {status for method, status in answers if method == "POST"} == {403}
    assert ("GET", 403) in answers
    tab.close()


def test_the_web_ui_works_in_a_browser(web, chromium: Browser, wait_until):
    tab = chromium.new_page()
    refused: list[str] = []
    frames: list[str] = []
    tab.on("response", lambda answer: refused.append(answer.url) if answer.status == 403 else None)
    tab.on("websocket", lambda opened: opened.on("framereceived", lambda frame: frames.append(str(frame))))
    tab.goto(f"http://localhost:{web.port}/assets/tiny/samples")
    tab.get_by_role("button", name="Materialize").first.click(timeout=120_000)

    def has_run() -> bool:
        tab.wait_for_timeout(500)  # which also lets the browser's events through
        return [run["status"] for run in web.query(SEARCH)["runsOrError"]["results"]] == ["SUCCESS"]

    wait_until(has_run, "the run that the button launches")
    tab.goto(f"http://localhost:{web.port}/runs")
    tab.get_by_text("Success").first.wait_for(timeout=60_000)
    assert any("connection_ack" in frame for frame in frames)
    assert refused == []
    tab.close()
