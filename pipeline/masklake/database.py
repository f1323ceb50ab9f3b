"""DuckDB's databases, whose queries end with a stop: without being told, DuckDB goes on until all of a step's rows are through."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import duckdb

from masklake import stopping


def connect(
    path: Path | None = None, config: Mapping[str, str | bool | int | float | list[str]] | None = None
) -> duckdb.DuckDBPyConnection:
    """Open a database, to be closed: the file at `path`, or one in memory, with DuckDB's settings `config`."""
    opened = duckdb.connect(str(path) if path else ":memory:", config=dict(config or {}))
    stopping.interrupt(opened)
    return opened
