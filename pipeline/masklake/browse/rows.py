"""Single rows with their masks, from the files of the table in which the index has seen them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from masklake import storage
from masklake.browse.index import FILE, ID, PLACE, Index
from masklake.errors import MasklakeError, first_line

_OPEN_FILES, _GROUPS = 8, 8  # kept: a group's masks are a few megabytes

Row = dict[str, Any]


class Rows:
    """Rows by their numbers. May be used by several threads."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._lock = threading.Lock()
        self._files: OrderedDict[int, pq.ParquetFile] = OrderedDict()
        self._groups: OrderedDict[tuple[int, int], pa.ChunkedArray] = OrderedDict()

    def plain(self, number: int) -> Row:
        """A row without its masks: all other columns.

        Raises:
            KeyError: there is no such row.
        """
        found = self._index.rows(f"SELECT * FROM rows WHERE {ID} = {int(number)}")  # noqa: S608
        if not found:
            raise KeyError(number)
        return found[0]

    def whole(self, number: int) -> Row:
        """A row with its masks.

        Raises:
            KeyError: there is no such row.
            MasklakeError: its file cannot be read any more.
        """
        row = self.plain(number)
        try:
            return {**row, "segments": self._segments(row[FILE], row[PLACE])}
        except (pa.ArrowException, OSError) as error:
            raise MasklakeError(
                f"a file of the table cannot be read any more, as after a compaction; start the command again: {first_line(error)}"
            ) from error

    def _segments(self, file: int, place: int) -> list[dict[str, Any]] | None:
        with self._lock:
            source = self._file(file)
            group = 0
            while place >= (rows := source.metadata.row_group(group).num_rows):
                place, group = place - rows, group + 1
            segments: list[dict[str, Any]] | None = self._group(file, group, source)[place].as_py()
            return segments

    def _file(self, number: int) -> pq.ParquetFile:
        if number not in self._files:
            uri = f"{self._index.table_uri}/{self._index.files[number].path}"
            self._files[number] = pq.ParquetFile(storage.open_file(uri))
            if len(self._files) > _OPEN_FILES:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(number)
        return self._files[number]

    def _group(self, file: int, group: int, source: pq.ParquetFile) -> pa.ChunkedArray:
        key = file, group
        if key not in self._groups:
            self._groups[key] = source.read_row_group(group, columns=["segments"])["segments"]
            if len(self._groups) > _GROUPS:
                self._groups.popitem(last=False)
        self._groups.move_to_end(key)
        return self._groups[key]
