"""A proxy between S3 clients and their server that breaks a share of the requests: before the server sees them, or after it did the work.

Requests are forwarded as they were signed, with the client's own Host header, so the server checks the signature of what the client sent.
"""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol
from urllib.parse import unquote, urlsplit

FAULTS = ("500", "503", "slow", "reset", "lost", "truncated")
"""`lost`: the server does what it was asked for, and the connection breaks before its answer; `truncated`: in the middle of its body."""

_SLOW_SECONDS = (0.5, 3.0)
_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "proxy-connection"}
_ERROR = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{}</Code><Message>a fault of the test</Message></Error>'
_CODES = {"500": "InternalError", "503": "SlowDown"}


@dataclass(frozen=True)
class Request:
    """What is asked of the server; a `conditional` write is one that must find nothing there, as commits are."""

    method: str
    path: str
    """Bucket and key, without the query."""
    conditional: bool

    @property
    def writes(self) -> bool:
        """Whether it may change what is stored."""
        return self.method in ("PUT", "POST", "DELETE")


class Chooser(Protocol):
    """Says what becomes of each request: one of `FAULTS`, or `kill` and `kill after`, or '' for nothing."""

    def choose(self, request: Request) -> str: ...
    def seconds(self) -> float: ...
    def kill(self) -> None: ...


class Strike:
    """Kills a client at one request of a sort, the only fault that there is."""

    def __init__(self, number: int, matches: Callable[[Request], bool], after: bool) -> None:
        self._left, self._matches, self._after = number, matches, after
        self._lock, self._aimed = threading.Lock(), threading.Event()
        self._kill: Callable[[], None] = lambda: None
        self.struck = False
        self.at = "never came"

    def aim(self, kill: Callable[[], None]) -> None:
        """Say how the client is killed."""
        self._kill = kill
        self._aimed.set()

    def choose(self, request: Request) -> str:
        """Whether this is the request."""
        with self._lock:
            self._left -= self._matches(request)
            if self.struck or self._left > 0:
                return ""
            self.struck, self.at = True, f"{request.method} {request.path.rpartition('/')[2]}"
            return "kill after" if self._after else "kill"

    def seconds(self) -> float:
        """Nothing is slow."""
        return 0.0

    def kill(self) -> None:
        """Kill the client, as soon as it is known."""
        self._aimed.wait(60)
        self._kill()


class Faults:
    """Which request gets which fault: a share of all, and a larger one of conditional writes, which are commits."""

    def __init__(self, seed: int, share: float = 0.04, of_commits: float = 0.4, kinds: tuple[str, ...] = FAULTS) -> None:
        self._random, self._lock = random.Random(seed), threading.Lock()
        self.share, self.of_commits, self._kinds = share, of_commits, kinds
        self.counted: Counter[str] = Counter()
        """Requests by fault; '' is none."""

    def choose(self, request: Request) -> str:
        """The fault of the next request, '' for none."""
        with self._lock:
            share = self.of_commits if request.conditional else self.share
            fault = self._random.choice(self._kinds) if self._random.random() < share else ""
            if fault == "truncated" and request.method != "GET":
                fault = "lost"
            if fault == "lost" and request.conditional:
                self.counted["lost commit"] += 1
            self.counted[fault] += 1
            return fault

    def seconds(self) -> float:
        """How long a slow answer takes."""
        with self._lock:
            return self._random.uniform(*_SLOW_SECONDS)

    def kill(self) -> None:
        """Nobody is killed."""


@contextmanager
def broken(endpoint: str, faults: Chooser, handler: type[Handler] | None = None) -> Iterator[str]:
    """A proxy to the server at `endpoint`, on a free loopback port; yields its URL."""
    upstream, handler = urlsplit(endpoint), handler or Handler

    class To(handler):  # type: ignore[valid-type, misc]
        host, port, chooser = upstream.hostname or "", upstream.port or 80, faults

    with _Server(("127.0.0.1", 0), To) as server:
        thread = threading.Thread(target=server.serve_forever, name="proxy", daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that are killed break connections: no news here."""


class Handler(BaseHTTPRequestHandler):
    """Forwards requests, and breaks those that it is told to."""

    protocol_version = "HTTP/1.1"
    host: str
    port: int
    chooser: Chooser

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        fault = self.chooser.choose(Request(self.command, path, "If-None-Match" in self.headers))
        if fault in _CODES:
            self._answer(int(fault), {"Content-Type": "application/xml"}, _ERROR.format(_CODES[fault]).encode())
            return
        if fault == "slow":
            time.sleep(self.chooser.seconds())
        if fault == "kill":
            self.chooser.kill()
        if fault in ("reset", "kill"):
            self._break()
            return
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP:
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if fault == "kill after":
            self.chooser.kill()
        if fault in ("lost", "kill after"):
            self._break()
            return
        content = self.changed(content)
        self._answer(answer.status, dict(answer.getheaders()), content, cut=fault == "truncated" and len(content) > 1)

    def changed(self, content: bytes) -> bytes:
        """What the client gets of an answer's body."""
        return content

    def _answer(self, status: int, headers: Mapping[str, str], content: bytes, cut: bool = False) -> None:
        self.send_response_only(status)
        named = {name.lower(): value for name, value in headers.items()}
        length = named.get("content-length") if self.command == "HEAD" else None
        for name, value in headers.items():
            if name.lower() not in {*_HOP, "content-length"}:
                self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            self._break()

    def _break(self) -> None:
        """End the connection without a word: with a reset."""
        self.close_connection = True
        with suppress(OSError):
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.shutdown(socket.SHUT_RD)
            self.connection.close()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _forward  # noqa: N815 - the names that http.server looks for

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Nothing: requests hold signatures."""
