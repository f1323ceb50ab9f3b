"""Lists of images in Parquet: manifests, also as a folder of files or a Delta table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from masklake import storage
from masklake.images import delta
from masklake.images.lists import Lists
from masklake.images.parquet_pages import text_batches
from masklake.images.source import Unreadable
from masklake.storage import StoredFile


class Manifests(Lists):
    """Parquet files with a column that names images."""

    name = "manifest"
    suffixes = (".parquet",)

    def files(self, uri: str) -> Iterator[list[StoredFile]]:
        """Of a Delta table, the files of its newest version."""
        of_delta = delta.files_at(uri)
        return super().files(uri) if of_delta is None else of_delta

    def schema(self, uri: str, names: Sequence[str]) -> pa.Schema:
        """As the file says."""
        del names
        with storage.open_file(uri) as file:
            try:
                return pq.read_schema(file)
            except (pa.ArrowException, OSError) as error:
                raise Unreadable(str(error)) from None

    def rows(self, uri: str, columns: pa.Schema) -> Iterator[pa.Table]:
        """Batch by batch, within the bounds of `parquet_pages`."""
        with storage.open_file(uri) as file:
            try:
                yield from text_batches(file, columns.names)
            except (pa.ArrowException, OSError) as error:
                raise Unreadable(str(error)) from None
