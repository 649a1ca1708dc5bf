"""The web server of the web UI: Dagster's own, behind a guard that keeps other pages of the user's browser out.

Dagster's server also runs mutations that arrive by GET or as a form, for any host name, from any page. `gradsim web`
starts this module in a process of its own, with the descriptor of a listening socket and the allowed host names.
"""

import re
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress

import dagster as dg
import uvicorn
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._utils.interrupts import setup_interrupt_handlers
from dagster._utils.log import configure_loggers
from dagster_webserver import cli
from dagster_webserver.app import create_app_from_workspace_process_context
from dagster_webserver.version import __version__
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from gradsim.environment import project_root

# Names of this machine, also for a browser at the other end of `ssh -L`.
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")

# Dagster's default, which only its command line sets.
MILLISECONDS_BETWEEN_UPDATES = 2000


class Guard:
    """ASGI middleware that answers 403 to other host names and other origins, and to all writes that are not JSON.

    A host name under which the server does not expect itself is that of another page, which had its own name resolved
    to this machine (DNS rebinding). Starlette's TrustedHostMiddleware would answer 400, without the reason.

    Args:
        app: The application.
        host_names: Allowed host names besides those of this machine.
    """

    def __init__(self, app: ASGIApp, host_names: Sequence[str] = ()) -> None:
        self._app = app
        names = "|".join(re.escape(name) for name in (*LOCAL_NAMES, *host_names))
        self._own_host = re.compile(rf"({names})(:\d+)?", re.IGNORECASE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        reason = self._refusal(scope) if scope["type"] in {"http", "websocket"} else None
        answer = PlainTextResponse(f"{reason}\n", status_code=403) if reason else self._app
        await answer(scope, receive, send)

    def _refusal(self, scope: Scope) -> str | None:
        """Return the reason to refuse a request; None to pass it on."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._own_host.fullmatch(host):
            return f"unknown host name {host!r}; open http://localhost, or start gradsim web --host-name NAME"
        is_http = scope["type"] == "http"
        if is_http and scope["method"] in {"GET", "HEAD"}:
            # Starlette's routes ignore a final line break.
            return "GraphQL is answered to POST only" if scope["path"].rstrip("\n") == "/graphql" else None
        # Programs send no origin. Browsers send it with every write and every websocket; some also say who asks.
        origin = headers.get("origin", f"http://{host}" if is_http else "")
        site = headers.get("sec-fetch-site", "none") if is_http else "none"
        # A proxy may terminate TLS.
        if origin not in {f"http://{host}", f"https://{host}"} or site not in {"same-origin", "none"}:
            return f"only pages of http://{host} may do this (Origin: {origin}, Sec-Fetch-Site: {site})"
        # A page may send forms and plain text to other origins without asking, but no JSON.
        is_json = headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"
        return None if is_json or not is_http else f"{scope['method']} is answered to application/json only"


def main() -> None:
    """Serve on the listening socket whose descriptor is the first argument; the others are allowed host names."""
    descriptor, *host_names = sys.argv[1:]
    configure_loggers()
    setup_interrupt_handlers()
    workspace = WorkspaceFileTarget([str(project_root() / "workspace.yaml")])
    with (
        suppress(KeyboardInterrupt),
        socket.socket(fileno=int(descriptor)) as listener,
        dg.DagsterInstance.get() as instance,
        WorkspaceProcessContext(instance, workspace, version=__version__) as context,
    ):
        instance.optimize_for_webserver(
            cli.DEFAULT_DB_STATEMENT_TIMEOUT, cli.DEFAULT_POOL_RECYCLE, cli.DEFAULT_POOL_MAX_OVERFLOW
        )
        app = create_app_from_workspace_process_context(
            context, live_data_poll_rate=MILLISECONDS_BETWEEN_UPDATES, lifespan=cli._lifespan
        )
        app.add_middleware(Guard, host_names)
        # No other page may show the web UI in a frame and have the user click there.
        headers = [("X-Frame-Options", "SAMEORIGIN")]
        uvicorn.Server(uvicorn.Config(app, log_level="warning", headers=headers)).run(sockets=[listener])


if __name__ == "__main__":
    main()
