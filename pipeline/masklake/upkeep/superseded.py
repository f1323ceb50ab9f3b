"""Which rows of a table newer answers have superseded: found from the key columns alone, on disk, however many rows there are."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from masklake.database import connect
from masklake.schema import NEWNESS, NEWNESS_SQL, TABLE, Status
from masklake.upkeep.rewrite import opened
from masklake.upkeep.upkeep import TableFile, UpkeepTable

REASONS = ("changed image", "changed model or settings", "done again")
"""Why a row is superseded: the newer row is of another etag; else of another fingerprint; else an error was retried."""

_KEYS = ("image_uri", "image_etag", "task", "fingerprint", *NEWNESS, "status")
_MEMORY = "512MB"  # beyond it, DuckDB spills to disk
_INSERTED_ROWS = 65_536  # at a time: files may hold a few rows each


class Superseded:
    """The rows to drop, by file and row number."""

    def __init__(self, database: duckdb.DuckDBPyConnection, files: Sequence[TableFile]) -> None:
        self._database = database
        self._numbers = {file.name: number for number, file in enumerate(files)}
        found = database.execute("SELECT DISTINCT file FROM superseded").fetchall()
        self.files = frozenset(files[number].name for (number,) in found)
        """The names of the files that hold such rows."""
        counts = dict(database.execute("SELECT reason, count(*) FROM superseded GROUP BY reason").fetchall())
        self.reasons = {reason: int(counts.get(number, 0)) for number, reason in enumerate(REASONS)}
        """How many rows there are, by reason."""

    def keep(self, file: TableFile, first: int, rows: pa.Table) -> pa.Array:
        """Of these rows of a file, from this row on: those that are not superseded, as booleans."""
        chosen = np.ones(rows.num_rows, np.bool_)
        query = "SELECT row - ? AS row FROM superseded WHERE file = ? AND row >= ? AND row < ?"
        found = self._database.execute(query, [first, self._numbers.get(file.name, -1), first, first + rows.num_rows])
        chosen[found.fetchnumpy()["row"]] = False
        return pa.array(chosen)


@contextmanager
def superseded(table: UpkeepTable, files: Sequence[TableFile]) -> Iterator[Superseded]:
    """Find the rows that may go: those of an image and task of which a newer row exists.

    Newer is the row of a run that began later by the table's log (`NEWNESS`), as in `masklake.reading`. An answer (status `ok`) is
    superseded by a newer answer only, never by an error: asking for each image's newest row, or for its newest successful one, gives the
    same before and after.
    """
    with tempfile.TemporaryDirectory(prefix="masklake-superseded-") as scratch:
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": _MEMORY,
            "threads": 2,
            "temp_directory": str(Path(scratch, "spill")),
            "preserve_insertion_order": False,
        }
        with connect(Path(scratch, "keys.duckdb"), config=settings) as database:
            database.execute("SET enable_progress_bar = false")
            _load(database, table.uri, files)
            _find(database)
            yield Superseded(database, files)


def _load(database: duckdb.DuckDBPyConnection, table_uri: str, files: Sequence[TableFile]) -> None:
    database.execute(
        "CREATE TABLE keys (file INTEGER, row BIGINT, image_uri VARCHAR, image_etag VARCHAR, task VARCHAR, fingerprint VARCHAR, "
        "run_order BIGINT, processed_at BIGINT, run_id VARCHAR, status VARCHAR)"
    )
    waiting, rows = list[pa.Table](), 0
    for number, (file, source) in enumerate(opened(table_uri, files)):
        first = 0
        for batch in source.iter_batches(columns=[name for name in _KEYS if name not in file.partition_values]):
            waiting.append(_numbered(batch, file, number, first))
            first, rows = first + batch.num_rows, rows + batch.num_rows
            if rows >= _INSERTED_ROWS:
                _insert(database, waiting)
                waiting, rows = [], 0
    _insert(database, waiting)


def _numbered(batch: pa.RecordBatch, file: TableFile, number: int, first: int) -> pa.Table:
    """The keys of some rows of a file, with the numbers of both."""
    columns = {name: _column(batch, file, name) for name in _KEYS}
    columns["processed_at"] = columns["processed_at"].cast(pa.int64())
    rows = pa.array(np.arange(first, first + batch.num_rows))
    return pa.table({"file": pa.repeat(pa.scalar(number, pa.int32()), batch.num_rows), "row": rows, **columns})


def _column(batch: pa.RecordBatch, file: TableFile, name: str) -> pa.Array:
    if name in file.partition_values:
        return pa.repeat(pa.scalar(file.partition_values[name], pa.string()), batch.num_rows)
    kind = TABLE.field(name).type
    return (
        batch.column(name).cast(kind) if name in batch.schema.names else pa.nulls(batch.num_rows, kind)
    )  # a file from before it was there


def _insert(database: duckdb.DuckDBPyConnection, tables: Sequence[pa.Table]) -> None:
    if tables:
        database.register("incoming", pa.concat_tables(tables))
        database.execute("INSERT INTO keys FROM incoming")
        database.unregister("incoming")


def _find(database: duckdb.DuckDBPyConnection) -> None:
    """The table `superseded`, in the order in which files are rewritten."""
    ok, answer = f"status = '{Status.OK}'", "{etag: image_etag, fingerprint: fingerprint}"
    database.execute(
        f"""
        CREATE TABLE newest AS
        SELECT image_uri, task, max({NEWNESS_SQL}) AS stamp, arg_max({answer}, {NEWNESS_SQL}) AS answer,
            max({NEWNESS_SQL}) FILTER ({ok}) AS ok_stamp, arg_max({answer}, {NEWNESS_SQL}) FILTER ({ok}) AS ok_answer
        FROM keys GROUP BY image_uri, task
        """  # noqa: S608 - constants
    )
    database.execute(
        f"""
        CREATE TABLE superseded AS
        SELECT file, row,
            CASE WHEN image_etag IS DISTINCT FROM newer.etag THEN 0 WHEN fingerprint <> newer.fingerprint THEN 1 ELSE 2 END AS reason
        FROM (
            SELECT keys.*, if({ok}, ok_answer, answer) AS newer, if({ok}, ok_stamp, stamp) AS newest_stamp
            FROM keys JOIN newest ON keys.image_uri = newest.image_uri AND keys.task = newest.task
        ) WHERE {NEWNESS_SQL} < newest_stamp
        ORDER BY file, row
        """  # noqa: S608 - constants
    )
