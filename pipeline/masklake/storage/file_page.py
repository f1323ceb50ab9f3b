"""Pages of a listing in columns: there are too many files in a lake for an object of Python's each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from masklake.storage.files import StoredFile, is_text

FILES = pa.schema([("uri", pa.string()), ("etag", pa.string()), ("size", pa.int64()), ("modified", pa.timestamp("us", "UTC"))])
"""What a store tells of files, as `StoredFile` has it."""


@dataclass(frozen=True)
class FilePage:
    """Some files of a listing."""

    table: pa.Table
    """Of the schema `FILES`."""
    odd: tuple[StoredFile, ...] = ()
    """Files whose names are not UTF-8, as file systems allow: no column can hold them."""

    @classmethod
    def of(cls, files: Sequence[StoredFile]) -> FilePage:
        """The same files as a page."""
        odd = () if is_text("".join(file.uri for file in files)) else tuple(file for file in files if not is_text(file.uri))
        told = [file for file in files if is_text(file.uri)] if odd else files
        return cls(pa.table([pa.array([getattr(file, field.name) for file in told], field.type) for field in FILES], schema=FILES), odd)

    def __len__(self) -> int:
        return int(self.table.num_rows) + len(self.odd)

    @property
    def uris(self) -> pa.ChunkedArray:
        """The names in `table`."""
        return self.table["uri"]

    def files(self) -> list[StoredFile]:
        """The files one by one."""
        columns = (self.table[field.name].to_pylist() for field in FILES)
        return [StoredFile(*file) for file in zip(*columns, strict=True)] + list(self.odd)

    def keeping(self, chosen: pa.ChunkedArray | pa.Array, odd: Sequence[StoredFile]) -> FilePage:
        """The files of `table` that are chosen, and of `odd` these."""
        return FilePage(self.table if pc.all(chosen).as_py() else self.table.filter(chosen), tuple(odd))
