"""Files of the table into new ones. Row groups pass through one after another, and every value stays as it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from masklake import storage
from masklake.errors import ImageFailure
from masklake.storage import StorageError
from masklake.table import damage
from masklake.table.write import FileWriter, NewFile
from masklake.upkeep.upkeep import TableFile, UpkeepTable

Keep = Callable[[TableFile, int, pa.Table], pa.Array]
"""Which rows to keep, as booleans: of this file, from this row on, these rows."""

_WHOLE_BYTES = 4 << 20  # a file up to this size is fetched with one request, together with others
_FETCH_BYTES = 64 << 20  # of such files in memory at once


@dataclass(frozen=True)
class Rewritten:
    """The new file, None where no row is left, and how many rows of each run were left out."""

    file: NewFile | None
    taken_out: Counter[str]


def rewrite(table: UpkeepTable, files: Sequence[TableFile], keep: Keep | None = None) -> Rewritten:
    """Write rows of some files of one partition, all of them or those to keep, into one new file that is not part of the table yet.

    Raises:
        StorageError: a file cannot be read, or the new one not be written.
    """
    schema = table.file_schema
    writer, taken_out = FileWriter(schema), Counter[str]()
    for file, source in opened(table.uri, files):
        first = 0
        for group in range(source.num_row_groups):
            rows = conform(source.read_row_group(group), schema)
            chosen = keep(file, first, rows) if keep else None
            first += rows.num_rows
            if chosen is not None:
                taken_out += _runs(file, rows.filter(pc.invert(chosen)))
                rows = rows.filter(chosen)
            writer.add(rows)
    return Rewritten(writer.store(table.uri, files[0].partition_values, table.job_id), taken_out)


def replace_files(table: UpkeepTable, files: Sequence[TableFile], keep: Keep | None = None) -> list[NewFile] | None:
    """Put their rows, all of them or those to keep, into one new file, and that in their place, in one commit.

    Returns:
        The new file, none where no row is left; None where another job replaced one of the files first, and nothing was done.

    Raises:
        StorageError: a file cannot be read, or the new one not be written.
        Fenced: a vacuum took this job for dead.
        MasklakeError: the store does not take the commit.
    """
    rewritten = rewrite(table, files, keep)
    new = [rewritten.file] if rewritten.file else []
    if table.swap(files, new, rewritten.taken_out):
        return new
    storage.delete_files([f"{table.uri}/{file.path}" for file in new])
    return None


def opened(table_uri: str, files: Sequence[TableFile]) -> Iterator[tuple[TableFile, pq.ParquetFile]]:
    """Each file, open for reading: small ones are fetched whole, many at once, large ones in ranges as asked for.

    Raises:
        StorageError: one cannot be read, after retries.
    """
    for batch in _batches(files):
        if len(batch) == 1:
            with storage.open_file(f"{table_uri}/{batch[0].path}") as source:
                yield batch[0], _parquet(f"{table_uri}/{batch[0].path}", source)
            continue
        uris = [f"{table_uri}/{file.path}" for file in batch]
        for file, uri, content in zip(batch, uris, storage.read_many(uris), strict=True):
            if isinstance(content, ImageFailure):
                raise StorageError(uri, content)
            yield file, _parquet(uri, pa.BufferReader(content))


def _parquet(uri: str, source: Any) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(source)
    except (pa.ArrowException, OSError) as error:
        raise damage.unreadable(uri, error) from error


def conform(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows of an older or another writer's file as this schema has them: columns in order, absent ones null."""
    columns = [rows[field.name] if field.name in rows.column_names else pa.nulls(rows.num_rows, field.type) for field in schema]
    return pa.table(columns, names=schema.names).cast(schema)


def _batches(files: Sequence[TableFile]) -> Iterator[list[TableFile]]:
    """The files in order, those next to each other that are small enough to fetch together."""
    batch: list[TableFile] = []
    size = 0
    for file in files:
        if batch and (file.size > _WHOLE_BYTES or size + file.size > _FETCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size = size + file.size if file.size <= _WHOLE_BYTES else _FETCH_BYTES  # a large one stays alone
    if batch:
        yield batch


def _runs(file: TableFile, rows: pa.Table) -> Counter[str]:
    """How many of these rows each run made."""
    if "run_id" in file.partition_values:
        return Counter({file.partition_values["run_id"] or "": rows.num_rows})
    return Counter({pair["values"]: pair["counts"] for pair in rows["run_id"].value_counts().to_pylist()})
