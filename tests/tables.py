"""Tables to write to, by one run or by several processes at once."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from masklake.table import runs
from masklake.table.append import Table
from masklake.table.write import FileRecord, write_rows
from masklake.upkeep.compact import Compaction, compact
from masklake.upkeep.upkeep import UpkeepTable
from masklake.upkeep.vacuum import Vacuumed, vacuum
from tests.answers import rows

LAKE = "s3://lake/images/"
BY = ("task", "dt")


def begun(uri: Path | str, run_id: str, scope: str = LAKE) -> Table:
    """A run that has just begun on this table, and does not respond from then on."""
    table = Table.open_or_create(str(uri), BY)
    table.begin_run(scope, run_id, beat=False)
    return table


def lose_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next commit is made, and whoever makes it hears that its connection broke."""
    real = DeltaTable.create_write_transaction

    def lossy(self: DeltaTable, *arguments: Any, **more: Any) -> None:
        real(self, *arguments, **more)
        monkeypatch.undo()
        raise OSError("connection reset")

    monkeypatch.setattr(DeltaTable, "create_write_transaction", lossy)


def files(table: Table, run_id: str, names: list[str], day: str = "2026-11-22", **more: Any) -> list[FileRecord]:
    """What a worker of this run writes for images with these names."""
    uris = [f"{LAKE}dt={day}/{name}.jpg" for name in names]
    return write_rows(rows(uris, run_id, BY, dt=[day] * len(uris), **more), table.uri, BY, run_id)


def compacted(uri: Path, job_id: str = "compact-1", target: int = 128_000_000, **more: Any) -> Compaction:
    """Compact a table, as the job does."""
    with UpkeepTable.job(str(uri), job_id, more.get("dry_run", False), beat=False) as table:
        return compact(table, target, say=lambda text: None, **more)


def vacuumed(uri: Path, hours: float = 0, job_id: str = "vacuum-1", **more: Any) -> Vacuumed:
    """Vacuum a table, as the job does; a run is dead that showed no sign of life for 0.3 s."""
    with UpkeepTable.job(str(uri), job_id, more.get("dry_run", False), beat=False) as table:
        return vacuum(table, hours, **{"lease_seconds": 0.3, "say": lambda text: None, **more})


def content(uri: Path | str, **version: Any) -> pa.Table:
    """Every row, as delta-rs and pyarrow read it, in a fixed order."""
    return DeltaTable(str(uri), **version).to_pyarrow_table().sort_by([("image_uri", "ascending"), ("run_id", "ascending")])


def images_in(uri: Path | str) -> Counter[str]:
    """How many rows each image has, by its name."""
    return Counter(name.rpartition("/")[2].removesuffix(".jpg") for name in content(uri)["image_uri"].to_pylist())


def data_files(folder: Path) -> set[str]:
    """The names of the Parquet files below a folder, whether the table holds them or not."""
    return {path.name for path in folder.rglob("*.parquet") if "_delta_log" not in path.parts}


def some_commits(uri: Path, names: str = "abcd", day: str = "2026-11-22") -> Table:
    """A run under way that has committed a file for each of these names."""
    table = begun(uri, "run-1")
    for name in names:
        table.commit(files(table, "run-1", [name], day))
    return table


def write_together(uri: str, processes: int = 2, threads: int = 2, commits: int = 5, until: Path | None = None) -> Counter[str]:
    """Runs that commit to one table at once, each on its own day's images; returns the names that must then be in the table.

    Args:
        until: before the last commit of each, somebody must have made this file.
    """
    command = [sys.executable, "-m", "tests.tables", uri, str(threads), str(commits), "" if until is None else str(until)]
    writers = [subprocess.Popen([*command, f"process{number}"]) for number in range(processes)]
    try:
        assert [writer.wait(200) for writer in writers] == [0] * processes
    finally:
        for writer in writers:
            writer.kill()
    return Counter(_name(f"process{p}-{t}", c) for p in range(processes) for t in range(threads) for c in range(commits))


def _name(run_id: str, commit: int) -> str:
    return f"{run_id}-{commit}"


def _write(uri: str, run_id: str, commits: int, until: str) -> None:
    table = Table.open_or_create(uri, BY)
    table.begin_run(f"{LAKE}dt={run_id}/", run_id)
    for commit in range(commits):
        while until and commit == commits - 1 and not Path(until).exists():
            time.sleep(0.02)
        table.commit(files(table, run_id, [_name(run_id, commit)], run_id))
    table.finish_run()


if __name__ == "__main__":
    runs.BEAT_SECONDS = 0.2
    uri, threads, commits, until, name = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda thread: _write(uri, f"{name}-{thread}", commits, until), range(threads)))
