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
from urllib.parse import parse_qsl, unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"
"""Of every model's main branch."""


def commit_of(number: int) -> str:
    """Of a pull request's branch."""
    return hashlib.sha1(f"pull {number}".encode()).hexdigest()


@dataclass(frozen=True)
class Pull:
    """A pull request: what its branch holds."""

    folder: Path
    author: str = "SFconvertbot"
    status: str = "open"


@dataclass(frozen=True)
class Repository:
    """A model with pull requests, by their numbers."""

    main: Path
    pulls: dict[int, Pull] = field(default_factory=dict)


Served = Path | Repository | tuple[int, str]
"""A folder whose files are a model's `main`, the same with pull requests, or the hub's status and error code for it."""


@dataclass
class Hub:
    """Models by id."""

    models: dict[str, Served]
    endpoint: str = ""
    files_sent: list[str] = field(default_factory=list)


@contextmanager
def running(models: dict[str, Served]) -> Iterator[Hub]:
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
        path, _, query = self.path.partition("?")
        parts = [unquote(part) for part in path.strip("/").split("/")]  # a revision's own slashes are escaped
        if parts[:2] == ["api", "models"]:
            self._information("/".join(parts[2:4]), parts[4:], dict(parse_qsl(query)))
        elif parts[2:3] == ["resolve"]:
            self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            self._refuse(404, "RepoNotFound")

    def _repository(self, name: str) -> Repository | None:
        """What is served by that name; refuses what is not."""
        found = self.served.models.get(name, (401, "RepoNotFound"))
        if isinstance(found, tuple):
            self._refuse(*found)
            return None
        return Repository(found) if isinstance(found, Path) else found

    def _revision(self, repository: Repository, revision: str) -> tuple[Path, str] | None:
        """Folder and commit of a branch, pull request or commit; refuses what is none."""
        known = dict.fromkeys(("main", COMMIT), (repository.main, COMMIT))
        for number, pull in repository.pulls.items():
            known |= {name: (pull.folder, commit_of(number)) for name in (f"refs/pr/{number}", commit_of(number))}
        if revision not in known:
            self._refuse(404, "RevisionNotFound")
        return known.get(revision)

    def _information(self, name: str, rest: list[str], query: dict[str, str]) -> None:
        repository = self._repository(name)
        if repository is None:
            return
        if rest[:1] == ["discussions"]:
            self._discussions(name, repository, query)
            return
        found = self._revision(repository, rest[1] if len(rest) > 1 else "main")
        if found is None:
            return
        folder, commit = found
        files = sorted(path for path in folder.iterdir() if path.is_file())
        if rest[:1] == ["tree"]:
            entries = [{"type": "file", "path": path.name, "size": path.stat().st_size, "oid": _blob(path)} for path in files]
            self._send(json.dumps(entries).encode())
        else:
            siblings = [{"rfilename": path.name, **(_stored(path) if query.get("blobs") else {})} for path in files]
            self._send(json.dumps({"id": name, "modelId": name, "sha": commit, "siblings": siblings}).encode())

    def _discussions(self, name: str, repository: Repository, query: dict[str, str]) -> None:
        """As https://huggingface.co/api/models/<name>/discussions answers."""
        listed = [
            {
                "num": number,
                "author": {"name": pull.author, "type": "user"},
                "repo": {"name": name, "type": "model"},
                "title": "Adding `safetensors` variant of this model",
                "status": pull.status,
                "createdAt": "2023-03-01T12:00:00.000Z",
                "isPullRequest": True,
                "pinned": False,
            }
            for number, pull in repository.pulls.items()
            if query.get("status") in (None, "all", pull.status) and query.get("author") in (None, pull.author)
        ]
        self._send(json.dumps({"discussions": listed, "count": len(listed), "start": 0, "numClosedDiscussions": 0}).encode())

    def _file(self, name: str, revision: str, file: str) -> None:
        repository = self._repository(name)
        found = repository and self._revision(repository, revision)
        if not found:
            return
        folder, commit = found
        if not (folder / file).is_file():
            self._refuse(404, "EntryNotFound")
        else:
            content = (folder / file).read_bytes()
            if self.command == "GET":
                self.served.files_sent.append(file)
            self._send(content, {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'})

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


def _blob(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


def _stored(path: Path) -> dict[str, object]:
    """What `?blobs=true` adds: large files are kept as LFS objects, whose checksum is of their content."""
    size = path.stat().st_size
    lfs = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "size": size, "pointerSize": 134}
    return {"size": size, "blobId": _blob(path), **({"lfs": lfs} if path.suffix in (".bin", ".safetensors") else {})}
