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

import pyarrow as pa
import pyarrow.compute as pc

from masklake import storage
from masklake.errors import ErrorCode, ImageFailure, Refused
from masklake.images.keys import NOT_CARRIED, Asked, Carried, choose_carried, hive_keys, with_keys
from masklake.images.pages import is_hidden, page_of_files
from masklake.images.sources import image_tables, manifests, shards
from masklake.images.sources.image_tables import ImageColumn
from masklake.images.sources.shards import Indexes
from masklake.storage import StorageError, StoredFile

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
    carried: Carried = NOT_CARRIED,
) -> Iterator[pa.Table]:
    """Every image of an input, in pages of `pages.PAGE_SCHEMA` with at most `storage.PAGE` rows.

    Args:
        input_uri: a prefix, a pattern, a file, or a Parquet manifest: see `manifests`.
        column: the input is Parquet files, or a Delta table, with images in this column.
        since: leave out objects that were modified before; those of which no time is known stay in.
        keys: columns of a manifest or a table to tell as `image_keys`, where it has them.
        indexes: where it is known what is in tar files.
        carried: what `carried_columns` said of the same input, to be told as well.

    Raises:
        Refused: the input cannot be read as what it is said to be, or no image has a key that is to be carried.
        StorageError: the listing failed, after retries.
    """
    uri = storage.normalise(input_uri)
    if uri.endswith(shards.COMPRESSED):
        raise Refused(f"--input {uri}: compressed tar files cannot be read by offset: store them as they are before compression")
    asked = Asked((*keys, *carried.from_paths), carried.told)
    if column is not None:
        found = _in_tables(_newer_files(_table_files(uri), since), column, asked)
    elif manifests.is_manifest(uri) and isinstance(_stat(uri), StoredFile):
        found = _with_members(_newer(manifests.read(uri, asked), since), indexes)
    else:
        found = _with_members(_newer((page_of_files(files) for files in _listed(uri) if files), since), indexes)
    yield from _with_each_key(found, carried.from_paths, uri)


def carried_columns(input_uri: str, column: ImageColumn | None, names: Sequence[str]) -> Carried:
    """The columns to carry, as the manifest or the table has them; of Parquet files, the first that has such a column.

    Raises:
        Refused: the input cannot be read as what it is said to be, or such a column not be carried.
    """
    uri = storage.normalise(input_uri)
    schema = pa.schema([])
    if column is not None and names:
        schema = _schema_of_tables(uri, names)
    elif names and manifests.is_manifest(uri) and isinstance(_stat(uri), StoredFile):
        schema = manifests.schema_of(uri)
    return choose_carried(names, schema, uri)


def _schema_of_tables(uri: str, names: Sequence[str]) -> pa.Schema:
    """The columns of these names; as many Parquet files are looked at as it takes to find each, in the file or in its path."""
    if not storage.is_glob(uri) and not _stat(uri) and (schema := image_tables.schema_of_delta(uri)) is not None:
        return schema
    found: dict[str, pa.Field] = {}
    settled: set[str] = set()
    for file in (file for files in _table_files(uri) for file in files):
        columns = [column for column in image_tables.schema_of_file(file.uri) if column.name in names and column.name not in settled]
        found |= {column.name: column for column in columns}
        settled |= {column.name for column in columns if not pa.types.is_null(column.type)} | hive_keys(file.uri).keys()
        if settled.issuperset(names):
            break
    return pa.schema(list(found.values()))


def _with_each_key(pages: Iterable[pa.Table], names: Sequence[str], uri: str) -> Iterator[pa.Table]:
    """The pages, in which there must be each of these keys at least once, if there is any image."""
    unseen, images = set(names), 0
    for page in pages:
        if unseen:
            rows = with_keys(page, sorted(unseen))
            unseen -= {name for name in unseen if rows[name].null_count < len(rows)}
        images += page.num_rows
        yield page
    if images and unseen:
        absent = ", ".join(sorted(unseen))
        raise Refused(f"--carry {absent}: {uri} has no such column, and no image has it in its path, as a key=value folder")


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


def _in_tables(pages: Iterable[list[StoredFile]], column: ImageColumn, asked: Asked) -> Iterator[pa.Table]:
    files = (file for page in pages for file in page)
    yield from _opened(_Opening(partial(image_tables.read_footer, file, column, asked)) for file in files)


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
        if opening.keys is None:
            yield page
            continue
        place = page.schema.get_field_index("image_keys")
        keys = pa.repeat(pa.scalar(opening.keys, pa.string()), page.num_rows)
        yield page.set_column(place, page.schema.field(place), keys)
