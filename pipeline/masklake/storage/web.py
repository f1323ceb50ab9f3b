"""Files of web servers, to be read by their names: what `http://` and `https://` are.

A version is told by its ETag, else by its Last-Modified and size. A web server lists nothing and takes nothing.
"""

from __future__ import annotations

import io
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NoReturn, cast
from urllib.parse import quote, urljoin, urlsplit

import urllib3

from masklake.errors import Refused
from masklake.storage.faults import ChangedError, StatusError, TooLargeError
from masklake.storage.file_page import FilePage
from masklake.storage.files import Span, StoredFile
from masklake.storage.ranged import RangedFile
from masklake.storage.stores import Store

_CONNECT_SECONDS, _READ_SECONDS = 5, 30
_CONNECTIONS = 64
_MOST_REDIRECTS = 5
_OPEN_BLOCK_BYTES = 1024 * 1024
_PIECE_BYTES = 1024 * 1024
_KEPT = "/:?#[]@!$&'()*+,;=%~"  # a URI's own characters: what is escaped already stays as it is


class WebStore(Store):
    """The verbs on web servers; only those that read a file by its name are there."""

    def __init__(self) -> None:
        """Nothing is connected yet."""

    def stat(self, uri: str) -> StoredFile:
        with _asked("HEAD", uri) as answer:
            if answer.status not in (403, 405, 501):  # some servers know no HEAD, or forbid it
                return _described(uri, answer)
        with _asked("GET", uri) as answer:
            return _described(uri, answer)

    def read(self, uri: str, max_bytes: int | None, etag: str | None = None) -> bytes:
        with _asked("GET", uri) as answer:
            found = _described(uri, answer)
            if etag is not None and found.etag != etag:
                raise ChangedError
            if max_bytes is not None and found.size is not None and found.size > max_bytes:
                raise TooLargeError(found.size, max_bytes)
            data = bytearray()
            for piece in answer.stream(_PIECE_BYTES):
                data += piece
                if max_bytes is not None and len(data) > max_bytes:
                    raise TooLargeError(None, max_bytes)
            return bytes(data)

    def read_span(self, span: Span) -> bytes:
        return _range(span.uri, span.start, span.length, span.etag)

    def open(self, uri: str) -> BinaryIO:
        found = self.stat(uri)
        if found.size is None:
            return io.BytesIO(self.read(uri, None))
        file = RangedFile(uri, lambda start, length: _range(uri, start, length, found.etag), found.size)
        return cast("BinaryIO", io.BufferedReader(file, _OPEN_BLOCK_BYTES))

    def check_readable(self, uri: str) -> None:
        self.stat(uri)

    def pages(self, prefix: str) -> Iterator[FilePage]:
        raise Refused(
            f"{prefix}: a web server cannot be listed: name the images in a list (CSV, text, Parquet), and give that as the input"
        )

    def names(self, folder: str) -> Iterator[str]:
        raise Refused(f"{folder}: a web server cannot be listed")

    def write(self, uri: str, data: bytes) -> None:
        _takes_nothing(uri)

    def upload(self, path: Path, uri: str) -> None:
        _takes_nothing(uri)

    def delete(self, uri: str) -> None:
        _takes_nothing(uri)

    def check_writable(self, uri: str) -> None:
        _takes_nothing(uri)


def _takes_nothing(uri: str) -> NoReturn:
    raise Refused(f"{uri}: nothing can be written to a web server: use s3://, file:// or a local path")


def _described(uri: str, answer: urllib3.BaseHTTPResponse) -> StoredFile:
    """What an answer tells of a file.

    Raises:
        StatusError: it is no answer about a file, or tells no version.
    """
    if not 200 <= answer.status < 300:
        raise StatusError(answer.status, f"HTTP {answer.status} {answer.reason or ''}".strip())
    etag, modified = answer.headers.get("ETag", "").strip(), _time(answer.headers.get("Last-Modified"))
    length = answer.headers.get("Content-Length", "")
    size = int(length) if length.isdigit() and "Content-Encoding" not in answer.headers else None
    if not etag and (modified is None or size is None):
        raise StatusError(0, "the server tells neither an ETag nor Last-Modified and a size, so that a new version could not be told")
    return StoredFile(uri, etag.strip('"') or f"{modified:%Y%m%dT%H%M%S}-{size:x}", size, modified)


def _time(text: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(text) if text else None
    except ValueError:
        return None


def _range(uri: str, start: int, length: int, etag: str | None) -> bytes:
    with _asked("GET", uri, {"Range": f"bytes={start}-{start + length - 1}"}) as answer:
        found = _described(uri, answer)
        if answer.status == 206:
            # The size that a part's answer tells is the part's; a version without an ETag is told by the whole's.
            whole = answer.headers.get("Content-Range", "").rpartition("/")[2]
            if "ETag" not in answer.headers and whole.isdigit():
                found = StoredFile(uri, f"{found.modified:%Y%m%dT%H%M%S}-{int(whole):x}", int(whole), found.modified)
        if etag is not None and found.etag != etag:
            raise ChangedError
        data: bytes = answer.read()
    if answer.status != 206:  # a server that knows no ranges gives all
        data = data[start : start + length]
    if len(data) != length:
        raise ChangedError
    return data


@contextmanager
def _asked(method: str, uri: str, headers: dict[str, str] | None = None) -> Iterator[urllib3.BaseHTTPResponse]:
    """The answer to a request, whose body is read within. A server may lead on within itself, and nowhere else."""
    target = quote(uri, safe=_KEPT)
    for _ in range(_MOST_REDIRECTS):
        answer = _pool(target).request(
            method,
            target,
            headers={"Accept-Encoding": "identity", **(headers or {})},
            redirect=False,
            retries=False,
            preload_content=False,
            timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS),
        )
        there = answer.get_redirect_location()
        try:
            if not there:
                yield answer
                return
        finally:
            answer.drain_conn() if method == "HEAD" or there else answer.close()
        following = urljoin(target, there)
        if urlsplit(following).hostname != urlsplit(target).hostname:
            raise StatusError(403, f"it leads to another server, {urlsplit(following).hostname}: name the images there")
        target = following
    raise StatusError(403, f"it leads on more than {_MOST_REDIRECTS} times")


def _pool(url: str) -> urllib3.PoolManager:
    host = urlsplit(url).hostname or ""
    proxies = {} if urllib.request.proxy_bypass(host) else urllib.request.getproxies()
    return _pool_by(proxies.get(urlsplit(url).scheme))


@lru_cache(maxsize=4)
def _pool_by(proxy: str | None) -> urllib3.PoolManager:
    return urllib3.ProxyManager(proxy, maxsize=_CONNECTIONS) if proxy else urllib3.PoolManager(maxsize=_CONNECTIONS)
