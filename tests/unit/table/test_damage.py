"""A damaged log or file, and junk among the signs of life, is one sentence that names the file and says what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from masklake import reading
from masklake.errors import MasklakeError
from masklake.table import runs
from masklake.table.append import Table
from masklake.table.runs import Marker
from masklake.upkeep.upkeep import UpkeepTable
from tests.tables import compacted, content, data_files, some_commits


@pytest.fixture
def table(tmp_path: Path) -> Path:
    some_commits(tmp_path, "abc")
    return tmp_path


def refused(call: Callable[[], object], named: str) -> None:
    with pytest.raises(MasklakeError) as told:
        call()
    assert named in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("junk", [b"", b"not json", b"[]", b'{"run_id": 1}', b"\xff\xfe"])
def test_junk_among_the_signs_of_life_is_named(table: Path, junk: bytes) -> None:
    (table / "_masklake" / "live" / "x.json").write_bytes(junk)
    refused(lambda: runs.markers(f"file://{table}"), f"file://{table}/_masklake/live/x.json: this is not the marker of a run")


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed", [{"run_id": "../../../y"}, {"run_id": "y"}, {"seen": "0"}, {"begun": True}, {"stopped": 0}, {"beat": 1.5}, {"table": None}]
)
def test_a_marker_that_names_another_or_has_other_kinds_of_values_is_junk(table: Path, changed: dict[str, object]) -> None:
    """Whoever cleans up deletes by the name that it says."""
    marker = Marker("x", "s3://lake/", begun=-1, seen=0, table="t")
    (table / "_masklake" / "live" / "x.json").write_text(json.dumps(asdict(marker)))
    assert marker in runs.markers(str(table))
    (table / "_masklake" / "live" / "x.json").write_text(json.dumps({**asdict(marker), **changed}))
    refused(lambda: runs.markers(f"file://{table}"), f"file://{table}/_masklake/live/x.json: this is not the marker of a run")


def test_a_damaged_log_is_named(table: Path) -> None:
    entry = sorted((table / "_delta_log").glob("*.json"))[1]
    entry.write_bytes(b"{junk")
    for call in (
        lambda: Table.open(str(table)),
        lambda: reading.open_table(str(table)),
        lambda: UpkeepTable.job(str(table), "job", True).__enter__(),
    ):
        refused(call, f"file://{table}/_delta_log cannot be read: ")


@pytest.mark.parametrize("keep", [0, 100, None])
def test_a_damaged_file_of_the_table_is_named(table: Path, keep: int | None) -> None:
    """Cut short, or with other bytes in its middle."""
    assert content(table).num_rows == 3
    name = sorted(data_files(table))[1]
    (file,) = table.rglob(name)
    data = file.read_bytes()
    file.write_bytes(data[:20] + b"\0" * 200 + data[220:] if keep is None else data[:keep])
    uri = f"file://{table}/{file.relative_to(table)}: this file of the table cannot be read: "
    refused(lambda: reading.open_table(str(table)).rows(), uri)
    refused(lambda: list(reading.open_table(str(table)).newest()), uri)
    refused(lambda: compacted(table), uri)
