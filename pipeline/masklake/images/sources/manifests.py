"""Lists of images that somebody has made: Parquet manifests.

A manifest is a Parquet file with a column `uri` (a relative one begins at its folder) and perhaps `etag`, `size` and `modified`. What is
listed with an etag is believed, any other image is asked for. Further columns can take the place of hive-style keys, and so partition the
table, or be carried into it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from masklake import storage
from masklake.errors import Refused
from masklake.images.keys import Asked
from masklake.images.listing import completed, one_file
from masklake.images.pages import page
from masklake.images.source import Input, Source

_SUFFIX = ".parquet"
_COLUMNS = {"etag": "image_etag", "size": "image_bytes", "modified": "image_modified"}


class Manifests(Source):
    """A Parquet file that names images."""

    name = "manifest"

    def claims(self, asked: Input) -> bool:
        """A file of this name."""
        return asked.uri.endswith(_SUFFIX) and one_file(asked.uri) is not None

    def may_hold(self, asked: Input) -> str | None:
        """Its images may be anywhere."""
        del asked
        return None

    def columns(self, asked: Input, names: Sequence[str]) -> pa.Schema:
        """All that it has."""
        del names
        with storage.open_file(asked.uri) as file:
            try:
                return pq.read_schema(file)
            except pa.ArrowException as error:
                raise _unreadable(asked.uri, error) from None

    def pages(self, asked: Input, columns: Asked) -> Iterator[pa.Table]:
        """What it names; what neither it nor the store knows is null, or an error."""
        return map(completed, _read(asked.uri, columns))


def _read(uri: str, asked: Asked) -> Iterator[pa.Table]:
    with storage.open_file(uri) as file:
        try:
            manifest = pq.ParquetFile(file)
            names = manifest.schema_arrow.names
            if "uri" not in names:
                raise Refused(f"--input {uri}: a manifest has a column `uri`; this one has {', '.join(names)}")
            own = [name for name in ("uri", *_COLUMNS) if name in names]
            columns = list(dict.fromkeys([*own, *asked.columns(manifest.schema_arrow, uri)]))
            for batch in manifest.iter_batches(storage.PAGE, columns=columns):
                yield _page(uri, pa.table(batch), asked)
        except pa.ArrowException as error:
            raise _unreadable(uri, error) from None


def _page(uri: str, rows: pa.Table, asked: Asked) -> pa.Table:
    """A page from a manifest's rows, with its own columns and nulls for what it does not say."""
    folder = uri[: uri.rindex("/") + 1]
    if rows["uri"].null_count:
        raise Refused(f"--input {uri}: {rows['uri'].null_count} rows of the manifest have no uri")
    uris = [_absolute(str(name), folder) for name in rows["uri"].cast(pa.string()).to_pylist()]
    known = {_COLUMNS[name]: rows[name] for name in rows.column_names if name in _COLUMNS}
    return page(uris, image_keys=asked.tell(rows), **known)


def _absolute(name: str, folder: str) -> str:
    return storage.normalise(name if "://" in name or name.startswith("/") else folder + name)


def _unreadable(uri: str, error: Exception) -> Refused:
    return Refused(f"--input {uri}: not a manifest that can be read: {error}")
