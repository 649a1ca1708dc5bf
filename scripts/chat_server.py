"""An OpenAI-compatible chat completions server for tests, with configurable delays, errors and dropped connections.

It runs in its own process (`python chat_server.py CONFIGURATION.json`) and logs every request before it answers, so
that a test can tell which texts were requested and which were paid for.
"""

import asyncio
import json
import random
import ssl
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any

Headers = dict[str, str]


@dataclass(frozen=True)
class Behaviour:
    """Configured behaviour of the server.

    Attributes:
        seconds: Delay of every answer.
        faults: Share of the requests that get each fault. A fault is a status such as `429`, or one of `dropped`,
            `malformed`, `page` and `stalled`.
        always: Fault of every request; None for none.
        code: Error code in answers with an error status.
        answers: Answers by text. Other texts are echoed with a suffix.
        finish_reasons: Finish reasons by text; `stop` for other texts.
        retry_after: Seconds in the `Retry-After` header of answers with an error status; None for no header.
        port: Port to listen on; 0 for any free port.
        certificate: TLS certificate file that also contains the key; None for plain HTTP.
    """

    seconds: float = 0.0
    faults: dict[str, float] = field(default_factory=dict)
    always: str | None = None
    code: str | None = None
    answers: dict[str, str] = field(default_factory=dict)
    finish_reasons: dict[str, str] = field(default_factory=dict)
    retry_after: float | None = None
    port: int = 0
    certificate: str | None = None


@dataclass(frozen=True)
class ChatServer:
    """A running server.

    Attributes:
        folder: Folder of the server's configuration, port and log.
        scheme: `http` or `https`.
    """

    folder: Path
    scheme: str

    @property
    def base_url(self) -> str:
        """Value for `OPENAI_BASE_URL`."""
        return f"{self.scheme}://127.0.0.1:{(self.folder / 'port').read_text()}/v1"

    def requests(self) -> list[dict[str, Any]]:
        """Return all requests in order, with their outcomes."""
        path = self.folder / "requests.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def answered(self) -> list[str]:
        """Return the texts that were answered with a completion, in order."""
        return [request["text"] for request in self.requests() if request["outcome"] == "answered"]


@contextmanager
def chat_server(folder: Path, behaviour: Behaviour | None = None) -> Iterator[ChatServer]:
    """Run a server in its own process while the block runs."""
    behaviour = behaviour or Behaviour()
    folder.mkdir(parents=True, exist_ok=True)
    configuration, port = folder / "behaviour.json", folder / "port"
    configuration.write_text(json.dumps(asdict(behaviour)), encoding="utf-8")
    port.unlink(missing_ok=True)
    process = Popen([sys.executable, __file__, str(configuration)], stdin=DEVNULL)
    try:
        while not port.exists():
            assert process.poll() is None, "the server did not start"
            asyncio.run(asyncio.sleep(0.01))
        yield ChatServer(folder, "https" if behaviour.certificate else "http")
    finally:
        process.terminate()
        process.wait(timeout=30)


class _Server:
    def __init__(self, folder: Path, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._chance = random.Random(0)
        self._log = (folder / "requests.jsonl").open("a", buffering=1, encoding="utf-8")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Handle the requests of one connection in sequence."""
        try:
            while (headers := await _headers(reader)) is not None:
                body = await reader.readexactly(int(headers["content-length"]))
                if not await self._answer(json.loads(body), headers, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client closed the connection
        finally:
            writer.close()

    async def _answer(self, asked: dict[str, Any], headers: Headers, writer: asyncio.StreamWriter) -> bool:
        """Answer a request, and return whether the connection stays open."""
        text = asked["messages"][-1]["content"]
        await asyncio.sleep(self._behaviour.seconds)
        fault = self._behaviour.always or self._fault()
        known = {name: value for name, value in asked.items() if name != "messages"}
        self._log.write(json.dumps({"text": text, **known, "outcome": fault or "answered"}) + "\n")
        match fault:
            case None:
                await _send(writer, 200, json.dumps(self._completion(text, asked["model"])))
            case "stalled":
                await asyncio.sleep(3600)
            case "dropped":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{")
                await writer.drain()
                return False
            case "malformed":
                await _send(writer, 200, '{"id": "1", "choices": [{"mess')
            case "page":
                await _send(writer, 200, "<html>Welcome</html>", {"Content-Type": "text/html"})
            case status:
                # Real servers repeat the API key in error messages, too.
                error = {"message": f"no: {headers.get('authorization')}", "code": self._behaviour.code}
                after = self._behaviour.retry_after
                more = {} if after is None else {"Retry-After": str(after)}
                await _send(writer, int(status), json.dumps({"error": error}), more)
        return True

    def _fault(self) -> str | None:
        drawn = self._chance.random()
        for name, share in self._behaviour.faults.items():
            if drawn < share:
                return name
            drawn -= share
        return None

    def _completion(self, text: str, model: str) -> dict[str, Any]:
        answer = self._behaviour.answers.get(text, f"{text} (again)")
        choice = {
            "index": 0,
            "finish_reason": self._behaviour.finish_reasons.get(text, "stop"),
            "message": {"role": "assistant", "content": answer},
        }
        usage = {"prompt_tokens": 100 + len(text) // 4, "completion_tokens": len(answer) // 4}
        usage["total_tokens"] = sum(usage.values())
        identifier = f"c{zlib.crc32(text.encode())}"
        return {
            "id": identifier,
            "object": "chat.completion",
            "created": 0,
            "model": model,
            "choices": [choice],
            "usage": usage,
        }


async def _headers(reader: asyncio.StreamReader) -> Headers | None:
    """Read the headers of the next request; None if the client sends no more."""
    head = await reader.readuntil(b"\r\n\r\n") if not reader.at_eof() else b""
    if not head:
        return None
    lines = head.decode("latin-1").split("\r\n")[1:]
    return {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}


async def _send(writer: asyncio.StreamWriter, status: int, body: str, headers: Headers | None = None) -> None:
    content = body.encode()
    known = {"Content-Type": "application/json", "Content-Length": str(len(content)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in known.items())
    writer.write(f"HTTP/1.1 {status} Said\r\n{head}\r\n".encode() + content)
    await writer.drain()


async def _main(configuration: Path) -> None:
    behaviour = Behaviour(**json.loads(configuration.read_text(encoding="utf-8")))
    context = None
    if behaviour.certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(behaviour.certificate)
    server = await asyncio.start_server(
        _Server(configuration.parent, behaviour).serve, "127.0.0.1", behaviour.port, ssl=context, limit=1 << 24
    )
    partial = configuration.parent / "port.partial"
    partial.write_text(str(server.sockets[0].getsockname()[1]))
    partial.rename(configuration.parent / "port")
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))
