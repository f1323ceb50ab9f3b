"""What is listed below an input: its visible files, as the kinds of input take them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

import pyarrow as pa

from masklake import storage
from masklake.errors import ErrorCode, ImageFailure
from masklake.images.pages import PAGE_SCHEMA, is_hidden
from masklake.storage import StorageError, StoredFile


class There:
    """What is at a URI, looked at when it is asked for, and once."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    @cached_property
    def file(self) -> StoredFile | None:
        """The one file of this name, if it is one."""
        return None if storage.is_glob(self.uri) and not storage.exists(self.uri) else one_file(self.uri)

    @cached_property
    def first(self) -> list[StoredFile]:
        """Some of the visible files below it, or that match it, some where there is any."""
        try:
            return next((files for files in listed(self.uri) if files), [])
        except StorageError as error:
            if error.code == ErrorCode.NOT_FOUND:
                return []
            raise


def listed(uri: str) -> Iterator[list[StoredFile]]:
    """The visible files below a prefix or matching a pattern, or the one file of this name."""
    if storage.is_glob(uri) and not storage.exists(uri):  # a name may contain brackets, too
        root = storage.glob_root(uri)
        yield from _visible(storage.glob_files(uri), root[: root.rindex("/") + 1])
        return
    single = one_file(uri)
    if single is not None:
        yield [single]
    else:
        folder = uri.rstrip("/") + "/"
        yield from _visible(storage.list_files(folder), folder)


def one_file(uri: str) -> StoredFile | None:
    """The one file of this name, if it is one.

    Raises:
        StorageError: the store did not say.
    """
    (found,) = storage.stat_many([uri]) if not uri.endswith("/") else [None]
    if isinstance(found, ImageFailure):
        if found.code not in (ErrorCode.NOT_FOUND, ErrorCode.ACCESS_DENIED):
            raise StorageError(uri, found)
        return None
    return found


def _visible(pages: Iterable[list[StoredFile]], folder: str) -> Iterator[list[StoredFile]]:
    for page in pages:
        yield [file for file in page if not is_hidden(file.uri.removeprefix(folder))]


def completed(listed: pa.Table) -> pa.Table:
    """A page in which the store was asked about the rows that have no etag: what it does not know of is an error."""
    uris, etags = listed["image_uri"].to_pylist(), listed["image_etag"].to_pylist()
    unknown = [row for row, etag in enumerate(etags) if etag is None]
    if not unknown:
        return listed
    rows = listed.to_pylist()
    for row, found in zip(unknown, storage.stat_many([uris[row] for row in unknown]), strict=True):
        if isinstance(found, ImageFailure):
            rows[row] |= {"error_code": str(found.code), "error_message": found.message}
        else:
            rows[row] |= {"image_etag": found.etag, "image_bytes": found.size, "image_modified": found.modified}
    return pa.Table.from_pylist(rows, schema=PAGE_SCHEMA)
