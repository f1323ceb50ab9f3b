"""Lists of images that somebody has made: a Parquet manifest, or an S3 Inventory.

A manifest is a Parquet file with a column `uri` (a relative one begins at its folder) and perhaps `etag`, `size` and `modified`. What is
listed with an etag is believed, any other image is asked for. Further columns can take the place of hive-style keys, and so partition the
table, or be carried into it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from masklake import storage
from masklake.errors import ImageFailure, Refused
from masklake.images.keys import Asked
from masklake.images.pages import PAGE_SCHEMA, page
from masklake.images.sources import inventories

_PARQUET = ".parquet"
_COLUMNS = {"etag": "image_etag", "size": "image_bytes", "modified": "image_modified"}


def is_manifest(uri: str) -> bool:
    """Whether a file of this name is a list of images."""
    return uri.endswith((_PARQUET, inventories.NAME))


def scope_of(input_uri: str) -> str:
    """What an input stands for when inputs are compared: its canonical form; for an inventory, of which there is one a day, its bucket.

    Raises:
        Refused: the inventory cannot be read.
    """
    uri = storage.normalise(input_uri)
    if not uri.endswith(inventories.NAME) or not storage.exists(uri):
        return uri
    return f"s3://{inventories.open_inventory(uri).bucket}/"


def schema_of(uri: str) -> pa.Schema:
    """The columns of a list of images; an inventory has none but its own.

    Raises:
        Refused: it is not Parquet.
    """
    if uri.endswith(inventories.NAME):
        return pa.schema([])
    with storage.open_file(uri) as file:
        try:
            return pq.read_schema(file)
        except pa.ArrowException as error:
            raise Refused(f"--input {uri}: not a manifest that can be read: {error}") from None


def read(uri: str, asked: Asked) -> Iterator[pa.Table]:
    """The images of a list, in pages; what neither it nor the store knows is null, or an error.

    Columns of a Parquet manifest that are asked for become `image_keys`.

    Raises:
        Refused: it cannot be read as a list of images.
    """
    listed = inventories.read(inventories.open_inventory(uri)) if uri.endswith(inventories.NAME) else _read_manifest(uri, asked)
    return map(_complete, listed)


def _read_manifest(uri: str, asked: Asked) -> Iterator[pa.Table]:
    with storage.open_file(uri) as file:
        try:
            manifest = pq.ParquetFile(file)
            names = manifest.schema_arrow.names
            if "uri" not in names:
                raise Refused(f"--input {uri}: a manifest has a column `uri`; this one has {', '.join(names)}")
            own = [name for name in ("uri", *_COLUMNS) if name in names]
            columns = list(dict.fromkeys([*own, *asked.columns(manifest.schema_arrow, uri)]))
            for batch in manifest.iter_batches(storage.PAGE, columns=columns):
                yield _manifest_page(uri, pa.table(batch), asked)
        except pa.ArrowException as error:
            raise Refused(f"--input {uri}: not a manifest that can be read: {error}") from None


def _manifest_page(uri: str, rows: pa.Table, asked: Asked) -> pa.Table:
    """A page from a manifest's rows, with its own columns and nulls for what it does not say."""
    folder = uri[: uri.rindex("/") + 1]
    if rows["uri"].null_count:
        raise Refused(f"--input {uri}: {rows['uri'].null_count} rows of the manifest have no uri")
    uris = [_absolute(str(name), folder) for name in rows["uri"].cast(pa.string()).to_pylist()]
    known = {_COLUMNS[name]: rows[name] for name in rows.column_names if name in _COLUMNS}
    return page(uris, image_keys=asked.tell(rows), **known)


def _absolute(name: str, folder: str) -> str:
    return storage.normalise(name if "://" in name or name.startswith("/") else folder + name)


def _complete(listed: pa.Table) -> pa.Table:
    """Ask the store about the rows that have no etag."""
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
