"""`--where`: an SQL condition on what a listing tells of an image, and on the hive-style keys of its path. DuckDB's SQL and sentences."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from masklake.database import connect
from masklake.errors import Refused
from masklake.images.pages import PAGE_SCHEMA
from masklake.sql import LOCK, expression, quoted, shown

COLUMNS = {"image_uri": "VARCHAR", "image_bytes": "BIGINT", "image_modified": "TIMESTAMPTZ"}
"""What a condition may name beside keys, and its type; keys are text."""


@dataclass(frozen=True)
class Condition:
    """A condition that DuckDB understands; `keys` are the hive-style keys that it names."""

    text: str
    keys: tuple[str, ...]

    @property
    def sql(self) -> str:
        """To put behind WHERE; a comment at its end is closed."""
        return f"({self.text}\n)"


def parse(text: str) -> Condition:
    """Understand a condition, before anything is listed.

    Raises:
        Refused: it is not SQL, no condition, or names something that does not exist.
    """
    names = [node["column_names"][0] for node in expression(text) if node.get("class") == "COLUMN_REF"]
    keys = tuple(sorted({name for name in names if name.lower() not in COLUMNS}))
    if taken := [name for name in keys if name.lower() in PAGE_SCHEMA.names]:
        raise Refused(f"--where {shown(text)}: {taken[0]} is not known before an image is read; there are {', '.join(COLUMNS)} and keys")
    columns = [*(f"{name} {kind}" for name, kind in COLUMNS.items()), *(f"{quoted(key)} VARCHAR" for key in keys)]
    condition = Condition(text, keys)
    with connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        database.execute(LOCK)
        try:
            # One row of nulls, so that constants which are not times, or not numbers, are looked at as well.
            database.execute(f"CREATE TABLE listed ({', '.join(columns)}); INSERT INTO listed DEFAULT VALUES")
            database.execute(f"SELECT count(*) FROM listed WHERE {condition.sql}")  # noqa: S608 - it is the user's own SQL
        except duckdb.Error as error:
            raise refusal(text, error) from None
    return condition


def refusal(text: str, error: duckdb.Error) -> Refused:
    """DuckDB's sentence on a condition, without the lines that point into a query that nobody has seen."""
    return Refused(f"--where {shown(text)}: {str(error).split(chr(10), 1)[0]}")
