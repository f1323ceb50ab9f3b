"""Object storage and files behind a few verbs; this package is the only place that knows fsspec and s3fs.

A URI is an identity: `s3://bucket/key` or `file:///absolute/path`, with the key or path written as it is, never percent-encoded. Google's
and Azure's stores work through fsspec. Credentials and endpoint come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_SESSION_TOKEN, AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, AWS_REGION) or from where botocore looks otherwise, and appear in no message.
Transient errors (time-outs, lost connections, 5xx, throttling) are retried with back-off; what then still fails is an exception of a verb
on one object, and a value among the answers of a verb on many.

Needs fsspec, s3fs and pyarrow. Knows nothing of images, tables and what is in an object.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import pyarrow as pa

from masklake.errors import ErrorCode, ImageFailure, Refused
from masklake.storage import clouds
from masklake.storage.calls import CONCURRENCY, each, for_each, one, pages, store_of
from masklake.storage.checks import refuse_unless
from masklake.storage.connections import connection
from masklake.storage.copies import cached_folder, download_folder
from masklake.storage.faults import StorageError, failure
from masklake.storage.file_page import FILES, FilePage
from masklake.storage.files import PAGE, Span, StoredFile, cache_root, is_text
from masklake.storage.nearby import suggestion
from masklake.storage.places import Place, place_of
from masklake.storage.places import use as use_places
from masklake.storage.stores import Store
from masklake.storage.uris import (
    alternatives,
    as_folder,
    bucket_of,
    fixed_part,
    glob_regex,
    glob_root,
    glob_roots,
    image_name,
    is_canonical,
    is_glob,
    is_uri,
    normalise,
    split_s3,
)

__all__ = [
    "CONCURRENCY",
    "FILES",
    "PAGE",
    "FilePage",
    "Place",
    "Span",
    "StorageError",
    "StoredFile",
    "absent",
    "alternatives",
    "as_folder",
    "bucket_of",
    "cache_root",
    "cached_folder",
    "check_input",
    "check_output",
    "check_scheme",
    "delete_files",
    "delta_options",
    "delta_uri",
    "download_folder",
    "exists",
    "fixed_part",
    "glob_files",
    "glob_pages",
    "glob_regex",
    "glob_root",
    "iceberg_options",
    "image_name",
    "is_canonical",
    "is_glob",
    "is_text",
    "is_uri",
    "list_files",
    "list_names",
    "list_pages",
    "list_prefix",
    "nearby",
    "normalise",
    "open_file",
    "read_bytes",
    "read_many",
    "read_spans",
    "read_versions",
    "refuse_unless",
    "stat_many",
    "upload_file",
    "use_places",
    "write_bytes",
]


def list_files(uri: str) -> Iterator[list[StoredFile]]:
    """Every file below a folder or prefix, in pages of at most `PAGE`, streamed: memory does not grow with the number of files.

    Sub-folders are listed in parallel on S3, so the order differs from call to call; it takes a request per thousand objects and a few
    hundred more at most, unless most folders hold few objects and the first ones many. Links to folders are not followed.

    Raises:
        StorageError: the listing failed, after retries.
    """
    for page in list_pages(uri):
        yield page.files()


def list_pages(uri: str) -> Iterator[FilePage]:
    """The same in columns, several times as fast.

    Raises:
        StorageError: the listing failed, after retries.
    """
    yield from pages(as_folder(uri))


def list_prefix(prefix: str) -> Iterator[list[StoredFile]]:
    """Every file whose URI begins with a prefix, which need not be a folder's, in pages, as `list_files` does.

    Raises:
        StorageError: the listing failed, after retries.
    """
    for page in pages(normalise(prefix)):
        yield page.files()


def glob_files(pattern: str) -> Iterator[list[StoredFile]]:
    """Every file whose URI matches a pattern, in pages, as `glob_pages` does."""
    for page in glob_pages(pattern):
        yield page.files()


def glob_pages(pattern: str, passed: Callable[[FilePage], None] = lambda page: None) -> Iterator[FilePage]:
    """Every file whose URI matches a pattern, in pages; `*` and `?` stay within a folder, `**` spans folders, braces hold alternatives, and
    a pattern that ends in a slash means everything below the folders that match.

    Args:
        passed: shown every page of files that the listing comes past, before those that match are chosen.

    Raises:
        Refused: the pattern is in the bucket's name, or is none.
        StorageError: the listing failed, after retries.
    """
    matches, roots = re.compile(glob_regex(normalise(pattern))).fullmatch, glob_roots(pattern)
    for root in roots:
        try:
            for page in pages(root):
                passed(page)
                chosen = pa.array([matches(uri) is not None for uri in page.uris.to_pylist()], pa.bool_())
                found = page.keeping(chosen, [file for file in page.odd if matches(file.uri)])
                if len(found):
                    yield found
        except StorageError as error:
            if error.code != ErrorCode.NOT_FOUND or len(roots) == 1:  # of several folders, some need not be there
                raise


def stat_many(uris: Sequence[str]) -> list[StoredFile | ImageFailure]:
    """What the store knows of each object, in order; concurrent, each failure a value."""
    return for_each(uris, lambda store, uri: store.stat(uri))


def read_many(uris: Sequence[str], max_bytes: int | None = None) -> list[bytes | ImageFailure]:
    """The bytes of each object, in order; concurrent, each failure a value. Of an object larger than `max_bytes` nothing is read."""
    return for_each(uris, lambda store, uri: store.read(uri, max_bytes))


def read_versions(versions: Sequence[tuple[str, str | None]], max_bytes: int | None = None) -> list[bytes | ImageFailure]:
    """The same as `read_many` of objects with these etags, or any where that is None; one with another etag is `changed`."""

    def read(version: tuple[str, str | None]) -> bytes:
        name = normalise(version[0])
        return store_of(name).read(name, max_bytes, version[1])

    return each(versions, read)


def read_spans(spans: Sequence[Span]) -> list[bytes | ImageFailure]:
    """The bytes of each span, in order; concurrent, each failure a value. An object with another etag than the span's is `changed`."""
    return each(spans, lambda span: store_of(span.uri).read_span(span))


def read_bytes(uri: str) -> bytes:
    """The bytes of one object.

    Raises:
        StorageError: it does not exist, or could not be read after retries.
    """
    return one(uri, lambda store, name: store.read(name, None))


def write_bytes(uri: str, data: bytes) -> None:
    """Write one object, complete or not at all; replaces what was there.

    Raises:
        StorageError: it could not be written, after retries.
    """
    one(uri, lambda store, name: store.write(name, data))


def upload_file(path: Path, uri: str) -> None:
    """Write one object from a local file of any size, complete or not at all; replaces what was there.

    Raises:
        StorageError: it could not be written, after retries.
    """
    name = normalise(uri)
    try:
        store_of(name).upload(path, name)
    except Refused:
        raise
    except Exception as error:
        raise StorageError(name, failure(error)) from error


def exists(uri: str) -> bool:
    """Whether there is an object of this name, or anything below this folder; folder markers are nothing.

    Raises:
        StorageError: the store did not say, after retries.
    """

    def look(store: Store, name: str) -> bool:
        with suppress(FileNotFoundError, IsADirectoryError, NotADirectoryError):
            store.stat(name)
            return True
        with suppress(FileNotFoundError, NotADirectoryError):
            return any(not file.uri.endswith("/") for page in store.pages(as_folder(name)) for file in page.files())
        return False

    return one(uri, look)


def delete_files(uris: Sequence[str]) -> None:
    """Delete objects; those that do not exist count as deleted.

    Raises:
        StorageError: one could not be deleted, after retries; the others are.
    """
    for uri, answer in zip(uris, for_each(uris, lambda store, uri: store.delete(uri)), strict=True):
        if isinstance(answer, ImageFailure) and answer.code != ErrorCode.NOT_FOUND:
            raise StorageError(uri, answer)


def list_names(uri: str, most: int | None = None) -> list[str]:
    """The names directly below a folder, sorted, or `most` of them; those of folders end in a slash. A folder that is not there has none.

    Raises:
        StorageError: the store did not say, after retries.
    """

    def look(store: Store, name: str) -> list[str]:
        with suppress(FileNotFoundError, NotADirectoryError):
            return sorted(islice(store.names(as_folder(name)), most))
        return []

    return one(uri, look)


def nearby(uri: str) -> str:
    """A clause on what there is near a URI at which there is nothing, such as `did you mean s3://lake/images/?`; empty where nobody knows.

    Raises:
        StorageError: the store did not say, after retries.
    """

    def names_in(store: Store, folder: str) -> Iterator[str]:
        with suppress(FileNotFoundError, NotADirectoryError):
            yield from store.names(folder)

    return one(uri, lambda store, name: suggestion(name, lambda folder: names_in(store, folder)))


def open_file(uri: str) -> BinaryIO:
    """A seekable binary file, read in ranges as asked for; a context manager.

    Raises:
        StorageError: it does not exist, or could not be opened after retries.
    """
    return one(uri, lambda store, name: store.open(name))


def check_input(uri: str, setting: str = "--input") -> None:
    """See within seconds whether something can be listed below a URI or pattern, or read there. An empty prefix is fine.

    Refusals name `setting`.

    Raises:
        Refused: wrong or no credentials, no such bucket or path, no answer, or a scheme that is not supported.
    """
    refuse_unless(setting, uri, "list and read", lambda: _check_readable(uri))


def check_output(uri: str, setting: str = "--output") -> None:
    """See within seconds whether files can be written below a URI: in object storage by writing an empty one and deleting it.

    Raises:
        Refused: as `check_input`, or nothing may be written there; the message names the `setting`.
    """
    refuse_unless(setting, uri, "list, write and delete", lambda: store_of(normalise(uri)).check_writable(normalise(uri)))


def delta_options(uri: str) -> dict[str, str]:
    """What delta-rs needs to open a table at this URI with the endpoint and credentials used here; contains secrets, never log it.

    Raises:
        Refused: there is no store by this scheme, its driver is not installed, or there are no keys for it.
    """
    name = normalise(uri)
    if name.startswith("s3://"):
        return connection(place_of(name)).delta_options(split_s3(name)[0])
    store_of(name)
    return clouds.delta_options(name.partition("://")[0], place_of(name).anonymous)


def check_scheme(uri: str) -> None:
    """See that there is a store by the scheme of a URI in canonical form.

    Raises:
        Refused: there is none, its driver is not installed, or there are no keys for it.
    """
    store_of(uri)


def iceberg_options() -> dict[str, str]:
    """What pyiceberg needs to open files on S3 with the endpoint and credentials used here; contains secrets, never log it."""
    return connection().iceberg_options()


def delta_uri(uri: str) -> str:
    """A URI as delta-rs wants it, which percent-decodes what it is given, except for plain paths.

    A table whose own name has a percent sign before two hexadecimal digits is beyond delta-rs (1.6): it decodes twice.
    """
    name = normalise(uri)
    if name.startswith("file://"):
        return name.removeprefix("file://")
    return f"s3://{quote(name.removeprefix('s3://'))}" if name.startswith("s3://") else name


def absent(uri: str) -> bool:
    """Whether a file or folder, or what comes before a pattern's first wildcard, is on a file system and not there."""
    target = _target(uri)
    return target.startswith("file://") and not Path(target.removeprefix("file://")).exists()


def _target(uri: str) -> str:
    """What must be there: of a pattern, the folder before its first wildcard; the rest of its name is only a prefix."""
    return glob_root(uri).rpartition("/")[0] + "/" if is_glob(uri) else normalise(uri)


def _check_readable(uri: str) -> None:
    target = _target(uri)
    try:
        store_of(target).check_readable(target)
    except FileNotFoundError:
        if not target.startswith("file://"):  # in object storage it means the bucket
            raise
        clause = nearby(target)
        raise Refused(f"{uri}: there is no such file or folder: correct the path{'; ' if clause else ''}{clause}") from None
