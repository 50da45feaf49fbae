"""A hub on the loopback: enough of its HTTP for huggingface_hub to list, look at and fetch repositories.

Run as a program it prints its address and serves until its input ends; `Hub` is the same in a thread.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LFS = 1000  # files from this size on are named by their sha256, as large files of the hub are


class Hub:
    """`repositories` maps "owner/name" to files. `slow`: bytes a second (0: at once); `cut`: each answer breaks off
    after so many bytes; `gated`: repositories that want a licence accepted; `corrupt`: the file that gets damaged."""

    COMMIT = "c" * 40

    def __init__(self, repositories: Mapping[str, Mapping[str, bytes]]) -> None:
        self.repositories = {name: dict(files) for name, files in repositories.items()}
        self.slow, self.cut = 0, 0
        self.gated: set[str] = set()
        self.corrupt = ""
        self.asked: list[str] = []  # "GET /path bytes=…"
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def fetched(self, name: str) -> list[str]:
        return [line for line in self.asked if line.startswith("GET") and f"/{name} " in line]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _etag(data: bytes) -> str:
    if len(data) >= LFS:
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            path = self.path.partition("?")[0]
            hub.asked.append(f"{self.command} {path} {self.headers.get('Range', '')}")
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?(?:/.*)?", path):
                name, verb, revision = found.groups()
                if not self._refused(name, revision or "main"):
                    self._json(_tree(hub, name) if verb == "tree" else _info(hub, name))
                return
            if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                name, revision, file = found.groups()
                if not self._refused(name, revision):
                    self._file(hub.repositories[name].get(file), file, body)
                return
            self._error(404, "EntryNotFound")

        def _refused(self, name: str, revision: str) -> bool:
            if name not in hub.repositories:
                self._error(404, "RepoNotFound")
            elif name in hub.gated:
                self._error(403, "GatedRepo")
            elif revision not in ("main", "v2", Hub.COMMIT):
                self._error(404, "RevisionNotFound")
            else:
                return False
            return True

        def _error(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _json(self, value: Any) -> None:
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def _file(self, data: bytes | None, name: str, body: bool) -> None:
            if data is None:
                self._error(404, "EntryNotFound")
                return
            etag = _etag(data)
            if name == hub.corrupt:
                data = bytes([data[0] ^ 1]) + data[1:]
            start = 0
            if wanted := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
                start = int(wanted[1])
            self.send_response(206 if start else 200)
            self.send_header("ETag", f'"{etag}"')
            self.send_header("X-Repo-Commit", Hub.COMMIT)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(data) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            if body:
                self._send(data[start:])

        def _send(self, data: bytes) -> None:
            sent = 0
            try:
                while sent < len(data):
                    step = 65536
                    if hub.cut and sent >= hub.cut:
                        self.close_connection = True
                        self.connection.close()
                        return
                    self.wfile.write(data[sent : sent + step])
                    sent += step
                    if hub.slow:
                        time.sleep(step / hub.slow)
            except OSError:
                self.close_connection = True

    return Handler


def _info(hub: Hub, name: str) -> dict[str, Any]:
    return {
        "_id": "1", "id": name, "modelId": name, "sha": Hub.COMMIT, "private": False, "gated": False, "disabled": False,
        "downloads": 1, "likes": 0, "tags": [], "siblings": [{"rfilename": f} for f in hub.repositories[name]],
    }  # fmt: skip


def _tree(hub: Hub, name: str) -> list[dict[str, Any]]:
    found = []
    for path, data in hub.repositories[name].items():
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": "0" * 40}
        if len(data) >= LFS:
            entry["lfs"] = {"oid": _etag(data), "size": len(data), "pointerSize": 130}
        else:
            entry["oid"] = _etag(data)
        found.append(entry)
    return found
