"""The few answers of the Hugging Face hub that an upload needs, over HTTP on this machine."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub(ThreadingHTTPServer):
    """`files`: what was committed, by path; `asked`: (path, token, body) of each request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str, bytes]] = []
        self.refuses = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((self.path, self.headers.get("Authorization", ""), body))
        if self.server.refuses:
            return self._answer({"error": "You do not have the rights to create a model here"}, 403)
        if self.path == "/api/repos/create":
            name = json.loads(body)["name"]
            return self._answer({"url": f"{self.server.address}/me/{name}", "name": f"me/{name}", "id": f"me/{name}"})
        if "/preupload/" in self.path:
            paths = [each["path"] for each in json.loads(body)["files"]]
            files = [{"path": path, "uploadMode": "regular", "shouldIgnore": False, "oid": None} for path in paths]
            return self._answer({"files": files})
        if "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return self._answer(
                {"commitUrl": f"{self.server.address}/me/x/commit/1", "commitOid": "1" * 40, "success": True}
            )
        return self._answer({"warnings": [], "errors": []})  # /api/validate-yaml

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization", ""), b""))
        self._answer({})

    def do_HEAD(self) -> None:
        self._answer({})

    def _answer(self, content: dict[str, object], status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        return None


@contextmanager
def hub() -> Iterator[Hub]:
    with Hub() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
