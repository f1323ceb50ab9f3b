"""A condition is one SQL expression, whoever evaluates it, and what evaluates it reaches nothing outside."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from masklake import reading
from masklake.errors import Refused
from masklake.sql import LOCK, expression
from tests.tables import some_commits


@pytest.mark.parametrize(
    "text",
    [
        "a = 1; SELECT 1",
        "a = 1 UNION SELECT 1",
        "a = 1 UNION ALL SELECT * FROM read_csv('/etc/passwd')",
        "a = 1) OR (a = 2",
        "true GROUP BY a",
        "true ORDER BY a",
        "true LIMIT 1",
        "true QUALIFY a > 1",
        "a = (SELECT max(a) FROM b)",
        "EXISTS (SELECT 1)",
        "a = 1, a = 2",
        "a = 1 /*",
        "a = $1",
        "",
    ],
)
def test_what_is_not_one_condition_is_refused(text: str) -> None:
    with pytest.raises(Refused) as refusal:
        expression(text)
    assert str(refusal.value).startswith(f"--where {text}: it must be ")
    assert "\n" not in str(refusal.value)


def test_a_condition_gives_its_nodes() -> None:
    nodes = expression("day = '1' AND lower(name) LIKE 'a%' -- and so on")
    assert [node["column_names"] for node in nodes if node.get("class") == "COLUMN_REF"] == [["day"], ["name"]]


@pytest.mark.parametrize(
    "query",
    [
        "FROM read_text('{}')",
        "FROM '{}'",
        "ATTACH '{}'",
        "COPY (SELECT 1) TO '{}'",
        "INSTALL spatial",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "FROM secret",
    ],
)
def test_a_locked_database_reaches_nothing_outside(query: str, tmp_path: Path) -> None:
    file = tmp_path / "there.csv"
    file.write_text("a\n1\n")
    secret = [1]  # a Python variable is not a table, either
    with duckdb.connect() as database:
        database.execute(LOCK)
        with pytest.raises(duckdb.Error):
            database.execute(query.format(file))
    assert (secret, file.read_text()) == ([1], "a\n1\n")


@pytest.mark.slow
def test_a_locked_database_still_spills_to_its_own_folder(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "own.duckdb"), config={"memory_limit": "64MB", "threads": 1}) as database:
        database.execute("SET temp_directory = $folder", {"folder": str(tmp_path / "spill")})
        database.execute(LOCK)
        database.execute("CREATE TABLE numbers AS SELECT md5(i::VARCHAR) AS text FROM range(2_000_000) AS _(i)")
        (rows,) = database.execute("SELECT count(*) FROM (SELECT text, count(*) FROM numbers GROUP BY text)").fetchone() or (0,)
    assert rows == 2_000_000


def test_readers_of_a_table_take_one_condition(tmp_path: Path) -> None:
    some_commits(tmp_path, "abc")
    table = reading.open_table(str(tmp_path))
    only_a = "image_uri LIKE '%a.jpg' -- one of three"
    assert len(table.rows(where=only_a)) == len([*table.newest(where=only_a)]) == 1
    for where in ("status = 'error') OR (1 = 1", "status = 'error' OR 1 = 1 UNION SELECT 1"):  # delta-rs would pass over the end
        with pytest.raises(Refused, match="one SQL condition"):
            table.rows(where=where)
        with pytest.raises(Refused, match="one SQL condition"):
            next(iter(table.newest(where=where)))
