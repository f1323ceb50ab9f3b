"""Single rows with their masks, from the files of the table in which the index has seen them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from masklake.browse.index import FILE, ID, PLACE, Index
from masklake.errors import MasklakeError, first_line
from masklake.table.places import PlacedRows

Row = dict[str, Any]


class Rows:
    """Rows by their numbers. May be used by several threads."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._placed = PlacedRows(("segments",))

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
            uri = f"{self._index.table_uri}/{self._index.files[row[FILE]].path}"
            return {**row, "segments": self._placed.row(uri, row[PLACE])["segments"]}
        except (pa.ArrowException, OSError) as error:
            raise MasklakeError(
                f"a file of the table cannot be read any more, as after a compaction; start the command again: {first_line(error)}"
            ) from error
