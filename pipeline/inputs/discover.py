"""What images there are: a prefix, a file, a pattern or a Parquet manifest -> pages of identities, streamed, without reading any image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.errors import ErrorCode, ImageFailure, Refused
from pipeline.storage import StorageError, StoredFile

PAGE_SCHEMA = pa.schema(
    [
        pa.field("image_uri", pa.string(), nullable=False),
        pa.field("image_etag", pa.string()),
        pa.field("image_bytes", pa.int64()),
        pa.field("image_modified", pa.timestamp("us", tz="UTC")),
        pa.field("error_code", pa.string()),  # for an entry of a manifest about which the store had no answer
        pa.field("error_message", pa.string()),
    ]
)
"""A page of discovered images: names as in the table, all null but the URI where nothing is known."""

_MANIFEST = ".parquet"
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_OLD_FOLDER_MARKER = "_$folder$"


def discover(input_uri: str) -> Iterator[pa.Table]:
    """Every image below a prefix, matching a pattern, or in a manifest, in pages of `PAGE_SCHEMA` with at most `storage.PAGE` rows.

    Of a listing, folder markers are left out, and so is everything with a name that begins with `_` or `.`, or lies in a folder of such a
    name: tables, checkpoints, and files still being written. What is named outright (a single file, a manifest's entry) is taken as it is.

    A manifest is a Parquet file with a column `uri` (a relative one begins at its folder) and perhaps `etag`, `size` and `modified`;
    a row with an etag is believed, any other is asked for.

    Raises:
        Refused: the manifest or the pattern cannot be read as one.
        StorageError: the listing failed, after retries.
    """
    uri = storage.normalise(input_uri)
    if storage.is_glob(uri) and not storage.exists(uri):  # a name may contain brackets, too
        root = storage.glob_root(uri)
        yield from _pages(_visible(storage.glob_files(uri), root[: root.rindex("/") + 1]))
        return
    (single,) = storage.stat_many([uri]) if not uri.endswith("/") else [None]
    if isinstance(single, ImageFailure) and single.code not in (ErrorCode.NOT_FOUND, ErrorCode.ACCESS_DENIED):
        raise StorageError(uri, single)
    if not isinstance(single, StoredFile):
        folder = uri.rstrip("/") + "/"
        yield from _pages(_visible(storage.list_files(folder), folder))
    elif uri.endswith(_MANIFEST):
        yield from _read_manifest(uri)
    else:
        yield _page([single])


def hive_keys(uri: str) -> dict[str, str]:
    """The `key=value` folders of a path, percent-decoded: `.../dt=2026-11-22/city=S%C3%A3o/a.jpg` has `dt` and `city`.

    Of a key that occurs twice the deepest counts; Hive's word for null leaves its key out.
    """
    folders = uri.split("/")[:-1]
    pairs = (folder.partition("=") for folder in folders)
    return {unquote(key): unquote(value) for key, equals, value in pairs if key and equals and value != _HIVE_NULL}


def _visible(pages: Iterable[list[StoredFile]], folder: str) -> Iterator[list[StoredFile]]:
    for page in pages:
        yield [file for file in page if not _is_hidden(file.uri.removeprefix(folder))]


def _is_hidden(path: str) -> bool:
    """Whether a path below the input's folder is none of the images: hidden by its name, or a folder marker."""
    return path.endswith(("/", _OLD_FOLDER_MARKER)) or not path or path.startswith(("_", ".")) or "/_" in path or "/." in path


def _pages(pages: Iterable[list[StoredFile]]) -> Iterator[pa.Table]:
    for page in pages:
        if page:
            yield _page(page)


def _page(files: Sequence[StoredFile]) -> pa.Table:
    columns = {
        "image_uri": [file.uri for file in files],
        "image_etag": [file.etag for file in files],
        "image_bytes": [file.size for file in files],
        "image_modified": [file.modified for file in files],
        "error_code": [None] * len(files),
        "error_message": [None] * len(files),
    }
    return pa.table(columns, schema=PAGE_SCHEMA)


def _read_manifest(uri: str) -> Iterator[pa.Table]:
    with storage.open_file(uri) as file:
        try:
            manifest = pq.ParquetFile(file)
            names = manifest.schema_arrow.names
            if "uri" not in names:
                raise Refused(f"--input {uri}: a manifest has a column `uri`; this one has {', '.join(names)}")
            columns = [name for name in ("uri", "etag", "size", "modified") if name in names]
            for batch in manifest.iter_batches(storage.PAGE, columns=columns):
                yield _complete(_manifest_page(uri, pa.table(batch)))
        except pa.ArrowException as error:
            raise Refused(f"--input {uri}: not a manifest that can be read: {error}") from None


def _manifest_page(uri: str, rows: pa.Table) -> pa.Table:
    """A page from a manifest's rows, with its own columns and nulls for what it does not say."""
    folder = uri[: uri.rindex("/") + 1]
    if rows["uri"].null_count:
        raise Refused(f"--input {uri}: {rows['uri'].null_count} rows of the manifest have no uri")
    uris = [_absolute(str(name), folder) for name in rows["uri"].cast(pa.string()).to_pylist()]
    columns = [pa.array(uris, pa.string())]
    for name, field in zip(("etag", "size", "modified"), list(PAGE_SCHEMA)[1:4], strict=True):
        columns.append(_cast(rows[name], field.type) if name in rows.column_names else pa.nulls(len(uris), field.type))
    return pa.table([*columns, pa.nulls(len(uris), pa.string()), pa.nulls(len(uris), pa.string())], schema=PAGE_SCHEMA)


def _absolute(name: str, folder: str) -> str:
    return storage.normalise(name if "://" in name or name.startswith("/") else folder + name)


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_timestamp(column.type) and column.type.tz is None:
        column = pc.assume_timezone(column, "UTC")
    return column.cast(kind, safe=False) if pa.types.is_timestamp(kind) else column.cast(kind)


def _complete(page: pa.Table) -> pa.Table:
    """Ask the store about the rows that have no etag."""
    uris, etags = page["image_uri"].to_pylist(), page["image_etag"].to_pylist()
    unknown = [row for row, etag in enumerate(etags) if etag is None]
    if not unknown:
        return page
    rows = page.to_pylist()
    for row, found in zip(unknown, storage.stat_many([uris[row] for row in unknown]), strict=True):
        if isinstance(found, ImageFailure):
            rows[row] |= {"error_code": str(found.code), "error_message": found.message}
        else:
            rows[row] |= {"image_etag": found.etag, "image_bytes": found.size, "image_modified": found.modified}
    return pa.Table.from_pylist(rows, schema=PAGE_SCHEMA)
