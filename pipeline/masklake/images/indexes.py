"""What was found inside objects, kept for the next run, which so need not read them again. It only saves time: nothing rests on it."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from masklake import storage
from masklake.errors import ImageFailure
from masklake.storage import StoredFile


@dataclass(frozen=True)
class Indexes:
    """A folder with a small Parquet file for each version of an object; only added to if `kept`."""

    folder: str
    kept: bool = True

    def load(self, file: StoredFile, schema: pa.Schema) -> pa.Table | None:
        """What is known of this version of an object, if it is known."""
        (data,) = storage.read_many([self._uri(file)])
        try:
            return None if isinstance(data, ImageFailure) else pq.read_table(io.BytesIO(data)).cast(schema)
        except (pa.ArrowException, ValueError):  # ValueError: it has other columns
            return None

    def save(self, file: StoredFile, found: pa.Table) -> None:
        """Keep what was found in this version of an object."""
        if self.kept:
            sink = io.BytesIO()
            pq.write_table(found, sink, compression="zstd")
            storage.write_bytes(self._uri(file), sink.getvalue())

    def _uri(self, file: StoredFile) -> str:
        return f"{self.folder}{hashlib.sha256(f'{file.etag} {file.uri}'.encode()).hexdigest()[:32]}.parquet"
