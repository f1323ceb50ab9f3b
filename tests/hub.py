"""A hub on loopback, as huggingface_hub sees one: model information, files by commit, and the ways to refuse."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Models by id: a folder whose files are its `main`, or the hub's error code and status for it."""

    models: dict[str, Path | tuple[int, str]]
    endpoint: str = ""
    files_sent: list[str] = field(default_factory=list)


@contextmanager
def running(models: dict[str, Path | tuple[int, str]]) -> Iterator[Hub]:
    """Serve `models` on a free port."""
    hub = Hub(models)

    class Handler(_Handler):
        served = hub

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        hub.endpoint = f"http://127.0.0.1:{server.server_port}"
        yield hub
        server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    served: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self._information("/".join(parts[2:4]), parts[4:])
        elif parts[2:3] == ["resolve"]:
            self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            self._refuse(404, "RepoNotFound")

    def _information(self, name: str, rest: list[str]) -> None:
        folder = self.served.models.get(name, (401, "RepoNotFound"))
        revision = rest[1] if len(rest) > 1 else "main"
        if isinstance(folder, tuple):
            self._refuse(*folder)
        elif revision not in ("main", COMMIT):
            self._refuse(404, "RevisionNotFound")
        elif rest[:1] == ["tree"]:
            entries = [
                {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": hashlib.sha1(path.read_bytes()).hexdigest()}
                for path in folder.iterdir()
            ]
            self._send(json.dumps(entries).encode())
        else:
            siblings = [{"rfilename": path.name} for path in folder.iterdir()]
            self._send(json.dumps({"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings}).encode())

    def _file(self, name: str, revision: str, file: str) -> None:
        folder = self.served.models.get(name, (401, "RepoNotFound"))
        if isinstance(folder, tuple):
            self._refuse(*folder)
        elif not (folder / file).is_file():
            self._refuse(404, "EntryNotFound")
        else:
            content = (folder / file).read_bytes()
            if self.command == "GET":
                self.served.files_sent.append(file)
            self._send(content, {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'})

    def _send(self, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(200)
        for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""
