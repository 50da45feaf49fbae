"""A chat completions server on this machine that answers as it is told, and records what it was asked.

    with LyingServer() as server:
        server.next(Say('{"tags": ["cat"]}'), Status(429, retry_after="1"), Cut())
        server.always(lambda asked: Say(asked.prompt))

Behaviours given to `next` are used up first, in order; then `always` answers, "ok" at first.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any

from PIL import Image


@dataclass
class Asked:
    """One request; names of headers in small letters. `pictures` are (mime type, bytes)."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    at: float
    in_flight: int = 0

    @property
    def parts(self) -> list[dict[str, Any]]:
        found = []
        for message in self.body.get("messages", []):
            content = message["content"]
            found += [{"type": "text", "text": content}] if isinstance(content, str) else content
        return found

    @property
    def prompt(self) -> str:
        return "\n".join(p["text"] for p in self.parts if p["type"] == "text")

    @property
    def pictures(self) -> list[tuple[str, bytes]]:
        found = []
        for part in self.parts:
            if part["type"] == "image_url":
                head, _, data = part["image_url"]["url"].partition(";base64,")
                found.append((head.removeprefix("data:"), base64.b64decode(data)))
        return found

    def picture(self) -> Image.Image:
        return Image.open(BytesIO(self.pictures[0][1]))


@dataclass
class Say:
    """A completion."""

    text: str | None = "ok"
    finish_reason: str = "stop"
    model: str = ""
    refusal: str | None = None
    usage: dict[str, int] | None = field(default_factory=lambda: {"prompt_tokens": 100, "completion_tokens": 10})
    seconds: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)

    def send(self, handler: _Handler, asked: Asked) -> None:
        time.sleep(self.seconds)
        message: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.refusal:
            message["refusal"] = self.refusal
        body = {
            "id": "x",
            "object": "chat.completion",
            "created": 1,
            "model": self.model or asked.body.get("model"),
            "choices": [{"index": 0, "message": message, "finish_reason": self.finish_reason}],
        }
        if self.usage:
            body["usage"] = self.usage
        handler.answer(200, json.dumps(body).encode(), headers=self.headers)


@dataclass
class Status:
    """An error, in the form that OpenAI gives its errors, or any other body."""

    status: int
    message: str = "no"
    code: str | None = None
    retry_after: str | None = None
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def send(self, handler: _Handler, asked: Asked) -> None:
        headers = dict(self.headers)
        if self.retry_after is not None:
            headers["Retry-After"] = self.retry_after
        body = self.body
        if body is None:
            body = json.dumps({"error": {"message": self.message, "code": self.code}}).encode()
        handler.answer(self.status, body, headers=headers)


@dataclass
class Raw:
    """Bytes as the body of a 200."""

    body: bytes
    mime: str = "application/json"

    def send(self, handler: _Handler, asked: Asked) -> None:
        handler.answer(200, self.body, self.mime)


@dataclass
class Cut:
    """A body that ends before its announced length."""

    def send(self, handler: _Handler, asked: Asked) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b'{"choices": [{"message": {"con')
        handler.wfile.flush()
        handler.close_connection = True
        handler.connection.close()


@dataclass
class Drip:
    """A body that comes a byte at a time, without end."""

    every: float = 0.05

    def send(self, handler: _Handler, asked: Asked) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        try:
            while not handler.server.stopping.is_set():  # type: ignore[attr-defined]
                handler.wfile.write(b" ")
                handler.wfile.flush()
                time.sleep(self.every)
        except OSError:
            pass
        handler.close_connection = True


@dataclass
class Flood:
    """A body without end, as fast as it goes."""

    def send(self, handler: _Handler, asked: Asked) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.end_headers()
        try:
            for _ in range(4000):
                handler.wfile.write(b" " * 65536)
        except OSError:
            pass
        handler.close_connection = True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self._handle(json.loads(self.rfile.read(length) or b"{}"))

    def do_GET(self) -> None:
        self._handle({})

    def _handle(self, body: dict[str, Any]) -> None:
        owner = self.server.owner
        if self.server.stopping.is_set():  # a connection that was kept open ends with the server
            self.close_connection = True
            return
        asked = Asked(self.path, {k.lower(): v for k, v in self.headers.items()}, body, time.monotonic())
        with owner.lock:
            owner.in_flight += 1
            asked.in_flight = owner.in_flight
            owner.most_in_flight = max(owner.most_in_flight, owner.in_flight)
            owner.asked.append(asked)
            what = owner.script.popleft() if owner.script else owner.default
        try:
            if callable(what):
                what = what(asked)
            what.send(self, asked)
        except OSError:
            self.close_connection = True
        finally:
            with owner.lock:
                owner.in_flight -= 1

    def answer(
        self, status: int, body: bytes, mime: str = "application/json", headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", mime)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    allow_reuse_address = True

    def __init__(self, owner: LyingServer, port: int) -> None:
        self.owner = owner
        self.stopping = threading.Event()
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class LyingServer:
    """Serves until it is closed. `asked` are the requests so far, in the order of their coming."""

    def __init__(self, port: int = 0) -> None:
        self.lock = threading.Lock()
        self.script: deque[Any] = deque()
        self.default: Any = Say()
        self.asked: list[Asked] = []
        self.in_flight = self.most_in_flight = 0
        self._server = _Server(self, port)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def next(self, *behaviours: Any) -> None:
        with self.lock:
            self.script.extend(behaviours)

    def always(self, behaviour: Any | Callable[[Asked], Any]) -> None:
        with self.lock:
            self.default = behaviour

    def close(self) -> None:
        self._server.stopping.set()
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> LyingServer:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
