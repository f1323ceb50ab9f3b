"""A stand-in for the Kubernetes API on loopback: HTTPS, a service account's token, and no more than a Role allows."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.tls import certificates

TOKEN = "a-service-accounts-token"
Manifest = dict[str, Any]


@dataclass
class KubernetesAPI:
    """Objects by their path (`rayjobs/NAME`), what was asked in order, and the statuses of answers that come instead of the next ones."""

    rules: list[Manifest]
    namespace: str = "masklake"
    objects: dict[str, Manifest] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    failing: list[int] = field(default_factory=list)
    account: Path = Path()
    log: str = ""
    status: Manifest = field(default_factory=dict)

    def of(self, kind: str) -> list[Manifest]:
        return [each for path, each in self.objects.items() if path.startswith(f"{kind}/")]

    def allows(self, verb: str, kind: str, name: str) -> bool:
        """As RBAC has it: a rule with names is for these alone."""
        return any(
            rule["apiGroups"] == ([""] if kind.startswith("pods") else ["ray.io"])
            and kind in rule["resources"]
            and verb in rule["verbs"]
            and name in rule.get("resourceNames", [name])
            for rule in self.rules
        )

    def answer(self, verb: str, path: str, query: dict[str, list[str]], body: Manifest) -> tuple[int, Manifest | str]:
        if path.startswith(f"/api/v1/namespaces/{self.namespace}/pods"):
            return self.pods(path.split("/")[6:], query)
        if not path.startswith(f"/apis/ray.io/v1/namespaces/{self.namespace}/"):
            return 404, {"message": "not found"}
        kind, _, name = path.split("/", 6)[6].partition("/")
        verb = {"GET": "get" if name else "list", "POST": "create"}[verb]
        self.asked.append(f"{verb} {kind}")
        if self.failing:
            return self.failing.pop(0), {"message": "the server is currently unable to handle the request"}
        if not self.allows(verb, kind, name):
            return 403, {"message": f"may not {verb} {kind}"}
        if verb == "list":
            (selector,) = query["labelSelector"]
            label, _, value = selector.partition("=")
            return 200, {"items": [each for each in self.of(kind) if each["metadata"].get("labels", {}).get(label) == value]}
        return self.create(kind, body) if verb == "create" else self.get(f"{kind}/{name}")

    def pods(self, path: list[str], query: dict[str, list[str]]) -> tuple[int, Manifest | str]:
        """The submitter's pod, which each RayJob has, and its log."""
        kind, verb = ("pods/log", "get") if path else ("pods", "list")
        if not self.allows(verb, kind, ""):
            return 403, {"message": f"may not {verb} {kind}"}
        if path:
            return 200, self.log
        name = query["labelSelector"][0].removeprefix("job-name=")
        items = [{"metadata": {"name": f"{name}-pod", "creationTimestamp": "2026-11-22T02:00:00Z"}}]
        return 200, {"apiVersion": "v1", "kind": "PodList", "items": items if f"rayjobs/{name}" in self.objects else []}

    def get(self, path: str) -> tuple[int, Manifest]:
        return (200, self.objects[path]) if path in self.objects else (404, {"message": f"{path} not found"})

    def create(self, kind: str, body: Manifest) -> tuple[int, Manifest]:
        path = f"{kind}/{body['metadata']['name']}"
        if path in self.objects:
            return 409, {"message": "already exists"}
        self.objects[path] = {**body, "status": self.status} if self.status else body
        return 201, body


@contextmanager
def kubernetes_api(folder: Path, rules: list[Manifest]) -> Iterator[KubernetesAPI]:
    """The running stand-in; this process's environment and the `account` folder are as in a pod of it."""
    api = KubernetesAPI(rules)
    authority, cert, key = certificates(folder)
    api.account = folder
    (folder / "token").write_text(TOKEN)
    (folder / "namespace").write_text(api.namespace)
    authority.rename(folder / "ca.crt")

    unauthorized: tuple[int, Manifest | str] = (401, {"message": "Unauthorized"})

    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            url = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers["Authorization"] != f"Bearer {TOKEN}":
                code, said = unauthorized
            else:
                code, said = api.answer(self.command, url.path, parse_qs(url.query), json.loads(body) if body else {})
            self.send_response(code)
            self.send_header("Content-Type", "text/plain" if isinstance(said, str) else "application/json")
            self.end_headers()
            self.wfile.write((said if isinstance(said, str) else json.dumps(said)).encode())

        do_GET = do_POST = respond  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
            patch.setenv("KUBERNETES_SERVICE_PORT", str(server.server_port))
            yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
