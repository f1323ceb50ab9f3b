"""Parquet read within a bound: the header of each page is looked at before Arrow makes room for what it announces.

A file of a few kB may hold a page of gigabytes, or a dictionary whose one value stands in every row, and its footer may say anything. The
headers go by as Arrow reads, so looking costs no request. Arrow itself refuses a page that is longer than its header says.

The format: https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift, in Thrift's compact protocol.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from masklake import storage

TOLD_BYTES = 128 * 1024 * 1024
"""Of what a file of images tells beside them: its keys and carried columns, before compression and encoding."""

LONGEST_CELL = 1024 * 1024
"""Bytes of a text: what is longer names no image and labels none."""

_READ_BYTES = 1024 * 1024  # of a column of images at a time
_TEXT_READ_BYTES = 256 * 1024  # less, since it is the more when unpacked
_ALL_ROWS = 1 << 31
_REPEATING_ROWS = 64  # decoded together where each may be as long as its page: writers make pages of 1 MB
_LONGEST_HEADER = 16 * 1024 * 1024  # Arrow's own limit: statistics stand in headers
_DICTIONARY_PAGE, _DELTA_BYTE_ARRAY = 2, 7
_DATA_V1, _DATA_V2 = 5, 8  # fields of a page header, with the place of the encoding in each
_ENCODING = {_DATA_V1: 2, _DATA_V2: 4}
_TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
_SKIPPED = {1: 0, 2: 0, 3: 1, 7: 8}  # true and false, whose type says it, bytes and floats


class TooMuch(pa.ArrowInvalid):  # type: ignore[misc]  # pyarrow has no types
    """Reading on would take more memory than the bound."""


@dataclass(frozen=True)
class Header:
    """What is read of a page's header, and how long it is; sizes in bytes, without the header."""

    kind: int
    size: int
    stored: int
    encoding: int | None
    length: int

    @property
    def repeats(self) -> bool:
        """Whether its values may be longer together than it is, since each says what it has in common with the one before."""
        return self.encoding == _DELTA_BYTE_ARRAY


def parse_header(data: bytes) -> Header | None:
    """The page header at the beginning of some bytes; None where they end too early.

    Raises:
        pa.ArrowInvalid: there is none.
    """
    try:
        values, length = _struct(data, 0)
        data_page = next((number for number in (_DATA_V1, _DATA_V2) if number in values), None)
        encoding = None if data_page is None else values[data_page].get(_ENCODING[data_page])
        header = Header(values[1], values[2], values[3], encoding, length)
    except IndexError:
        return None
    except (KeyError, AttributeError, RecursionError):
        raise pa.ArrowInvalid("a page with an unreadable header") from None
    if min(header.size, header.stored) < 0:
        raise pa.ArrowInvalid("a page of a negative size")
    return header


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise KeyError("no number")


def _integer(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _struct(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    values: dict[int, Any] = {}
    number = 0
    while (head := data[at]) != 0:
        at += 1
        if head >> 4:
            number += head >> 4
        else:
            number, at = _integer(data, at)
        values[number], at = _value(data, at, head & 15)
    return values, at + 1


def _value(data: bytes, at: int, kind: int) -> tuple[Any, int]:
    """A value of one of Thrift's compact types, as far as page headers have them; of texts, only where they end."""
    if kind in (4, 5, 6):
        return _integer(data, at)
    if kind == 8:
        length, at = _varint(data, at)
        return None, at + length
    if kind == 12:
        return _struct(data, at)
    if kind not in _SKIPPED:
        raise KeyError("no type of a page header's")
    return None, at + _SKIPPED[kind]


@dataclass
class Watch:
    """What may be read: so many bytes of pages between two times of `renew`."""

    most: int
    rows_at_once: int = 1
    """Rows that are decoded together: where values may stand in several, a page counts once for each."""
    keeps_dictionaries: bool = False
    """Whether a dictionary's values stay in one place."""
    seen: int = 0

    def renew(self) -> None:
        """What was read is not held any more."""
        self.seen = 0

    def see(self, header: Header) -> None:
        """A page is about to be read.

        Raises:
            TooMuch: it must not be.
        """
        size = max(header.size, header.stored)
        self.seen += size
        if size > self.most:
            raise TooMuch(f"a page of {size:,} bytes, more than the limit of {self.most:,}: write it with smaller pages")
        expands = header.repeats or (header.kind == _DICTIONARY_PAGE and not self.keeps_dictionaries)
        if self.seen > self.most or (expands and size * self.rows_at_once > self.most):
            raise TooMuch(f"rows that take more than the limit of {self.most:,} bytes to read")


@dataclass
class _Walk:
    """The headers of a column's pages in one row group, as they go by."""

    at: int
    end: int
    begun: bytes = b""
    """What there was so far of the header at `at`."""

    def pass_by(self, position: int, data: bytes, watch: Watch) -> None:
        """Some bytes of the file are about to be handed on."""
        while self.at < self.end:
            first = self.at + len(self.begun) - position
            if first >= len(data):
                return
            if first < 0:
                raise pa.ArrowInvalid("its pages are not where its footer says")
            some = self.begun + data[first : first + 256]  # nearly always enough, and cheap to look at
            header = parse_header(some)
            if header is None:
                some = self.begun + data[first:]
                header = parse_header(some)
            if header is None:
                if len(some) > _LONGEST_HEADER:
                    raise pa.ArrowInvalid("a page with an unreadable header")
                self.begun = some
                return
            watch.see(header)
            self.at, self.begun = self.at + header.length + header.stored, b""


@dataclass
class Watched:
    """A file for Arrow to read, as what `pq.ParquetFile` takes."""

    file: BinaryIO
    watch: Watch
    walks: list[_Walk] = field(default_factory=list)
    closed: bool = False

    def follow(self, group: pq.RowGroupMetaData, names: Sequence[str]) -> list[pq.ColumnChunkMetaData]:
        """Look at the pages of some columns of a row group from here on, which are returned: those of these names, and inside them."""
        chunks = [group.column(number) for number in range(group.num_columns)]
        chunks = [chunk for chunk in chunks if is_within(chunk.path_in_schema, names)]
        self.walks = [_walk(chunk) for chunk in chunks]
        return chunks

    def read(self, size: int = -1) -> bytes:
        """Bytes of the file, once they have been looked at."""
        position = self.file.tell()
        data = self.file.read(size)
        for walk in self.walks:
            if position < walk.end and position + len(data) > walk.at + len(walk.begun):
                walk.pass_by(position, data, self.watch)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of a file."""
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        """As of a file."""
        return self.file.tell()

    def readable(self) -> bool:
        """As of a file."""
        return True

    def close(self) -> None:
        """As of a file."""
        self.closed = True
        self.file.close()


def _walk(chunk: pq.ColumnChunkMetaData) -> _Walk:
    start: int = chunk.data_page_offset
    dictionary = chunk.dictionary_page_offset or 0
    start = dictionary if 0 < dictionary < start else start
    return _Walk(start, start + chunk.total_compressed_size)


def is_within(leaf: str, names: Sequence[str]) -> bool:
    """Whether a column of a file, by its dotted path, is one of these or inside one."""
    return any(leaf == name or leaf.startswith(f"{name}.") for name in names)


def open_images(uri: str, most: int) -> tuple[pq.ParquetFile, Watched]:
    """A file whose rows are images, of which at most so many bytes are read at once, and what watches it.

    Raises:
        StorageError: it could not be read, after retries.
        pa.ArrowException, OSError: it is no such file.
    """
    watched = Watched(storage.open_file(uri), Watch(most))
    # Buffered and not ahead: a column of images in one row group may be larger than memory.
    return pq.ParquetFile(watched, buffer_size=_READ_BYTES, pre_buffer=False), watched


def text_batches(source: BinaryIO, names: Sequence[str]) -> Iterator[pa.Table]:
    """Columns of names and the like, in tables of at most `storage.PAGE` rows, of which one is held at a time.

    Raises:
        TooMuch: a value is longer than `LONGEST_CELL`, or a table takes more than `TOLD_BYTES`.
        pa.ArrowException, OSError: it is no such file.
    """
    for table in _texts(source, names, storage.PAGE, renew=True):
        yield plain(table)


def read_text(source: BinaryIO, names: Sequence[str]) -> pa.Table:
    """Columns of names and the like, whole; texts as dictionaries, of which each `storage.PAGE` rows fit into `TOLD_BYTES`.

    Raises:
        TooMuch: they do not, a value is longer than `LONGEST_CELL`, or all of it takes more than `TOLD_BYTES`.
        pa.ArrowException, OSError: it is no such file.
    """
    tables, size = [], 0
    for table in _texts(source, names, _ALL_ROWS, renew=False):
        tables.append(table)
        size += table.nbytes
        if size > TOLD_BYTES:
            raise TooMuch(f"columns of more than the limit of {TOLD_BYTES:,} bytes")
    return pa.concat_tables(tables) if tables else pq.read_schema(source).empty_table()


def _texts(source: BinaryIO, names: Sequence[str], rows: int, *, renew: bool) -> Iterator[pa.Table]:
    metadata = pq.read_metadata(source)
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    chunks = [group.column(number) for group in groups for number in range(group.num_columns)]
    chunks = [chunk for chunk in chunks if is_within(chunk.path_in_schema, names)]
    repeating = {chunk.path_in_schema for chunk in chunks if "DELTA_BYTE_ARRAY" in chunk.encodings}  # Arrow makes no dictionaries of these
    texts = {chunk.path_in_schema for chunk in chunks if chunk.physical_type == "BYTE_ARRAY"} - repeating
    watch = Watch(TOLD_BYTES, keeps_dictionaries=not repeating)
    watched = Watched(source, watch)
    parquet = pq.ParquetFile(watched, metadata=metadata, read_dictionary=sorted(texts), buffer_size=_TEXT_READ_BYTES, pre_buffer=False)
    for number, group in enumerate(groups):
        watched.follow(group, names)
        watch.rows_at_once = max(1, min(rows, _REPEATING_ROWS if repeating else group.num_rows))
        for batch in parquet.iter_batches(watch.rows_at_once, row_groups=[number], columns=list(names)):
            if renew:
                watch.renew()
            table = pa.table(batch)
            _check_cells(table)
            yield table


def _check_cells(table: pa.Table) -> None:
    lengths = np.zeros(table.num_rows, np.int64)
    for name, column in _leaves(table):
        of_each = [_lengths(chunk, name) for chunk in column.chunks]
        lengths += np.concatenate(of_each) if of_each else 0
    if len(lengths) and np.add.reduceat(lengths, np.arange(0, len(lengths), storage.PAGE)).max() > TOLD_BYTES:
        raise TooMuch(f"{storage.PAGE:,} rows that take more than the limit of {TOLD_BYTES:,} bytes to read")


def _lengths(values: pa.Array, name: str) -> Any:
    """How long each of a column's texts is; zeros for other values."""
    spelt = values.dictionary if pa.types.is_dictionary(values.type) else values
    if not any(test(spelt.type) for test in _TEXTS):
        return np.zeros(len(values), np.int64)
    if pa.types.is_string(spelt.type) or pa.types.is_large_string(spelt.type):
        _check_utf8(spelt, name)
    of_each = pc.binary_length(spelt)
    longest = pc.max(of_each).as_py() or 0
    if longest > LONGEST_CELL:
        raise TooMuch(f"a value of {longest:,} bytes in column `{name}`, more than the limit of {LONGEST_CELL:,}")
    of_each = of_each.take(values.indices) if spelt is not values else of_each
    return pc.fill_null(of_each, 0).to_numpy(zero_copy_only=False)


def _check_utf8(texts: pa.Array, name: str) -> None:
    """Arrow takes a file's word for it that a text is one."""
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        raise pa.ArrowInvalid(f"column `{name}` has a text that is not UTF-8") from None


def _leaves(table: pa.Table) -> Iterator[tuple[str, pa.ChunkedArray]]:
    while any(pa.types.is_struct(column.type) for column in table.columns):
        table = table.flatten()
    yield from zip(table.column_names, table.columns, strict=True)


def plain(table: pa.Table) -> pa.Table:
    """The same columns, without dictionaries."""
    kinds: Mapping[str, pa.DataType] = {item.name: item.type for item in table.schema}
    for place, (name, kind) in enumerate(kinds.items()):
        if pa.types.is_dictionary(kind):
            table = table.set_column(place, name, table[name].cast(kind.value_type))
    return table
