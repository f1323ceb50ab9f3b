"""Rows to Parquet files, one per partition value, not yet part of the table: only a commit makes them visible.

A file is complete or absent: it is serialised in memory and stored with one PUT. Its name carries the run, so that an
uncommitted file can be told from one of a live run, and a random part, so that a repeated task never overwrites a committed file.
"""

from __future__ import annotations

import hashlib
import heapq
import io
import json
import operator
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from masklake import storage
from masklake.schema import TABLE, Status

NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
EXAMPLES = 3
"""Examples kept per error code."""
SAMPLES = 64
"""Images of a file that its record names as a sample."""

_FOLDER_BYTES, _KEY_BYTES = 255, 1024
_ROW_GROUP_BYTES = 8 << 20  # before compression: small enough to read one row's masks, large enough to scan
_STRING_STATS = 512  # characters of a minimum or maximum; image URIs share long prefixes, so the customary 32 would skip nothing
_STATS_COLUMNS = (
    "image_uri",
    "image_etag",
    "task",
    "fingerprint",
    "run_id",
    "run_order",
    "processed_at",
    "status",
    "error_code",
    "width",
    "height",
)


@dataclass(frozen=True, order=True)
class Sample:
    """One image that got an answer, and the file (relative to the table) with its rows; the lowest hashes are an unbiased sample."""

    hash: int
    image_uri: str
    path: str


@dataclass(frozen=True)
class NewFile:
    """One written file, as the commit needs it.

    `path` is relative to the table and named as in the store; `partition_values` are the true values behind it; `stats` is Delta's JSON.
    """

    path: str
    size: int
    modified: datetime
    partition_values: Mapping[str, str | None]
    stats: str
    rows: int


@dataclass(frozen=True)
class FileRecord(NewFile):
    """One file that a run wrote, as the report needs it as well: a few kilobytes, whatever the file holds.

    `errors` counts failed rows by code and `examples` holds up to three (image URI, message) of each. `label_counts` counts segments by
    label. `samples` are up to 64 images with an answer, lowest hash first. `seconds` is time by stage.
    """

    ok: int
    errors: Mapping[str, int] = field(default_factory=dict)
    examples: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    label_counts: Mapping[str, int] = field(default_factory=dict)
    samples: tuple[Sample, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)


def merge_samples(left: Sequence[Sample], right: Sequence[Sample], most: int) -> tuple[Sample, ...]:
    """The sample of both: the `most` images with the lowest hashes, each image once, whatever the order of merging."""
    by_image = {sample.image_uri: sample for sample in sorted({*left, *right}, reverse=True)}
    return tuple(heapq.nsmallest(most, by_image.values()))


def folder_name(column: str, value: str | None) -> str:
    """A partition's folder."""
    return f"{column}={NULL_PARTITION if value is None else quote(value, safe='')}"


def fits(table_uri: str, values: Mapping[str, str | None], run_id: str) -> bool:
    """Whether a partition's files have room for their names: 255 bytes for each folder on a file system, 1,024 for a key on a store."""
    folders = [folder_name(column, value).encode() for column, value in values.items()]
    uri = storage.normalise(table_uri)
    if uri.startswith("file://"):
        return all(len(folder) <= _FOLDER_BYTES for folder in folders)
    key = uri.partition("://")[2].partition("/")[2]
    return len(key.encode()) + sum(len(folder) + 1 for folder in folders) + len(f"/part-{run_id}-{uuid.UUID(int=0)}.parquet") <= _KEY_BYTES


def write_rows(
    rows: pa.Table, table_uri: str, partition_by: Sequence[str], run_id: str, seconds: Mapping[str, float] | None = None
) -> list[FileRecord]:
    """Store rows of the table's schema, one file per combination of partition values.

    Args:
        rows: rows of `masklake.schema.table_schema(partition_by)`, at least one.
        table_uri: the table's folder.
        partition_by: its partition columns; they go into the path and not into the file.
        run_id: the run that writes; it becomes part of the file's name.
        seconds: time that earlier stages spent on these rows, by stage; counted once, and completed by this stage's own as `write`.

    Raises:
        Exception: what the store answered, after the retries of `masklake.storage`; no file is then partly there.
    """
    started = time.perf_counter()
    first, *others = [_write_file(part, table_uri, values, run_id) for values, part in _partitions(rows, partition_by)]
    spent = {**(seconds or {}), "write": time.perf_counter() - started}
    return [replace(first, seconds=spent), *others]


def read_rows(table_uri: str, sample: Sample) -> list[dict[str, Any]]:
    """The rows of a sampled image in the file that the sample names, as Python values, partition columns included.

    Raises:
        StorageError: the file cannot be read.
    """
    folders = [part.partition("=") for part in sample.path.split("/")[:-1]]
    values = {name: None if value == NULL_PARTITION else unquote(value) for name, _, value in folders}
    with storage.open_file(f"{table_uri.rstrip('/')}/{sample.path}") as source:
        found = pq.read_table(source, filters=[("image_uri", "=", sample.image_uri)])
    return [{**row, **values} for row in found.to_pylist()]


def _partitions(rows: pa.Table, partition_by: Sequence[str]) -> list[tuple[dict[str, str | None], pa.Table]]:
    """Rows by partition value, without the partition columns. Delta knows no empty string there: it is null."""
    if not partition_by:
        return [({}, rows)]
    keys = {name: pc.if_else(pc.equal(rows[name], ""), None, rows[name]) for name in partition_by}
    numbered = pa.table({**keys, "_row": pa.array(range(rows.num_rows), pa.int64())})
    groups = numbered.group_by(list(partition_by)).aggregate([("_row", "list")]).to_pylist()
    content = rows.drop_columns(list(partition_by))
    return [({name: group[name] for name in partition_by}, content.take(group["_row_list"])) for group in groups]


class FileWriter:
    """One file of the table, made of rows that come table by table: memory holds the compressed file and about one row group."""

    def __init__(self, schema: pa.Schema) -> None:
        self._sink = io.BytesIO()
        # Counts are already entropy-like bytes: a dictionary of them would only cost time and memory.
        dictionary = [name for name in schema.names if name not in ("image_uri", "image_etag", "segments")]
        dictionary.append("segments.list.element.label")
        self._parquet = pq.ParquetWriter(self._sink, schema, compression="zstd", use_dictionary=dictionary)
        self._waiting: list[pa.Table] = []
        self._waiting_bytes = 0
        self._stats: dict[str, Any] = {}

    def add(self, rows: pa.Table) -> None:
        """Take rows of the schema, without partition columns."""
        if rows.num_rows:
            self._waiting.append(rows)
            self._waiting_bytes += rows.nbytes
            self._stats = _merge_stats(self._stats, _stats(rows))
        if self._waiting_bytes >= _ROW_GROUP_BYTES:
            self._write_waiting()

    def store(self, table_uri: str, values: Mapping[str, str | None], run_id: str) -> NewFile | None:
        """Store the file under a name of this run; None, and no file, where there was not a single row.

        Raises:
            StorageError: it cannot be written, after retries; no file is then partly there.
        """
        data = self.content()
        if not self._stats:
            return None
        path = "/".join([*(folder_name(name, value) for name, value in values.items()), f"part-{run_id}-{uuid.uuid4()}.parquet"])
        storage.write_bytes(f"{table_uri.rstrip('/')}/{path}", data)
        return NewFile(path, len(data), datetime.now(UTC), values, json.dumps(self._stats), self._stats["numRecords"])

    def content(self) -> bytes:
        """The whole file, which takes no more rows then."""
        self._write_waiting()
        self._parquet.close()
        return self._sink.getvalue()

    def _write_waiting(self) -> None:
        if self._waiting:
            rows, groups = pa.concat_tables(self._waiting), max(1, self._waiting_bytes // _ROW_GROUP_BYTES)
            self._parquet.write_table(rows, row_group_size=-(-rows.num_rows // groups))
            self._waiting, self._waiting_bytes = [], 0


def growth(rows: pa.Table, partition_by: Sequence[str]) -> int:
    """Bytes by which files of the table grow with such rows, without what a file of no rows takes."""
    content = rows.drop_columns(list(partition_by))
    return _packed(content) - _packed(content.slice(0, 0))


def _packed(rows: pa.Table) -> int:
    writer = FileWriter(rows.schema)
    writer.add(rows)
    return len(writer.content())


def _write_file(rows: pa.Table, table_uri: str, values: dict[str, str | None], run_id: str) -> FileRecord:
    writer = FileWriter(rows.schema)
    writer.add(rows)
    stored = writer.store(table_uri, values, run_id)
    assert stored, "a partition has rows"
    return _describe(FileRecord(**vars(stored), ok=stored.rows), rows)


def _describe(record: FileRecord, rows: pa.Table) -> FileRecord:
    """The record with its counts, examples and samples."""
    names = ("image_uri", "status", "error_code", "error_message")
    errors: Counter[str] = Counter()
    examples: dict[str, list[tuple[str, str]]] = {}
    answered: set[str] = set()
    for uri, status, code, message in zip(*(_values(rows, record.partition_values, name) for name in names), strict=True):
        if status == Status.OK:
            answered.add(uri or "")
            continue
        errors[code or ""] += 1
        known = examples.setdefault(code or "", [])
        if len(known) < EXAMPLES:
            known.append((uri or "", message or ""))
    labels = pc.struct_field(pc.list_flatten(rows["segments"].combine_chunks()), "label").value_counts().to_pylist()
    return replace(
        record,
        ok=rows.num_rows - errors.total(),
        errors=dict(errors),
        examples={code: tuple(pairs) for code, pairs in examples.items()},
        label_counts={pair["values"]: pair["counts"] for pair in labels},
        samples=tuple(heapq.nsmallest(SAMPLES, (Sample(_hash(uri), uri, record.path) for uri in answered))),
    )


def _values(rows: pa.Table, partition: Mapping[str, str | None], name: str) -> list[str | None]:
    return [partition[name]] * rows.num_rows if name in partition else rows[name].to_pylist()


def _hash(uri: str) -> int:
    """63 bits that are the same in every process and have nothing to do with the content of the image."""
    return int.from_bytes(hashlib.blake2b(uri.encode(), digest_size=8).digest(), "big") >> 1


def _stats(rows: pa.Table) -> dict[str, Any]:
    """Delta's statistics of a file, by which readers skip it.

    Bounds of long text are cut, the upper one upwards. Instants are in milliseconds, as in Delta's protocol, the upper bound rounded up.
    """
    bounds = {name: pc.min_max(rows[name]).as_py() for name in _STATS_COLUMNS if name in rows.column_names}
    known = {name: bound for name, bound in bounds.items() if bound["min"] is not None}
    return {
        "numRecords": rows.num_rows,
        "minValues": {name: _lower(bound["min"]) for name, bound in known.items()},
        "maxValues": {name: _upper(bound["max"]) for name, bound in known.items()},
        "nullCount": {name: rows[name].null_count for name in TABLE.names if name in rows.column_names and name != "segments"},
    }


def _merge_stats(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    """The statistics of both together; of a column that has no bounds in one of them, because all is null there, the other's."""
    if not left:
        return dict(right)

    def join(kind: str, choose: Callable[[Any, Any], Any]) -> dict[str, Any]:
        mine, other = left[kind], right[kind]
        return {**mine, **{name: choose(mine[name], value) if name in mine else value for name, value in other.items()}}

    return {
        "numRecords": left["numRecords"] + right["numRecords"],
        "minValues": join("minValues", min),
        "maxValues": join("maxValues", max),
        "nullCount": join("nullCount", operator.add),
    }


def _lower(value: Any) -> Any:
    if isinstance(value, datetime):
        return _milliseconds(value)
    return value[:_STRING_STATS] if isinstance(value, str) else value


def _upper(value: Any) -> Any:
    if isinstance(value, datetime):
        return _milliseconds(value + timedelta(microseconds=999))
    if isinstance(value, str) and len(value) > _STRING_STATS:
        return value[:_STRING_STATS] + "\U0010ffff"  # sorts after whatever was cut off
    return value


def _milliseconds(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{value.microsecond // 1000:03d}Z"
