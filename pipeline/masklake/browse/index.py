"""What a page filters and sorts by, in a DuckDB database on this machine's disk: every row and every segment, without masks.

Rows come first, and the page with them; segments follow file by file while it is looked at. Of nested columns, only the leaves that are
needed are read: run lengths, nearly all of a table, stay where they are. Memory is bounded; what does not fit spills to the scratch folder.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from masklake.database import connect
from masklake.errors import MasklakeError, first_line
from masklake.export.doubt import DOUBT, DOUBT_OF_NOTHING
from masklake.schema import TABLE
from masklake.sql import LOCK
from masklake.table.asked import unasked
from masklake.table.narrow import read_columns
from masklake.upkeep.rewrite import opened
from masklake.upkeep.upkeep import TableFile, UpkeepTable

ID, SUBJECT, FILE, PLACE = "__id", "__subject", "__file", "__place"
"""Columns beside the table's: the row's number, the newest greatest; that of its image and task; its file, and its place there."""

_MEMORY = "512MB"  # beyond it, DuckDB spills to disk
_LONGEST_WAIT, _WAKE_SECONDS = 0.5, 0.02  # for pictures
_LEAVES = ("label_id", "label", "score", "area")
_SEGMENTS_AT_ONCE = 100_000
_TABLES = """
    CREATE TABLE kinds (kind INTEGER, label VARCHAR, label_id INTEGER);
    CREATE TABLE segments (id INTEGER, kind INTEGER, score FLOAT, share FLOAT);
    CREATE TABLE sums (id INTEGER, segments INTEGER, doubt FLOAT);
    CREATE TABLE truthful (image_uri VARCHAR, task VARCHAR);
"""


class Index:
    """The rows and segments of a table's files. `database` is for one thread at a time, which holds `lock`."""

    def __init__(self, table: UpkeepTable, scratch: Path) -> None:
        """Read the rows.

        Raises:
            MasklakeError: a file of the table cannot be read.
        """
        self.table_uri, self.files = table.uri, table.files()
        self.columns = pa.schema([field for field in table.schema if field.name != "segments"])
        self.partitions = partition_columns(table)
        self.lock = threading.RLock()
        self.database = connect(scratch / "index.duckdb")
        spill = str(scratch / "spilled").replace("'", "''")
        self.database.execute(f"SET memory_limit = '{_MEMORY}'; SET enable_progress_bar = false; SET temp_directory = '{spill}'")
        self.database.execute("SET TimeZone = 'UTC'")
        self.database.execute(LOCK)
        self.read_files, self.failure = 0, ""
        self._stopped = threading.Event()
        self.ids: NDArray[np.int32] = np.zeros(0, np.int32)
        self._read_rows()
        self.database.register("told", unasked(table.uri))
        self.database.execute("CREATE TABLE unasked AS FROM told")
        self.database.unregister("told")

    @property
    def complete(self) -> bool:
        """Whether all segments are known."""
        return self.read_files == len(self.files)

    def _read_rows(self) -> None:
        fields = [*self.columns, pa.field(FILE, pa.int32()), pa.field(PLACE, pa.int32())]
        reader = pa.RecordBatchReader.from_batches(pa.schema(fields), self._rows(pa.schema(fields)))
        self.database.register("incoming", reader)
        self.database.execute("CREATE TABLE arrived AS FROM incoming")
        self.database.unregister("incoming")
        order = "run_order" if "run_order" in self.columns.names else "NULL"
        self.database.execute(
            f"""
            CREATE TABLE rows AS SELECT *,
                (row_number() OVER (ORDER BY coalesce({order}, -1), processed_at, run_id, image_uri, {FILE}, {PLACE}))::INTEGER AS {ID},
                (dense_rank() OVER (ORDER BY image_uri, task))::INTEGER AS {SUBJECT}
            FROM arrived;
            DROP TABLE arrived;
            {_TABLES}
            """  # noqa: S608
        )
        places = self.database.execute(
            f"SELECT {FILE} AS file, {ID} AS id, coalesce(width::BIGINT * height, 0) AS pixels FROM rows ORDER BY {FILE}, {PLACE}"  # noqa: S608
        ).fetchnumpy()
        self.ids, self._pixels = places["id"], places["pixels"]
        self._firsts: list[int] = np.searchsorted(places["file"], np.arange(len(self.files))).tolist()

    def _rows(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        for number, (file, source) in enumerate(opened(self.table_uri, self.files)):
            place = 0
            for batch in read_columns(source, schema.names):
                yield _conformed(batch, schema, file, number, place)
                place += batch.num_rows

    def read_segments(self, gives_way: Callable[[], bool] = lambda: False) -> None:
        """Read the segments, some files at a time; `failure` says why where that ends early.

        Before each file it waits a while as long as `gives_way` says so: somebody waits for pictures, which take the same CPUs.
        """
        cursor = self.database.cursor()
        waiting: list[pa.Table] = []
        try:
            for number, (_, source) in enumerate(opened(self.table_uri, self.files)):
                ends = time.monotonic() + _LONGEST_WAIT
                while gives_way() and time.monotonic() < ends and not self._stopped.wait(_WAKE_SECONDS):
                    pass
                waiting += _segments(source, self._firsts[number])
                last = number + 1 == len(self.files)
                if last or sum(each.num_rows for each in waiting) >= _SEGMENTS_AT_ONCE:
                    self._add(cursor, pa.concat_tables(waiting))
                    waiting, self.read_files = [], number + 1
                if self._stopped.is_set():
                    return
        except (MasklakeError, duckdb.Error, pa.ArrowException, OSError) as error:
            self.failure = first_line(error)
        finally:
            cursor.close()

    def _add(self, cursor: duckdb.DuckDBPyConnection, found: pa.Table) -> None:
        """Rows without any segment have a line of their own in `sums`."""
        places = found["place"].to_numpy()
        share = np.divide(found["area"].to_numpy(zero_copy_only=False), self._pixels[places], dtype=np.float32)
        columns = {"id": self.ids[places], "label": found["label"], "label_id": found["label_id"], "score": found["score"], "share": share}
        cursor.register("incoming", pa.table(columns))
        cursor.execute(
            f"""
            BEGIN;
            CREATE OR REPLACE TEMP TABLE batch AS FROM incoming;
            INSERT INTO kinds
                SELECT (SELECT count(*) FROM kinds) + row_number() OVER (ORDER BY label, label_id), label, label_id
                FROM (SELECT DISTINCT label, label_id FROM batch WHERE label IS NOT NULL) ANTI JOIN kinds USING (label, label_id);
            INSERT INTO segments SELECT id, kind, score, share FROM batch JOIN kinds USING (label, label_id);
            INSERT INTO sums
                SELECT id, count(label), coalesce(sum(share * ({DOUBT})) / nullif(sum(share), 0), {DOUBT_OF_NOTHING})
                FROM batch GROUP BY id;
            COMMIT;
            """  # noqa: S608
        )
        cursor.unregister("incoming")

    def rows(self, query: str) -> list[dict[str, Any]]:
        """What a query finds, as Python values; it must hold no text that is not quoted."""
        with self.lock:
            found: list[dict[str, Any]] = self.database.sql(query).to_arrow_table().to_pylist()
            return found

    @property
    def stopped(self) -> bool:
        """Whether nobody looks any more."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Read no more segments."""
        self._stopped.set()

    def close(self) -> None:
        """Let go of the database."""
        self.stop()
        with self.lock:
            self.database.close()


def partition_columns(table: UpkeepTable) -> list[str]:
    """Those by which the table is partitioned, the task and what its rows say anyhow left out, and those that were carried as text."""
    said = {"task", "status", "error_code", "model", "fingerprint"}
    carried = [each.name for each in table.schema if each.name not in TABLE.names and pa.types.is_string(each.type)]
    return [name for name in dict.fromkeys([*table.partition_by, *carried]) if name not in said]


def _conformed(batch: pa.RecordBatch, schema: pa.Schema, file: TableFile, number: int, place: int) -> pa.RecordBatch:
    """The rows of a file with all columns: those of its path, null where it has none, and where it stands."""
    rows = batch.num_rows
    known: dict[str, pa.Array] = {name: batch.column(name) for name in batch.schema.names}
    known |= {name: pa.repeat(pa.scalar(value, pa.string()), rows) for name, value in file.partition_values.items()}
    known |= {FILE: pa.repeat(pa.scalar(number, pa.int32()), rows), PLACE: pa.array(range(place, place + rows), pa.int32())}
    columns = [known[field.name].cast(field.type) if field.name in known else pa.nulls(rows, field.type) for field in schema]
    return pa.record_batch(columns, names=schema.names)


def _segments(source: pq.ParquetFile, first: int) -> Iterator[pa.Table]:
    """`place` and what is needed of each segment; one line with nulls of a row that has none. Places are counted from `first` on."""
    for batch in read_columns(source, (), _LEAVES):
        yield _flat(batch.column(0), first)
        first += batch.num_rows


def _flat(lists: pa.ListArray, first: int) -> pa.Table:
    parents, structs = pc.list_parent_indices(lists), pc.list_flatten(lists)
    empty = pc.indices_nonzero(pc.fill_null(pc.equal(pc.list_value_length(lists), 0), False))
    places = pa.chunked_array([parents.cast(pa.int64()), empty.cast(pa.int64())])
    fields = {name: pc.struct_field(structs, name) for name in _LEAVES}
    columns = {name: pa.chunked_array([values, pa.nulls(len(empty), values.type)]) for name, values in fields.items()}
    return pa.table({"place": pc.add(places, first), **columns})
