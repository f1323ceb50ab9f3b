"""Some columns of every row of a table, and of its segments the labels alone: masks, which are most of a table, are not read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable

from masklake import storage
from masklake.ordered import R, T, in_order
from masklake.schema import table_schema
from masklake.table import damage

LABELS = pa.field("labels", pa.list_(pa.string()))
"""Of each row, the labels of its segments."""

_FILES_AT_ONCE = 4
_ROWS_AT_ONCE = 16_384


def narrow_rows(uri: str, delta: DeltaTable, names: Sequence[str], labels: bool = False) -> pa.RecordBatchReader:
    """These columns of every row, streamed file by file, with `LABELS` where they are wanted; what a table lacks is null.

    Raises:
        MasklakeError: on reading, a file is damaged or gone.
    """
    by = list(delta.metadata().partition_columns)
    known = table_schema(by)
    schema = pa.schema([*(known.field(name).with_nullable(True) for name in names), *([LABELS] if labels else [])])
    tables = _of_files(uri, delta, schema, by) if delta.protocol().min_reader_version <= 1 else _scanned(delta, schema)

    def batches() -> Iterator[pa.RecordBatch]:
        with damage.named(uri, delta):
            for table in tables:
                yield from table.combine_chunks().to_batches()

    return pa.RecordBatchReader.from_batches(schema, batches())


def each_in_order(items: Sequence[T], read: Callable[[T], R]) -> Iterator[R]:
    """What reading each gives, in order; a few are read at once."""
    with ThreadPoolExecutor(_FILES_AT_ONCE, "narrow") as pool:
        yield from in_order(read, items, pool, _FILES_AT_ONCE)


def read_columns(source: pq.ParquetFile, names: Sequence[str], of_segments: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
    """Some columns of a file, and of its segments some fields alone, in `segments`; what the file lacks is left out."""
    paths = [source.schema.column(place).path for place in range(len(source.schema.names))]
    leaves = [path for path in paths if path.startswith("segments.") and path.rpartition(".")[2] in of_segments]
    there = [name for name in names if name in source.schema_arrow.names]
    yield from source.iter_batches(_ROWS_AT_ONCE, columns=[*there, *leaves])


def _of_files(uri: str, delta: DeltaTable, schema: pa.Schema, by: Sequence[str]) -> Iterator[pa.Table]:
    actions = pa.table(delta.get_add_actions(flatten=True))
    values = [actions[f"partition.{name}"].cast(pa.string()).to_pylist() for name in by] if actions.num_rows else [[] for _ in by]
    paths = actions["path"].to_pylist() if actions.num_rows else []
    files = [(f"{uri}/{unquote(path)}", dict(zip(by, told, strict=True))) for path, *told in zip(paths, *values, strict=True)]
    return each_in_order(files, lambda file: _of_file(*file, schema))


def _of_file(uri: str, partition: Mapping[str, str | None], schema: pa.Schema) -> pa.Table:
    with storage.open_file(uri) as source:
        parquet = pq.ParquetFile(source)
        wanted = [name for name in schema.names if name not in partition]
        batches = list(read_columns(parquet, wanted, ("label",) if LABELS.name in schema.names else ()))
        parts = [_aligned(pa.Table.from_batches([batch]), schema, partition, batch.num_rows) for batch in batches]
        return pa.concat_tables(parts) if parts else schema.empty_table()


def _scanned(delta: DeltaTable, schema: pa.Schema) -> Iterator[pa.Table]:
    """The same of a table that another program gave features of which only delta-rs knows, such as deletion vectors."""
    there = {field.name for field in delta.schema().fields}
    names = [name for name in schema.names if name in there]
    columns = [*names, *(["segments"] if LABELS.name in schema.names else [])]
    for batch in pa.RecordBatchReader.from_stream(delta.scan(columns=columns)):
        yield _aligned(pa.Table.from_batches([batch]), schema, {}, batch.num_rows)


def _aligned(found: pa.Table, schema: pa.Schema, partition: Mapping[str, str | None], rows: int) -> pa.Table:
    def column(field: pa.Field) -> pa.Array | pa.ChunkedArray:
        if field.name in partition:
            return pa.repeat(pa.scalar(partition[field.name], pa.string()), rows)
        if field.name == LABELS.name and "segments" in found.column_names:
            return _labels(found["segments"].combine_chunks())
        return found[field.name].cast(field.type) if field.name in found.column_names else pa.nulls(rows, field.type)

    return pa.table([column(field) for field in schema], schema=schema)


def _labels(segments: pa.Array) -> pa.ListArray:
    lengths = pc.fill_null(pc.list_value_length(segments), 0).cast(pa.int32())
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(lengths)])
    return pa.ListArray.from_arrays(offsets, pc.struct_field(segments.flatten(), "label").cast(pa.string()))
