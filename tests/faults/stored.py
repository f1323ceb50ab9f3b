"""What a lake and its table hold at one moment, and what they should."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from tests.faults.log import Commit, present
from tests.faults.pictures import Picture

Key = tuple[str, str, str]
"""Image, etag, task."""


@dataclass
class Expected:
    """What was put into a lake, and what was asked for."""

    history: dict[str, list[Picture | None]] = field(default_factory=dict)
    """All versions of each image by URI, the present one last; None: it was deleted."""
    gone: set[Key] = field(default_factory=set)
    """Rows that were to be taken out of the table."""
    others: dict[str, str] = field(default_factory=dict)
    """Objects that are not the table's, by key, with their etags."""

    def picture(self, uri: str, etag: str) -> Picture | None:
        """The version of an image with an etag, if there ever was one."""
        return next((each for each in self.history.get(uri, ()) if each is not None and each.etag == etag), None)

    def keys(self, tasks: Sequence[str]) -> set[Key]:
        """What the table must have an answer to."""
        now = {uri: versions[-1] for uri, versions in self.history.items()}
        return {(uri, picture.etag, task) for uri, picture in now.items() if picture for task in tasks} - self.gone


@dataclass(frozen=True)
class Stored:
    """What the store says, by its own listing and bytes; paths are relative to the table."""

    log: Sequence[Commit]
    sizes: Mapping[str, int]
    """Of every object below the table's folder."""
    data: Mapping[str, bytes]
    """The Parquet files, whether the table holds them or not."""
    pages: Mapping[str, bytes]
    """Galleries and reports."""
    by_delta: frozenset[str]
    """The table's files as deltalake has them."""
    etags: Mapping[str, str]
    """Of every object of the bucket that is not below the table's folder, and of those there that are others', by key."""

    def rows(self, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """All rows of the table's present files, as far as these are there."""
        return [row for path in present(self.log) if path in self.data for row in rows_of(path, self.data[path], columns)]


def rows_of(path: str, content: bytes, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The rows of one file, with what its folders say."""
    table = pq.read_table(io.BytesIO(content), partitioning=None)
    for name, _, value in (part.partition("=") for part in path.split("/")[:-1]):
        table = table.append_column(name, pa.array([unquote(unquote(value))] * len(table), pa.string()))
    rows: list[dict[str, Any]] = (table.select(list(columns)) if columns else table).to_pylist()
    return rows
