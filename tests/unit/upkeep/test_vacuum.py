"""What a vacuum deletes, and what it must not: files of live runs, and anything that is not this table's."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from masklake.errors import Fenced, MasklakeError
from masklake.table import log, overlap, runs
from masklake.table.runs import Heartbeat
from masklake.upkeep.rewrite import rewrite
from masklake.upkeep.upkeep import UpkeepTable
from masklake.upkeep.vacuum import Vacuumed
from tests.tables import LAKE, begun, compacted, data_files, files, images_in, some_commits, vacuumed

LIVE: dict[str, Any] = {"lease_seconds": 60}
"""Where a heart beats, which a busy machine may keep waiting: it is known at its first beat all the same."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hearts that beat, and looks that come, many times a second."""
    monkeypatch.setattr(runs, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(overlap, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr("masklake.upkeep.vacuum.LOOK_SECONDS", 0.05)


def test_old_versions_files_stay_for_the_hours_asked_for(tmp_path: Path) -> None:
    some_commits(tmp_path).finish_run()
    compacted(tmp_path)
    assert len(data_files(tmp_path)) == 5
    assert vacuumed(tmp_path, 1).files == 0
    long_ago = time.time() - 7200
    for path in (tmp_path / "_delta_log").glob("*.json"):
        os.utime(path, (long_ago, long_ago))
    done = vacuumed(tmp_path, 1)
    assert (done.files, done.bytes > 0, len(data_files(tmp_path))) == (4, True, 1)
    assert images_in(tmp_path) == Counter("abcd")


def test_with_0_hours_only_the_present_version_is_left(tmp_path: Path) -> None:
    some_commits(tmp_path).finish_run()
    compacted(tmp_path)
    assert vacuumed(tmp_path, 0, dry_run=True).files == 4
    assert vacuumed(tmp_path, 0).files == 4
    assert images_in(tmp_path) == Counter("abcd")


def test_leftovers_of_finished_runs_go_and_files_of_live_runs_stay(tmp_path: Path) -> None:
    """A task that was done twice, the second time on a node that was given up, leaves a file which nobody ever commits."""
    finished, live = begun(tmp_path, "run-1", LAKE + "dt=1/"), begun(tmp_path, "run-11", LAKE + "dt=2/")
    heart = Heartbeat(live.uri, live._run)  # type: ignore[arg-type]
    finished.commit(files(finished, "run-1", ["a"]))
    finished.finish_run()
    files(finished, "run-1", ["twice"])
    waiting = files(live, "run-11", ["b"])
    (tmp_path / "task=panoptic" / "dt=2026-11-22" / f".{Path(waiting[0].path).name.replace('run-11', 'run-1')}.7-7.partial").touch()
    assert vacuumed(tmp_path, 0, **LIVE).files == 2
    live.commit(waiting)
    heart.stop()
    assert images_in(tmp_path) == Counter("ab")
    assert len(data_files(tmp_path)) == 2


def test_a_replaced_file_of_a_live_run_is_not_taken_for_one_that_waits(tmp_path: Path) -> None:
    live = some_commits(tmp_path, "ab")
    heart = Heartbeat(live.uri, live._run)  # type: ignore[arg-type]
    waiting = files(live, "run-1", ["c"])
    compacted(tmp_path)
    assert vacuumed(tmp_path, 0, **LIVE).files == 2
    live.commit(waiting)
    heart.stop()
    assert images_in(tmp_path) == Counter("abc")


def test_a_dead_run_is_closed_before_its_files_go(tmp_path: Path) -> None:
    """It may only have been paused: then it must not commit files that are deleted."""
    dead = some_commits(tmp_path, "a")
    waiting = files(dead, "run-1", ["b"])
    assert vacuumed(tmp_path, 168) == Vacuumed(), "it has not been dead for long"
    done = vacuumed(tmp_path, 0)
    assert (done.files, done.dead_runs) == (1, ("run-1",))
    with pytest.raises(Fenced, match="vacuum-1 took this run for dead"):
        dead.commit(waiting)
    assert images_in(tmp_path) == Counter("a")
    assert len(data_files(tmp_path)) == 1
    assert list((tmp_path / "_masklake" / "live").iterdir()) == []


def test_a_compaction_that_was_taken_for_dead_commits_no_more(tmp_path: Path) -> None:
    some_commits(tmp_path, "ab").finish_run()
    with UpkeepTable.job(str(tmp_path), "compact-1", beat=False) as table:
        old = table.files()
        new = rewrite(table, old).file
        assert new
        assert vacuumed(tmp_path, 0).dead_runs == ("compact-1",)
        with pytest.raises(Fenced, match="took this run for dead"):
            table.swap(old, [new])
    assert images_in(tmp_path) == Counter("ab")


def test_files_of_a_live_compaction_stay(tmp_path: Path) -> None:
    some_commits(tmp_path, "ab").finish_run()
    with UpkeepTable.job(str(tmp_path), "compact-1") as table:
        old = table.files()
        new = rewrite(table, old).file
        assert new
        assert vacuumed(tmp_path, 0, **LIVE).files == 0
        assert table.swap(old, [new])
    assert images_in(tmp_path) == Counter("ab")


def test_a_work_list_of_a_run_that_never_began_goes_after_a_week(tmp_path: Path) -> None:
    table = some_commits(tmp_path, "ab")
    old, new, live = (Path(tmp_path, "_masklake", "runs", name, "plan-00000.parquet") for name in ("old", "new", "run-1"))
    for path in (old, new, live):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"work")
    report = old.with_name("report.json")
    report.write_bytes(b"{}")
    for path in (old, live, report):
        os.utime(path, (time.time() - 8 * 86400,) * 2)
    heart = runs.Heartbeat(table.uri, runs.markers(table.uri)[0])
    assert vacuumed(tmp_path, 0, **LIVE).files == 1
    heart.stop()
    assert [path.exists() for path in (old, new, live, report)] == [False, True, True, True]


def test_a_log_that_does_not_reach_back_far_enough_is_no_basis(tmp_path: Path) -> None:
    some_commits(tmp_path, "ab").finish_run()
    DeltaTable(str(tmp_path)).create_checkpoint()
    (tmp_path / "_delta_log" / f"{0:020d}.json").unlink()
    with pytest.raises(MasklakeError, match="does not reach back 24 hours"):
        vacuumed(tmp_path, 24)
    assert images_in(tmp_path) == Counter("ab")


# Whose a file is


PARTITION = Path("task=panoptic", "dt=2026-11-22")


def aged(folder: Path) -> None:
    """Everything below a folder as it would look a year later, so that no time protects it."""
    for path in folder.rglob("*"):
        os.utime(path, (time.time() - 365 * 86400,) * 2)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def left_alone(table: Path, others: Path, hours: float = 0) -> int:
    """Compact and vacuum a table, and see that not a byte of the others' folder is missing; returns how many files went."""
    aged(others)
    before = everything(others)
    assert before
    compacted(table, "compact-2", drop_superseded=True)
    gone = vacuumed(table, hours, "vacuum-2").files
    assert everything(others) == before
    return gone


@pytest.mark.slow
@pytest.mark.parametrize("place", ["val", "task=panoptic/deep", "task=panoptic/dt=2026-11-22/deep", "_val/deep"])
def test_another_table_of_masks_further_down_is_left_alone(tmp_path: Path, place: str) -> None:
    some_commits(tmp_path, "ab").finish_run()
    other = some_commits(tmp_path / place, "cd")
    files(other, "run-1", ["e"])  # and so are its own orphans, though a run of that name is in our log as well
    compacted(tmp_path / place)
    assert left_alone(tmp_path, tmp_path / place / "task=panoptic") == 2, "a and b, and nothing else"
    assert images_in(tmp_path / place) == Counter("cd")
    assert images_in(tmp_path) == Counter("ab")


def test_a_run_that_takes_over_leaves_the_table_further_down_alone(tmp_path: Path) -> None:
    dead = some_commits(tmp_path, "ab")
    files(dead, "run-1", ["c"])
    nested = tmp_path / "task=panoptic" / "dt=2026-11-23"
    files(some_commits(nested, "cd"), "run-1", ["e"])
    shutil.copytree(tmp_path / PARTITION, nested, dirs_exist_ok=True)
    shutil.copytree(tmp_path / "task=panoptic", tmp_path / "kept")
    before = everything(nested), everything(tmp_path / "kept")
    begun(tmp_path, "run-2").finish_run()
    assert len(list((tmp_path / PARTITION).glob("*.parquet"))) == 2, "what the dead run had not committed is gone"
    assert (everything(nested), everything(tmp_path / "kept")) == before


def test_another_programs_table_further_down_is_left_alone(tmp_path: Path) -> None:
    some_commits(tmp_path, "ab").finish_run()
    rows = pa.table({"task": ["panoptic"] * 3, "value": [1, 2, 3]})
    for _ in range(3):
        write_deltalake(tmp_path / "their", rows, partition_by=["task"], mode="append")
    DeltaTable(tmp_path / "their").optimize.compact()
    DeltaTable(tmp_path / "their").create_checkpoint()
    assert left_alone(tmp_path, tmp_path / "their", 0) == 2
    assert DeltaTable(tmp_path / "their").to_pyarrow_table().num_rows == 9
    assert DeltaTable(tmp_path / "their").version() == 3


@pytest.mark.parametrize("place", ["images", "task=panoptic", "task=panoptic/dt=2026-11-22", "dt=2026-11-22", "_staging"])
def test_pictures_in_parquet_and_loose_files_are_left_alone(tmp_path: Path, place: str) -> None:
    some_commits(tmp_path, "ab").finish_run()
    folder = tmp_path / place
    folder.mkdir(exist_ok=True)
    pixels = np.random.default_rng(0).bytes(1000)
    pq.write_table(pa.table({"image": [pixels] * 4}), folder / "train-00000-of-00001.parquet")
    pq.write_table(pa.table({"image": [pixels]}), folder / "part-00000-0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0-c000.snappy.parquet")
    stranger = (
        folder / "part-20261122T120000-abcdef-0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0.parquet"
    )  # as a run names it, but not one of this log
    pq.write_table(pa.table({"image": [pixels]}), stranger)
    (folder / ".part-x.parquet.1-2.partial").write_bytes(pixels)
    aged(folder)
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file() and "run-1" not in path.name}
    compacted(tmp_path)
    assert vacuumed(tmp_path, 0).files == 2
    assert {path: path.read_bytes() for path in before} == before


def test_copies_of_the_tables_files_are_left_alone(tmp_path: Path) -> None:
    table = some_commits(tmp_path, "ab")
    files(table, "run-1", ["c"])
    table.finish_run()
    shutil.copytree(tmp_path / "task=panoptic", tmp_path / "backup" / "task=panoptic")
    shutil.copy(next((tmp_path / PARTITION).iterdir()), tmp_path)
    assert left_alone(tmp_path, tmp_path / "backup") == 2
    assert len(list(tmp_path.glob("*.parquet"))) == 1


def test_the_files_of_a_table_that_was_here_before_are_left_alone(tmp_path: Path) -> None:
    before = some_commits(tmp_path, "ab")
    before.finish_run()
    some_commits(tmp_path, "c", "2026-11-23")  # dies, and leaves its marker
    shutil.rmtree(tmp_path / "_delta_log")
    aged(tmp_path)
    old = everything(tmp_path / "task=panoptic")
    anew = begun(tmp_path, "run-2", "s3://other/")
    anew.commit(files(anew, "run-2", ["d"]))
    anew.finish_run()
    assert vacuumed(tmp_path, 0).dead_runs == ("run-1",)
    assert old.items() <= everything(tmp_path / "task=panoptic").items()


def test_our_own_orphans_go_and_a_dry_run_names_them(tmp_path: Path) -> None:
    finished = begun(tmp_path, "run-1")
    replaced = [*files(finished, "run-1", ["a"]), *files(finished, "run-1", ["b"])]
    finished.commit(replaced)
    finished.finish_run()
    (orphan,) = files(finished, "run-1", ["c"])
    DeltaTable(str(tmp_path)).optimize.compact()
    lines = list[str]()
    assert vacuumed(tmp_path, 0, dry_run=True, say=lines.append).files == 3
    doomed = {file.path for file in (orphan, *replaced)}
    assert {line.removeprefix(f"would delete file://{tmp_path}/") for line in lines} == doomed
    assert doomed <= everything(tmp_path).keys()
    assert vacuumed(tmp_path, 0).files == 3
    assert doomed.isdisjoint(everything(tmp_path))
    assert images_in(tmp_path) == Counter("ab")


def without_first_entries(uri: Path) -> None:
    """Make a checkpoint, and drop the entries before it, as Delta does after 30 days."""
    table = DeltaTable(str(uri))
    table.create_checkpoint()
    for version in range(table.version()):
        (uri / "_delta_log" / f"{version:020d}.json").unlink()


def test_a_checkpoint_names_what_the_dropped_entries_did(tmp_path: Path) -> None:
    run = some_commits(tmp_path, "ab")
    run.finish_run()
    (orphan,) = files(run, "run-1", ["c"])
    compacted(tmp_path)  # what it replaced is in the checkpoint as removed, and run-1 with it
    without_first_entries(tmp_path)
    assert len(data_files(tmp_path)) == 4
    assert vacuumed(tmp_path, 0).files == 3
    assert orphan.path not in everything(tmp_path)
    assert images_in(tmp_path) == Counter("ab")


def test_what_the_log_has_forgotten_stays(tmp_path: Path) -> None:
    """Nobody can say then whose it is."""
    forgotten = begun(tmp_path, "run-1")
    forgotten.finish_run()
    (orphan,) = files(forgotten, "run-1", ["a"])
    known = begun(tmp_path, "run-2")
    known.commit(files(known, "run-2", ["b"]))
    known.finish_run()
    files(known, "run-2", ["c"])
    without_first_entries(tmp_path)
    assert vacuumed(tmp_path, 0).files == 1
    assert orphan.path in everything(tmp_path)
    assert images_in(tmp_path) == Counter("b")


@pytest.mark.parametrize("finishes", [False, True])
def test_what_is_committed_while_we_look_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finishes: bool) -> None:
    """A file that was written before the listing, and committed after the table was read and before its log was."""
    live = some_commits(tmp_path, "a")
    heart = Heartbeat(live.uri, live._run)  # type: ignore[arg-type]
    waiting = files(live, "run-1", ["b"])
    real = log.listed

    def late(table_uri: str) -> log.Listed:
        live.commit(waiting)
        if finishes:
            live.finish_run()
        return real(table_uri)

    monkeypatch.setattr(log, "listed", late)
    assert vacuumed(tmp_path, 0, **LIVE).files == 0
    heart.stop()
    assert images_in(tmp_path) == Counter("ab")


@pytest.mark.parametrize("hours", [0, 1])
def test_what_is_removed_while_we_look_stays_for_the_hours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: float) -> None:
    some_commits(tmp_path, "ab").finish_run()
    real = log.listed

    def late(table_uri: str) -> log.Listed:
        monkeypatch.undo()
        compacted(tmp_path)
        return real(table_uri)

    monkeypatch.setattr(log, "listed", late)
    reader = DeltaTable(str(tmp_path))
    assert vacuumed(tmp_path, hours).files == 0, "they were part of the table when we looked"
    assert reader.to_pyarrow_table().num_rows == 2
