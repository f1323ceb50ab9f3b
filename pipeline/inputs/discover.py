"""What images there are, as pages of identities: from a prefix, a pattern, a file, a list of images, tar files or tables; no image is read.

Whatever is listed, a name that ends in `.tar` stands for the images inside. Of a listing, folder markers are left out, and so is
everything with a name that begins with `_` or `.`, or lies in a folder of such a name: tables, checkpoints, and files still being written.
What is named outright (a single file, a manifest's entry) is taken as it is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Protocol
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.errors import ErrorCode, ImageFailure, Refused
from pipeline.inputs import image_tables, manifests, shards
from pipeline.inputs.image_tables import ImageColumn
from pipeline.inputs.pages import is_hidden, page_of_files
from pipeline.inputs.shards import Indexes
from pipeline.storage import StorageError, StoredFile

_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_CONTAINERS_AT_ONCE = 16


class _Container(Protocol):
    """An object that holds images; its pages are made as they are asked for."""

    def pages(self) -> Iterator[pa.Table]: ...


@dataclass(frozen=True)
class _Opening:
    """An object to open, and what its entry in a manifest tells of all its images."""

    call: Callable[[], _Container]
    keys: str | None = None


def discover(
    input_uri: str,
    column: ImageColumn | None = None,
    since: datetime | None = None,
    keys: Sequence[str] = (),
    indexes: Indexes | None = None,
) -> Iterator[pa.Table]:
    """Every image of an input, in pages of `pages.PAGE_SCHEMA` with at most `storage.PAGE` rows.

    Args:
        input_uri: a prefix, a pattern, a file, or a Parquet manifest: see `manifests`.
        column: the input is Parquet files, or a Delta table, with images in this column.
        since: leave out objects that were modified before; those of which no time is known stay in.
        keys: columns of a manifest to tell as `image_keys`, where it has them.
        indexes: where it is known what is in tar files.

    Raises:
        Refused: the input cannot be read as what it is said to be.
        StorageError: the listing failed, after retries.
    """
    uri = storage.normalise(input_uri)
    if uri.endswith(shards.COMPRESSED):
        raise Refused(f"--input {uri}: compressed tar files cannot be read by offset: store them as they are before compression")
    if column is not None:
        yield from _in_tables(_newer_files(_table_files(uri), since), column)
    elif manifests.is_manifest(uri) and isinstance(_stat(uri), StoredFile):
        yield from _with_members(_newer(manifests.read(uri, keys), since), indexes)
    else:
        yield from _with_members(_newer((page_of_files(files) for files in _listed(uri) if files), since), indexes)


def _listed(uri: str) -> Iterator[list[StoredFile]]:
    """The visible files below a prefix or matching a pattern, or the one file of this name."""
    if storage.is_glob(uri) and not storage.exists(uri):  # a name may contain brackets, too
        root = storage.glob_root(uri)
        yield from _visible(storage.glob_files(uri), root[: root.rindex("/") + 1])
        return
    single = _stat(uri)
    if isinstance(single, StoredFile):
        yield [single]
    else:
        folder = uri.rstrip("/") + "/"
        yield from _visible(storage.list_files(folder), folder)


def _stat(uri: str) -> StoredFile | None:
    """The one file of this name, if it is one."""
    (found,) = storage.stat_many([uri]) if not uri.endswith("/") else [None]
    if isinstance(found, ImageFailure):
        if found.code not in (ErrorCode.NOT_FOUND, ErrorCode.ACCESS_DENIED):
            raise StorageError(uri, found)
        return None
    return found


def _visible(pages: Iterable[list[StoredFile]], folder: str) -> Iterator[list[StoredFile]]:
    for page in pages:
        yield [file for file in page if not is_hidden(file.uri.removeprefix(folder))]


def _newer(pages: Iterable[pa.Table], since: datetime | None) -> Iterator[pa.Table]:
    for page in pages:
        if since is None:
            yield page
        else:
            old = pc.less(page["image_modified"], pa.scalar(since, page["image_modified"].type))
            yield page.filter(pc.invert(pc.fill_null(old, False)))


def _newer_files(pages: Iterable[list[StoredFile]], since: datetime | None) -> Iterator[list[StoredFile]]:
    for page in pages:
        yield [file for file in page if since is None or file.modified is None or file.modified >= since]


def _with_members(pages: Iterable[pa.Table], indexes: Indexes | None) -> Iterator[pa.Table]:
    """The pages with the images of tar files in place of the files."""

    def opened() -> Iterator[pa.Table | _Opening]:
        for page in pages:
            is_shard = pc.and_(pc.ends_with(page["image_uri"], shards.SUFFIX), pc.is_null(page["error_code"]))
            if not pc.any(is_shard).as_py():
                yield page
                continue
            yield page.filter(pc.invert(is_shard))
            for row in page.filter(is_shard).to_pylist():
                file = StoredFile(row["image_uri"], row["image_etag"], row["image_bytes"], row["image_modified"])
                yield _Opening(partial(shards.read_index, file, indexes), row["image_keys"])

    yield from _opened(opened())


def _in_tables(pages: Iterable[list[StoredFile]], column: ImageColumn) -> Iterator[pa.Table]:
    files = (file for page in pages for file in page)
    yield from _opened(_Opening(partial(image_tables.read_footer, file, column)) for file in files)


def _table_files(uri: str) -> Iterator[list[StoredFile]]:
    """The files of a Delta table, or the Parquet files of a listing.

    Raises:
        Refused: there are files, and none is Parquet.
    """
    delta = None if storage.is_glob(uri) or _stat(uri) else image_tables.files_of_delta(uri)
    if delta is not None:
        yield from delta
        return
    other: str | None = None
    found = False
    for page in _listed(uri):
        files = [file for file in page if file.uri.endswith(image_tables.SUFFIX)]
        found = found or bool(files)
        other = next((file.uri for file in page if not file.uri.endswith(image_tables.SUFFIX)), other)
        yield files
    if other is not None and not found:
        raise Refused(f"--input {uri}: with --bytes-column it holds Parquet files; there is none, but {other}")


def _opened(things: Iterable[pa.Table | _Opening]) -> Iterator[pa.Table]:
    """Pages as they are, and those of containers, a few of which are opened at a time."""
    with ThreadPoolExecutor(_CONTAINERS_AT_ONCE, thread_name_prefix="open") as pool:
        waiting: deque[tuple[Future[_Container], _Opening]] = deque()
        for thing in things:
            if isinstance(thing, _Opening):
                waiting.append((pool.submit(thing.call), thing))
            elif thing.num_rows:
                yield thing
            if len(waiting) == 2 * _CONTAINERS_AT_ONCE:
                yield from _contained(*waiting.popleft())
        while waiting:
            yield from _contained(*waiting.popleft())


def _contained(container: Future[_Container], opening: _Opening) -> Iterator[pa.Table]:
    for page in container.result().pages():
        place = page.schema.get_field_index("image_keys")
        keys = pa.repeat(pa.scalar(opening.keys, pa.string()), page.num_rows)
        yield page.set_column(place, page.schema.field(place), keys)


def hive_keys(uri: str) -> dict[str, str]:
    """The `key=value` folders of a path, percent-decoded: `.../dt=2026-11-22/city=S%C3%A3o/a.jpg` has `dt` and `city`.

    Of a key that occurs twice the deepest counts; Hive's word for null leaves its key out.
    """
    folders = uri.split("/")[:-1]
    pairs = (folder.partition("=") for folder in folders)
    return {unquote(key): unquote(value) for key, equals, value in pairs if key and equals and value != _HIVE_NULL}
