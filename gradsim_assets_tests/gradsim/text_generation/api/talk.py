"""A server in this process that says whatever a test wants, request by request."""

import json
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-not-for-anyones-eyes"


@dataclass
class Reply:
    """What the server answers; `content` None: the text in capitals."""

    content: str | None = None
    finish_reason: str = "stop"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    content_type: str = "application/json"
    code: str | None = None
    usage: tuple[int, int] | None = None
    drop: bool = False


class Server(ThreadingHTTPServer):
    """Speaks the chat completions format; `reply` decides what it says to the n-th request for a text."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply: Callable[[str, int], Reply] = lambda text, attempt: Reply()
        self.requests: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self.drip = 0.0
        self.gate: threading.Barrier | None = None
        self.in_flight = 0
        self.most_in_flight = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # the client has hung up
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def texts(self) -> list[str]:
        return [request["messages"][-1]["content"] for request in self.requests]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class's name
        pass

    def do_POST(self) -> None:
        server = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not body:  # the client has hung up
            return
        request = json.loads(body)
        text = request["messages"][-1]["content"]
        with server.lock:
            server.requests.append(request)
            attempt = server.texts().count(text)
            server.in_flight += 1
            server.most_in_flight = max(server.most_in_flight, server.in_flight)
        assert self.path == "/v1/chat/completions"
        if server.gate:
            server.gate.wait(timeout=20)
        reply = server.reply(text, attempt)
        with server.lock:
            server.in_flight -= 1
        if reply.drop:
            self.close_connection = True
            return
        self.answer(reply, text)

    def answer(self, reply: Reply, text: str) -> None:
        if reply.body is None:
            message = {"role": "assistant", "content": text.upper() if reply.content is None else reply.content}
            choice = {"index": 0, "finish_reason": reply.finish_reason, "message": message}
            completion: dict[str, Any] = {
                "id": "c",
                "object": "chat.completion",
                "created": 0,
                "model": "m",
                "choices": [choice],
            }
            # As servers do: an error repeats the key that was sent.
            error = {"error": {"message": f"no: {self.headers['Authorization']}", "code": reply.code}}
            if reply.usage:
                completion["usage"] = dict(
                    zip(
                        ("prompt_tokens", "completion_tokens", "total_tokens"),
                        (*reply.usage, sum(reply.usage)),
                        strict=True,
                    )
                )
            reply.body = json.dumps(completion if reply.status == 200 else error)
        body = reply.body.encode()
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not self.server.drip:
            self.wfile.write(body)
            return
        with suppress(ConnectionError):  # the client has had enough
            for byte in body:
                self.wfile.write(bytes([byte]))
                time.sleep(self.server.drip)
