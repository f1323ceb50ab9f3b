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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

FAULTS = ("500", "503", "slow", "reset", "lost", "truncated")
"""`lost`: the server does what it was asked for, and the connection breaks before its answer; `truncated`: in the middle of its body."""

_SLOW_SECONDS = (0.5, 3.0)
_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "proxy-connection"}
_ERROR = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{}</Code><Message>a fault of the test</Message></Error>'
_CODES = {"500": "InternalError", "503": "SlowDown"}


class Faults:
    """Which request gets which fault: a share of all, and a larger one of conditional writes, which are commits."""

    def __init__(self, seed: int, share: float = 0.04, of_commits: float = 0.4, kinds: tuple[str, ...] = FAULTS) -> None:
        self._random, self._lock = random.Random(seed), threading.Lock()
        self.share, self.of_commits, self._kinds = share, of_commits, kinds
        self.counted: Counter[str] = Counter()
        """Requests by fault; '' is none."""

    def choose(self, method: str, conditional: bool) -> str:
        """The fault of the next request, '' for none."""
        with self._lock:
            share = self.of_commits if conditional else self.share
            fault = self._random.choice(self._kinds) if self._random.random() < share else ""
            if fault == "truncated" and method != "GET":
                fault = "lost"
            if fault == "lost" and conditional:
                self.counted["lost commit"] += 1
            self.counted[fault] += 1
            return fault

    def seconds(self) -> float:
        """How long a slow answer takes."""
        with self._lock:
            return self._random.uniform(*_SLOW_SECONDS)


@contextmanager
def broken(endpoint: str, faults: Faults) -> Iterator[str]:
    """A proxy to the server at `endpoint`, on a free loopback port; yields its URL."""
    upstream = urlsplit(endpoint)

    class Handler(_Handler):
        host, port, chooser = upstream.hostname or "", upstream.port or 80, faults

    with _Server(("127.0.0.1", 0), Handler) as server:
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


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    host: str
    port: int
    chooser: Faults

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.chooser.choose(self.command, "If-None-Match" in self.headers)
        if fault in _CODES:
            self._answer(int(fault), {"Content-Type": "application/xml"}, _ERROR.format(_CODES[fault]).encode())
            return
        if fault == "slow":
            time.sleep(self.chooser.seconds())
        if fault == "reset":
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
        if fault == "lost":
            self._break()
            return
        self._answer(answer.status, dict(answer.getheaders()), content, cut=fault == "truncated" and len(content) > 1)

    def _answer(self, status: int, headers: Mapping[str, str], content: bytes, cut: bool = False) -> None:
        self.send_response_only(status)
        length = headers.get("Content-Length") if self.command == "HEAD" else None
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
