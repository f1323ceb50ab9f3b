"""Where rows lie in a table's files, and what single rows hold, read from there wherever there is a CPU."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from masklake import storage
from masklake.schema import Status
from masklake.storage import StorageError
from masklake.table import damage
from masklake.table.keys import KeyFile, Wanted
from masklake.table.narrow import each_in_order, read_columns

PLACES = pa.schema(
    [("image_uri", pa.string()), ("image_etag", pa.string()), ("fingerprint", pa.string()), ("file", pa.int32()), ("place", pa.int64())]
)
"""Whose answers are in which row: `file` is the number of its file among those that were read, `place` that of the row in it."""

_READ = ("image_uri", "image_etag", "fingerprint", "status")


def ok_places(table_uri: str, files: Sequence[KeyFile], wanted: Wanted) -> Iterator[pa.RecordBatch]:
    """Where the rows with status ok are that are wanted: `PLACES`, streamed file by file.

    Raises:
        MasklakeError: a file is damaged or gone, or cannot be read after retries.
    """
    fingerprints = pa.array(sorted({*wanted.fingerprints.values()}), pa.string())

    def read(numbered: tuple[int, KeyFile]) -> list[pa.RecordBatch]:
        try:
            return list(_of_file(table_uri, *numbered, fingerprints, wanted.prefix or ""))
        except (StorageError, pa.ArrowException, OSError) as error:
            raise damage.unreadable(f"{table_uri}/{numbered[1].path}", error) from error

    for batches in each_in_order(list(enumerate(files)), read):
        yield from batches


def _of_file(table_uri: str, number: int, file: KeyFile, fingerprints: pa.Array, prefix: str) -> Iterator[pa.RecordBatch]:
    first = 0
    with storage.open_file(f"{table_uri}/{file.path}") as source:
        for batch in read_columns(pq.ParquetFile(source), _READ):
            rows = batch.num_rows
            columns = {name: batch.column(name).cast(pa.string()) for name in batch.schema.names}
            columns |= {name: pa.repeat(pa.scalar(value, pa.string()), rows) for name, value in file.partition_values.items()}
            columns |= {"file": pa.repeat(pa.scalar(number, pa.int32()), rows), "place": pa.array(range(first, first + rows), pa.int64())}
            kept = pc.and_(pc.equal(columns["status"], str(Status.OK)), pc.is_in(columns["fingerprint"], fingerprints))
            kept = pc.and_(kept, pc.starts_with(columns["image_uri"], prefix))
            yield pa.record_batch([columns[name] for name in PLACES.names], schema=PLACES).filter(kept)
            first += rows


class PlacedRows:
    """Columns of single rows, of which the row groups that were read last are kept. May be used by several threads."""

    def __init__(self, columns: Sequence[str], files: int = 8, groups: int = 8) -> None:
        """Of so many open files, and row groups, at most: a group's masks are a few megabytes."""
        self._columns, self._most_files, self._most_groups = list(columns), files, groups
        self._lock = threading.Lock()
        self._files: OrderedDict[str, pq.ParquetFile] = OrderedDict()
        self._groups: OrderedDict[tuple[str, int], pa.Table] = OrderedDict()

    def row(self, uri: str, place: int) -> dict[str, Any]:
        """The columns of a row of a file, as Python values; those that the file lacks are left out.

        Raises:
            StorageError, ArrowException, OSError: it cannot be read.
        """
        with self._lock:
            source = self._file(uri)
            group = 0
            while place >= (rows := source.metadata.row_group(group).num_rows):
                place, group = place - rows, group + 1
            found: dict[str, Any] = self._group(uri, group, source).slice(place, 1).to_pylist()[0]
            return found

    def _file(self, uri: str) -> pq.ParquetFile:
        if uri not in self._files:
            self._files[uri] = pq.ParquetFile(storage.open_file(uri))
            if len(self._files) > self._most_files:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(uri)
        return self._files[uri]

    def _group(self, uri: str, group: int, source: pq.ParquetFile) -> pa.Table:
        key = uri, group
        if key not in self._groups:
            there = [name for name in self._columns if name in source.schema_arrow.names]
            self._groups[key] = source.read_row_group(group, columns=there)
            if len(self._groups) > self._most_groups:
                self._groups.popitem(last=False)
        self._groups.move_to_end(key)
        return self._groups[key]
