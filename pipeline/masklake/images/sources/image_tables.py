"""Images that are values of a table's column: Parquet files, or a Delta table, with the encoded bytes in each row.

The column is binary, or a struct with a binary `bytes` as Hugging Face's datasets have it. An image's URI is the file's with the column and
the row: `s3://lake/part-0.parquet#column=image&row=12`, or, where a column tells the rows apart, `...#column=image&name=a.jpg`. Its etag is
the file's, and so is the time of its change; its size is known once it is read.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate, chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable

from masklake import storage
from masklake.errors import ErrorCode, ImageFailure, Refused
from masklake.images import delta
from masklake.images.ahead import READ_AHEAD_BYTES
from masklake.images.indexes import Indexes
from masklake.images.keys import NOT_ASKED, Asked, hive_keys, kind_in_table
from masklake.images.listing import Tables, There, listed
from masklake.images.opening import Opening, opened
from masklake.images.pages import Place, page, page_of_files
from masklake.images.parquet_pages import TooMuch, open_images, plain, read_text
from masklake.images.source import Input, Source
from masklake.spelling import plural
from masklake.storage import FilePage, StorageError, StoredFile

_NAME = "table"
_SUFFIX = ".parquet"
_MARK = "#column="  # between a file and a row in the URI of an image
_ROW = "row"
_ROWS_AT_ONCE = 16  # decoded together; all of a row group would be too many
_SHOWN = 100  # characters of a value, in a message


class ImageTables(Source):
    """Parquet files or a Delta table, where the input is said to have images in a column."""

    name = _NAME

    def claims(self, asked: Input, there: There) -> bool:
        """Whatever is said to have such a column."""
        del there
        return asked.bytes_column is not None

    def may_hold(self, asked: Input) -> str | None:
        """The files' URIs; a Delta table's log may name files anywhere."""
        files = delta.paths_at(asked.uri) or ()
        return None if any("://" in path for path in files) else super().may_hold(asked)

    def columns(self, asked: Input, names: Sequence[str]) -> pa.Schema:
        """Those of a Delta table; of Parquet files, as many are looked at as it takes to find each name, in the file or in its path."""
        table = delta.table_at(asked.uri)
        return _schema_of_files(asked.uri, names) if table is None else _schema_of_delta(table)

    def pages(self, asked: Input, columns: Asked) -> Iterator[pa.Table]:
        """Every row of every file that is new enough."""
        column = ImageColumn(asked.bytes_column or "", asked.key_column)
        files = chain.from_iterable(_files(asked.uri, asked.tables, asked.allowed))
        new = (file for file in files if asked.since is None or file.modified is None or file.modified >= asked.since)
        return opened(
            Opening(partial(read_footer, file, column, columns)) if storage.is_text(file.uri) else page_of_files(FilePage.of([file]))
            for file in new
        )

    def read(self, places: Sequence[Place], max_bytes: int | None) -> Iterator[bytes | ImageFailure]:
        """The bytes of some rows."""
        return read_rows(places, max_bytes)

    def find(self, uri: str, indexes: Indexes | None) -> Place | None:
        """The place of a row."""
        del indexes
        return find(uri)


@dataclass(frozen=True)
class ImageColumn:
    """Where the bytes are, and what names a row; both may be dotted paths into structs. Without a key, rows have numbers."""

    name: str
    key: str | None = None

    def uris(self, file: str, keys: Sequence[object]) -> list[str]:
        """URIs of rows by their keys or numbers."""
        return [f"{file}{_MARK}{self.name}&{self.key or _ROW}={key}" for key in keys]


@dataclass(frozen=True)
class ImageFile:
    """A Parquet file of images, as it was when its footer was read."""

    file: StoredFile
    column: ImageColumn
    rows: int
    keys: pa.ChunkedArray | None = None
    failure: ImageFailure | None = None
    """Why the file cannot be read."""
    asked: Asked = NOT_ASKED
    told: pa.Table | None = None
    """The columns among those `asked` for that it has."""

    def pages(self) -> Iterator[pa.Table]:
        """Its rows in pages; a file that cannot be read is a row of its own, under its own URI."""
        same = {
            "image_etag": pa.scalar(self.file.etag, pa.string()),
            "image_modified": pa.scalar(self.file.modified, pa.timestamp("us", tz="UTC")),
        }
        for first in range(0, self.rows, storage.PAGE):
            numbers = np.arange(first, min(first + storage.PAGE, self.rows))
            keys = numbers.tolist() if self.keys is None else self.keys.slice(first, len(numbers)).to_pylist()
            uris = self.column.uris(self.file.uri, keys)
            told = None if self.told is None else self.asked.tell(plain(self.told.slice(first, len(numbers))))
            place = {"image_container": pa.scalar(len(self.file.uri)), "image_start": numbers, "image_source": pa.scalar(_NAME)}
            yield page(uris, image_keys=told, **place, **same)
        if self.failure is not None:
            bad = {"error_code": [str(self.failure.code)], "error_message": [self.failure.message]}
            yield page([self.file.uri], image_source=pa.scalar(_NAME), **bad, **same)


def _files(uri: str, tables: Tables, allowed: Sequence[str] = ()) -> Iterator[list[StoredFile]]:
    """The files of a Delta table, or the Parquet files of a listing that lie in no table further down.

    Raises:
        Refused: there are files, and none is Parquet; or the Delta table cannot be read.
    """
    of_delta = delta.files_at(uri, allowed)
    if of_delta is not None:
        yield from of_delta
        return
    other: str | None = None
    found = False
    for page_of_some in listed(uri, tables):
        some = page_of_some.files()
        files = [file for file in some if file.uri.endswith(_SUFFIX)]
        found = found or bool(files)
        other = next((file.uri for file in some if not file.uri.endswith(_SUFFIX)), other)
        yield files
    if other is not None and not found:
        raise Refused(f"--input {uri}: with --bytes-column it holds Parquet files; there is none, but {other}")


def _schema_of_delta(table: DeltaTable) -> pa.Schema:
    """The columns that its files hold, which are all but those of its partitioning."""
    partition_by = table.metadata().partition_columns
    return pa.schema([column for column in pa.schema(table.schema().to_arrow()) if column.name not in partition_by])


def _schema_of_files(uri: str, names: Sequence[str]) -> pa.Schema:
    found: dict[str, pa.Field] = {}
    settled: set[str] = set()
    for file in chain.from_iterable(_files(uri, Tables())):
        columns = [column for column in _schema_of_file(file.uri) if column.name in names and column.name not in settled]
        found |= {column.name: column for column in columns}
        settled |= {column.name for column in columns if not pa.types.is_null(column.type)} | hive_keys(file.uri).keys()
        if settled.issuperset(names):
            break
    return pa.schema(list(found.values()))


def _schema_of_file(uri: str) -> pa.Schema:
    """The columns of a Parquet file; none where it cannot be read."""
    try:
        with storage.open_file(uri) as source:
            return pq.read_schema(source)
    except (StorageError, pa.ArrowException, OSError):
        return pa.schema([])


def read_footer(file: StoredFile, column: ImageColumn, asked: Asked = NOT_ASKED) -> ImageFile:
    """What a Parquet file holds, without any image: its footer, the keys where there are any, and the columns that are asked for.

    Raises:
        Refused: it has no such column, the keys do not tell its rows apart, or a column to carry is of another type than elsewhere.
    """
    (found,) = storage.stat_many([file.uri])
    if isinstance(found, ImageFailure):
        return ImageFile(file, column, 0, failure=found)
    try:
        with storage.open_file(file.uri) as source:
            parquet = pq.ParquetFile(source)
            _leaf(file.uri, parquet.schema_arrow, column.name)
            schema = parquet.schema_arrow
            columns = [name for name in asked.columns(schema, file.uri) if kind_in_table(schema.field(name).type) is not None]
            if column.key is not None:
                _field(file.uri, schema, column.key, "--key-column")
            named = list(dict.fromkeys([*columns, *([] if column.key is None else [column.key])]))
            told = read_text(source, named) if named else None
            keys = None if column.key is None or told is None else _check_keys(file.uri, told, column.key)
            told = None if told is None or not columns else told.select(columns)
            return ImageFile(found, column, parquet.metadata.num_rows, keys, asked=asked, told=told)
    except TooMuch as error:
        return ImageFile(found, column, 0, failure=ImageFailure(ErrorCode.TOO_LARGE, f"beside its images, the file has {error}"))
    except StorageError as error:
        return ImageFile(found, column, 0, failure=ImageFailure(error.code, str(error)))
    except (pa.ArrowException, OSError) as error:
        failure = ImageFailure(ErrorCode.BROKEN, f"not a Parquet file that can be read: {error}")
        return ImageFile(found, column, 0, failure=failure)


def _check_keys(uri: str, rows: pa.Table, key: str) -> pa.ChunkedArray:
    keys = _unnest(rows.to_batches(), key)
    if keys.null_count:
        raise Refused(f"--key-column {key}: {plural(keys.null_count, f'row of {uri} has', f'rows of {uri} have')} none")
    twice = None
    for chunk in keys.chunks:  # as dictionaries: one value in every row would be long only where it is spelt out
        if pa.types.is_dictionary(chunk.type) and len(chunk) and (counts := np.bincount(chunk.indices.to_numpy())).max() > 1:
            twice = chunk.dictionary[int(counts.argmax())].as_py()
            break
    else:
        keys = keys.cast(pa.string())
        if pc.count_distinct(keys).as_py() < len(keys):
            counted = pc.value_counts(keys)
            twice = counted.filter(pc.greater(counted.field("counts"), 1))[0].as_py()["values"]
    if twice is not None:
        raise Refused(f"--key-column {key}: it does not tell rows apart; {uri} has {_beginning(twice)!r} more than once")
    return keys


def _beginning(value: Any) -> Any:
    """A value as a message has it."""
    return f"{value[:_SHOWN]}..." if isinstance(value, str) and len(value) > _SHOWN else value


def read_rows(places: Iterable[Place], max_bytes: int | None) -> Iterator[bytes | ImageFailure]:
    """The bytes of some rows, in order, each read when it is asked for, each failure a value. Fastest where they come in their order."""
    lost: dict[str, ImageFailure] = {}  # files that the store did not give: asking again for each row would take long
    for place in places:
        try:
            content = lost.get(place.container) or _read_row(place, max_bytes)
        except StorageError as error:
            content = lost[place.container] = ImageFailure(error.code, str(error))
        yield content


def _read_row(place: Place, max_bytes: int | None) -> bytes | ImageFailure:
    column = place.uri.removeprefix(place.container + _MARK).partition("&")[0]
    try:
        value = _reader(place.container, place.etag, column, max(READ_AHEAD_BYTES, max_bytes or READ_AHEAD_BYTES)).value(place.start)
    except StorageError:
        _reader.cache_clear()  # it stopped in the middle
        raise
    except TooMuch as error:
        return ImageFailure(ErrorCode.TOO_LARGE, f"its row group has {error}")
    except (pa.ArrowException, OSError, Refused) as error:
        _reader.cache_clear()
        return ImageFailure(ErrorCode.BROKEN, f"the row cannot be read: {error}")
    if value is None:
        return ImageFailure(ErrorCode.EMPTY, "the row has no bytes")
    if max_bytes is not None and len(value) > max_bytes:
        return ImageFailure(ErrorCode.TOO_LARGE, f"{len(value)} bytes, more than the limit of {max_bytes}")
    return value


@lru_cache(maxsize=1)
def _reader(uri: str, etag: str | None, column: str, most: int) -> _Forwards:
    """The reader of the file that was last read: the next group of work often goes on where the one before ended."""
    return _Forwards(uri, etag, column, most)


class _Forwards:
    """Values of one column by row number, a few in memory at a time; goes forwards without reading anything twice."""

    def __init__(self, uri: str, etag: str | None, column: str, most: int) -> None:
        (found,) = storage.stat_many([uri])
        if isinstance(found, ImageFailure):
            raise StorageError(uri, found)
        if found.etag != etag:
            raise StorageError(uri, ImageFailure(ErrorCode.CHANGED, "it has changed since it was listed"))
        self._file, self._watched = open_images(uri, most)
        self._leaf = _leaf(uri, self._file.schema_arrow, column)
        counts = [self._file.metadata.row_group(group).num_rows for group in range(self._file.num_row_groups)]
        self._starts = list(accumulate(counts, initial=0))
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._first, self._values, self._group = 0, pa.chunked_array([], pa.binary()), -1
        self._refused: dict[int, TooMuch] = {}  # row groups of which nothing can be read

    def value(self, row: int) -> bytes | None:
        """The value of a row.

        Raises:
            TooMuch: its row group cannot be read within the bound.
        """
        group = bisect_right(self._starts, row) - 1
        if group in self._refused:
            raise self._refused[group]
        try:
            return self._value(row, group)
        except TooMuch as error:
            self._refused[group], self._group = error, -1
            raise

    def _value(self, row: int, group: int) -> bytes | None:
        if group != self._group or row < self._first:
            self._begin(group)
        while row >= self._first + len(self._values):
            self._first += len(self._values)
            self._values = self._values.slice(0, 0)
            self._watched.watch.renew()
            batch = next(self._batches, None)
            if batch is None:
                raise pa.ArrowInvalid("the file has fewer rows than its footer says")
            self._values = _unnest([batch], self._leaf)
        value: bytes | None = self._values[row - self._first].as_py()
        return value

    def _begin(self, group: int) -> None:
        found = self._file.metadata.row_group(group)
        chunks = (found.column(number) for number in range(found.num_columns))
        rows = _rows_at_once(next(chunk for chunk in chunks if chunk.path_in_schema == self._leaf))
        self._watched.follow(found, [self._leaf])
        self._watched.watch.rows_at_once = rows
        self._batches = self._file.iter_batches(rows, row_groups=[group], columns=[self._leaf])
        self._first, self._values, self._group = self._starts[group], self._values.slice(0, 0), group


def _rows_at_once(chunk: pq.ColumnChunkMetaData) -> int:
    """As many as may be decoded together, as the footer has it: where values may repeat, each may be as large as all of them."""
    size = int(chunk.total_uncompressed_size)
    expands = any("DICTIONARY" in encoding or encoding == "DELTA_BYTE_ARRAY" for encoding in chunk.encodings)
    each = size if expands else size // max(1, chunk.num_values)
    return max(1, min(_ROWS_AT_ONCE, READ_AHEAD_BYTES // max(1, each)))


def find(uri: str) -> Place | None:
    """The place of an image by its URI; None where it is no row's, or there is no such row."""
    container, mark, rest = uri.partition(_MARK)
    column, _, pair = rest.partition("&")
    key, _, value = pair.partition("=")
    if not mark or not value or not storage.is_canonical(container):
        return None
    try:
        found = read_footer(StoredFile(container, None, None, None), ImageColumn(column, None if key == _ROW else key))
    except Refused:
        return None
    if found.keys is not None:
        row = pc.index(found.keys, value).as_py()
    else:
        row = int(value) if value.isdecimal() and int(value) < found.rows else -1
    return None if row < 0 else Place(uri, container, found.file.etag, row)


def _leaf(uri: str, schema: pa.Schema, column: str) -> str:
    """The dotted path of the bytes themselves.

    Raises:
        Refused: there is no such column, or it holds no bytes.
    """
    kind = _field(uri, schema, column, "--bytes-column").type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and _is_binary(kind.field("bytes").type):
        return f"{column}.bytes"
    if not _is_binary(kind):
        raise Refused(f"--bytes-column {column}: it is {kind} in {uri}, and should be binary, or a struct with a binary `bytes`")
    return column


def _is_binary(kind: pa.DataType) -> bool:
    return any(test(kind) for test in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view))


def _field(uri: str, schema: pa.Schema, path: str, setting: str) -> pa.Field:
    """The field at a dotted path."""
    names, found = schema.names, None
    fields: Iterable[pa.Field] = schema
    for name in path.split("."):
        found = next((field for field in fields if field.name == name), None)
        if found is None:
            raise Refused(f"{setting} {path}: {uri} has no such column; it has {', '.join(names)}")
        fields = [found.type.field(index) for index in range(found.type.num_fields)] if pa.types.is_struct(found.type) else []
    return found


def _unnest(batches: Sequence[pa.RecordBatch], path: str) -> pa.ChunkedArray:
    """The values at a dotted path, of batches in which there is nothing else."""
    name, *inner = path.split(".")
    chunks = [batch.column(name) for batch in batches]
    for _ in inner:
        chunks = [chunk.flatten()[0] for chunk in chunks]  # and not `field`, which forgets where the struct itself is null
    return pa.chunked_array(chunks, None if chunks else pa.string())
