"""What planning reads of a table: which files the log leaves, and the key columns of some of them, read wherever there is a CPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import DeltaTable
from deltalake.fs import DeltaStorageHandler
from pyarrow.fs import PyFileSystem

from masklake import storage

KEYS = pa.schema([(name, pa.string()) for name in ("image_uri", "image_etag", "task", "fingerprint", "status")])
"""The columns that planning reads."""

_LAST = chr(0x10FFFF)  # sorts after whatever follows a prefix
_BATCH_ROWS, _BATCHES_AHEAD, _FILES_AHEAD = 32_768, 4, 2  # what a reader holds: about 30 MB


@dataclass(frozen=True)
class Wanted:
    """Which rows planning asks for: of the fingerprint of each task, and of images whose URI begins so; None where they may be anywhere."""

    fingerprints: Mapping[str, str]
    prefix: str | None = None

    @property
    def bounds(self) -> tuple[str, str] | None:
        """The smallest URI, and one that is greater than all."""
        return None if self.prefix is None else (self.prefix, self.prefix + _LAST)


@dataclass(frozen=True)
class KeyFile:
    """A file of the table that may hold such rows. `path` is relative to the table and named as in the store; `rows` is as the log says."""

    path: str
    rows: int
    partition_values: Mapping[str, str | None]


def key_files(delta: DeltaTable, wanted: Wanted) -> list[KeyFile]:
    """The files of a table that, by partition values and statistics, may hold such rows; none of them is opened."""
    actions = pa.table(delta.get_add_actions(flatten=True))
    if not actions.num_rows:
        return []
    kept = [_may_hold(actions, "fingerprint", fingerprint, fingerprint) for fingerprint in wanted.fingerprints.values()]
    chosen = reduce(pc.or_, kept, pa.repeat(False, actions.num_rows))
    if wanted.bounds:
        chosen = pc.and_(chosen, _may_hold(actions, "image_uri", *wanted.bounds))
    actions = actions.filter(chosen)
    by = [name for name in delta.metadata().partition_columns if name in KEYS.names]
    values = [actions[f"partition.{name}"].cast(pa.string()).to_pylist() for name in by]
    rows = pc.fill_null(actions["num_records"], 0).to_pylist()
    return [
        KeyFile(unquote(path), count, dict(zip(by, told, strict=True)))
        for path, count, *told in zip(actions["path"].to_pylist(), rows, *values, strict=True)
    ]


def read_keys(table_uri: str, files: Sequence[KeyFile], wanted: Wanted) -> Iterator[pa.RecordBatch]:
    """The rows that are wanted of some files: `KEYS`, streamed; of each file, only these columns of the row groups that may hold them.

    Raises:
        Exception: what the store answered, after retries.
    """
    handler = DeltaStorageHandler(storage.delta_uri(table_uri), storage.delta_options(table_uri))
    files_of, parquet = PyFileSystem(handler), ds.ParquetFileFormat(pre_buffer=True)
    fragments = [parquet.make_fragment(file.path, files_of, _told(file)) for file in files]
    condition = ds.field("fingerprint").isin(list(wanted.fingerprints.values()))
    if wanted.bounds:
        first, end = wanted.bounds
        condition = condition & (ds.field("image_uri") >= first) & (ds.field("image_uri") < end)
    return ds.FileSystemDataset(fragments, KEYS, parquet, files_of).to_batches(  # type: ignore[no-any-return]
        filter=condition, batch_size=_BATCH_ROWS, batch_readahead=_BATCHES_AHEAD, fragment_readahead=_FILES_AHEAD
    )


def sql_condition(wanted: Wanted) -> str:
    """The same as an SQL condition."""
    conditions = [f"fingerprint IN ({', '.join(map(sql_text, sorted({*wanted.fingerprints.values()})))})"]
    if wanted.bounds:
        first, end = wanted.bounds
        conditions += [f"image_uri >= {sql_text(first)}", f"image_uri < {sql_text(end)}"]
    return " AND ".join(conditions)


def sql_text(text: str) -> str:
    """Text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def _may_hold(actions: pa.Table, column: str, first: str, last: str) -> pa.Array:
    """Of each file, whether it may hold a value between these; one of which the log says nothing may."""

    def told(name: str) -> pa.Array:
        known = name in actions.column_names
        return actions[name].cast(pa.string()).combine_chunks() if known else pa.nulls(actions.num_rows, pa.string())

    partition = told(f"partition.{column}")
    smallest, largest = pc.coalesce(partition, told(f"min.{column}")), pc.coalesce(partition, told(f"max.{column}"))
    return pc.and_(pc.fill_null(pc.less_equal(smallest, last), True), pc.fill_null(pc.greater_equal(largest, first), True))


def _told(file: KeyFile) -> ds.Expression:
    """What the log says of every row of a file."""
    facts = [ds.field(name).is_null() if value is None else ds.field(name) == value for name, value in file.partition_values.items()]
    return reduce(and_, facts, ds.scalar(True))
