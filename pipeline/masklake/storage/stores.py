"""The verbs on a single object or prefix: for any store that fsspec opens, and for local files. URIs are in canonical form."""

from __future__ import annotations

import os
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from masklake.storage.faults import ChangedError, TooLargeError
from masklake.storage.file_page import FilePage
from masklake.storage.files import PAGE, Span, StoredFile
from masklake.storage.uris import is_glob, local_path

_OPEN_BLOCK_BYTES = 1024 * 1024


class Store:
    """The verbs on any store that fsspec opens. URIs are in canonical form; a folder's ends in a slash."""

    def __init__(self, scheme: str, **options: Any) -> None:
        self.fs = fsspec.filesystem(scheme, use_listings_cache=False, **options)

    def pages(self, prefix: str) -> Iterator[FilePage]:
        """Files whose URI begins with the prefix, a folder's or not."""
        prefix = self._own(prefix)
        folders, page = [prefix[: prefix.rindex("/") + 1]], list[StoredFile]()
        vanished: tuple[type[OSError], ...] = ()
        while folders:
            with suppress(*vanished):
                for entry in self._entries(folders.pop()):
                    if isinstance(entry, str):
                        folders += [entry] if entry.startswith(prefix) else []
                    elif entry.uri.startswith(prefix):
                        page.append(entry)
                    if len(page) == PAGE:
                        yield FilePage.of(page)
                        page = []
            vanished = (FileNotFoundError,)  # a sub-folder may go while we look; the folder that was asked for must be there
        if page:
            yield FilePage.of(page)

    def names(self, folder: str) -> Iterator[str]:
        """Names directly below a folder."""
        folder = self._own(folder)
        for entry in self._entries(folder):
            yield (entry if isinstance(entry, str) else entry.uri).removeprefix(folder)

    def _own(self, uri: str) -> str:
        """The URI as fsspec writes it for this store, which has a form of its own for some."""
        plain = self._uri(self.fs._strip_protocol(uri))
        return f"{plain.rstrip('/')}/" if uri.endswith("/") else plain

    def _uri(self, name: str) -> str:
        """The URI of what fsspec calls by a name."""
        uri: str = self.fs.unstrip_protocol(name)
        return uri

    def _entries(self, folder: str) -> Iterator[StoredFile | str]:
        for info in self.fs.ls(folder, detail=True):
            yield f"{self._uri(info['name'])}/" if info["type"] == "directory" else self._described(info)

    def _described(self, info: dict[str, Any]) -> StoredFile:
        times = (info.get(name) for name in ("LastModified", "last_modified", "updated", "mtime", "modified", "created"))
        when = next((time for time in times if time is not None), None)
        etag = next((str(info[name]).strip('"') for name in ("ETag", "etag", "md5Hash", "content_md5") if info.get(name)), None)
        modified = _time(when)
        return StoredFile(self._uri(info["name"]), etag or f"{modified}-{info.get('size')}", info.get("size"), modified)

    def stat(self, uri: str) -> StoredFile:
        info = self.fs.info(uri)
        if info["type"] != "file":
            raise IsADirectoryError(uri)
        return self._described(info)

    def read(self, uri: str, max_bytes: int | None, etag: str | None = None) -> bytes:
        """All bytes of an object; a `ChangedError` where it has another etag, if one is given, or is replaced meanwhile."""
        self._check(uri, etag)
        with self.fs.open(uri, "rb") as file:
            data: bytes = file.read() if max_bytes is None else file.read(max_bytes + 1)
        if max_bytes is not None and len(data) > max_bytes:
            raise TooLargeError(None, max_bytes)
        self._check(uri, etag)
        return data

    def _check(self, uri: str, etag: str | None) -> None:
        if etag is not None and self.stat(uri).etag != etag:
            raise ChangedError

    def read_span(self, span: Span) -> bytes:
        """Exactly the bytes of a span; a `ChangedError` where they are not there, or the etag is another."""
        self._check(span.uri, span.etag)
        with self.open(span.uri) as file:
            file.seek(span.start)
            data = file.read(span.length)
        if len(data) != span.length:
            raise ChangedError
        self._check(span.uri, span.etag)
        return data

    def write(self, uri: str, data: bytes) -> None:
        self.fs.pipe_file(uri, data)

    def upload(self, path: Path, uri: str) -> None:
        self.fs.put_file(str(path), uri)

    def delete(self, uri: str) -> None:
        self.fs.rm_file(uri)

    def open(self, uri: str) -> BinaryIO:
        return cast("BinaryIO", self.fs.open(uri, "rb", block_size=_OPEN_BLOCK_BYTES))

    def check_readable(self, uri: str) -> None:
        """Raise what is wrong with listing or reading here; `_problem` says it in words."""
        if not self.fs.exists(uri):
            raise FileNotFoundError

    def check_writable(self, uri: str) -> None:
        """Raise what is wrong with writing here."""
        if self.fs.isfile(uri):
            raise NotADirectoryError


def _time(when: Any) -> datetime | None:
    """A time as one of fsspec's drivers has it."""
    if isinstance(when, str):
        with suppress(ValueError):
            return datetime.fromisoformat(when)
        return None
    return datetime.fromtimestamp(when, UTC) if isinstance(when, (int, float)) else when if isinstance(when, datetime) else None


class LocalStore(Store):
    """Files of this machine, and of file systems mounted on it."""

    def __init__(self) -> None:
        super().__init__("file")

    def _own(self, uri: str) -> str:
        return uri  # fsspec's form would lose links and `~`

    def _entries(self, folder: str) -> Iterator[StoredFile | str]:
        with os.scandir(local_path(folder)) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield f"{folder}{entry.name}/"
                else:
                    with suppress(FileNotFoundError, IsADirectoryError):  # vanished since, or a link to nothing or to a folder
                        yield self.stat(folder + entry.name)

    def stat(self, uri: str) -> StoredFile:
        found = local_path(uri).stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe or device is not for reading: it might never end
            raise IsADirectoryError
        return StoredFile(uri, f"{found.st_mtime_ns:x}-{found.st_size:x}", found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    def read(self, uri: str, max_bytes: int | None, etag: str | None = None) -> bytes:
        found = self.stat(uri)
        if etag is not None and found.etag != etag:
            raise ChangedError
        if max_bytes is not None and found.size is not None and found.size > max_bytes:
            raise TooLargeError(found.size, max_bytes)
        data = local_path(uri).read_bytes()
        self._check(uri, etag)  # another file may have taken the name, or somebody still writes this one
        return data

    def write(self, uri: str, data: bytes) -> None:
        with _whole(local_path(uri)) as partial:
            partial.write_bytes(data)

    def upload(self, path: Path, uri: str) -> None:
        with _whole(local_path(uri)) as partial:
            shutil.copyfile(path, partial)

    def delete(self, uri: str) -> None:
        local_path(uri).unlink()

    def open(self, uri: str) -> BinaryIO:
        return local_path(uri).open("rb")

    def check_readable(self, uri: str) -> None:
        path = local_path(uri)
        if not path.exists() and is_glob(uri):
            path = path.parent
        with os.scandir(path) if path.is_dir() else path.open("rb"):
            return

    def check_writable(self, uri: str) -> None:
        path = local_path(uri)
        while not path.exists():
            path = path.parent
        if not path.is_dir():
            raise NotADirectoryError
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(f"{path} is not writable")


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A file to write beside `path`, which takes its name when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
