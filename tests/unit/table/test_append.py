from __future__ import annotations

import json
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import CommitProperties, DeltaTable

from masklake import storage
from masklake.errors import Fenced, MasklakeError, Refused
from masklake.table import runs
from masklake.table.append import Table
from masklake.table.keys import Wanted
from masklake.upkeep.upkeep import UpkeepTable
from tests.answers import FINGERPRINTS
from tests.tables import BY, LAKE, begun, files, lose_an_answer, write_together


def images_in(uri: Path | str) -> Counter[str]:
    found = DeltaTable(str(uri)).to_pyarrow_table(columns=["image_uri"])["image_uri"].to_pylist()
    return Counter(name.rpartition("/")[2].removesuffix(".jpg") for name in found)


def data_files(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("part-*.parquet")}


# Opening


def test_there_is_no_table_before_it_is_created(tmp_path: Path) -> None:
    assert Table.open(str(tmp_path / "masks"), BY) is None
    assert not (tmp_path / "masks").exists()
    created = Table.open_or_create(str(tmp_path / "masks"), BY)
    opened = Table.open(str(tmp_path / "masks") + "/", BY)
    assert opened is not None
    assert (opened.uri, opened.version) == (created.uri, 0)


def test_another_partitioning_is_refused_with_both_named(tmp_path: Path) -> None:
    Table.open_or_create(str(tmp_path), BY)
    with pytest.raises(Refused, match=r"--partition-by task: the table file://\S+ is partitioned by task,dt; say --partition-by task,dt"):
        Table.open_or_create(str(tmp_path), ["task"])


def test_a_delta_table_of_something_else_is_refused(tmp_path: Path) -> None:
    prices = pa.schema([("task", pa.string()), ("dt", pa.string()), ("price", pa.float64())])
    DeltaTable.create(str(tmp_path), prices, partition_by=list(BY))
    with pytest.raises(Refused, match=r"--output file://\S+: the Delta table there has other columns .*price"):
        Table.open(str(tmp_path), BY)


def test_many_can_create_it_at_once(tmp_path: Path) -> None:
    """Once: a second creation on top of the first would replace its schema and partitioning."""
    for number in range(8):
        uri = str(tmp_path / f"masks-{number}")
        with ThreadPoolExecutor(4) as pool:
            tables = list(pool.map(lambda _, uri=uri: Table.open_or_create(uri, BY), range(4)))
        assert [table.version for table in tables] == [0] * 4


# Committing


def test_only_committed_files_are_in_the_table_and_all_of_a_commit_are(tmp_path: Path) -> None:
    table = begun(tmp_path, "run-1")
    files(table, "run-1", ["lost"])
    table.commit(files(table, "run-1", ["a", "b"]) + files(table, "run-1", ["c"], "2026-11-23"))
    table.commit([])
    table.commit(files(table, "run-1", ["d"]))
    assert images_in(tmp_path) == Counter("abcd")
    assert table.rows_of_run("run-1") == 4
    assert table.rows_of_run("run-2") == 0


def test_nothing_is_committed_before_a_run_has_begun(tmp_path: Path) -> None:
    table = Table.open_or_create(str(tmp_path), BY)
    with pytest.raises(MasklakeError, match="before a run has begun"):
        table.commit(files(table, "run-1", ["a"]))


def test_a_commit_whose_answer_got_lost_is_not_made_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = begun(tmp_path, "run-1")
    lose_an_answer(monkeypatch)
    table.commit(files(table, "run-1", ["a"]))
    assert DeltaTable(str(tmp_path)).version() == 2  # created, begun, committed once


def test_a_store_that_takes_no_commit_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = begun(tmp_path, "run-1")

    def broken(self: DeltaTable, *arguments: Any, **more: Any) -> None:
        raise OSError("no \x1b[31mspace\x1b[0m\n   left\n")

    monkeypatch.setattr(DeltaTable, "create_write_transaction", broken)
    monkeypatch.setattr("masklake.table.append.time.sleep", lambda seconds: None)
    with pytest.raises(MasklakeError, match=r"cannot be committed to: no space left$"):
        table.commit(files(table, "run-1", ["a"]))


# The fence


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        (LAKE, LAKE),
        (LAKE, LAKE + "dt=2026-11-22/"),
        (LAKE + "dt=2026-11-22/", LAKE.rstrip("/")),
        (LAKE, LAKE + "**/*.png"),
        (LAKE + "dt=2026-11-2*/*.jpg", LAKE + "dt=2026-11-22/"),
        ("s3://lake/today.parquet", "s3://lake/today.parquet"),
        (LAKE, LAKE + "dt=2026-11-22/a.jpg"),
        (LAKE + "{dt=1,dt=2026-11-22}/", LAKE + "dt=2026-11-{21,22}/"),
    ],
)
def test_a_newer_run_on_overlapping_input_takes_over(tmp_path: Path, older: str, newer: str) -> None:
    first = begun(tmp_path, "run-1", older)
    first.commit(files(first, "run-1", ["a"]))
    second = begun(tmp_path, "run-2", newer)
    late = files(first, "run-1", ["b"])
    for _ in range(2):  # and it stays fenced
        with pytest.raises(Fenced, match="run-2"):
            first.commit(late)
    second.commit(files(second, "run-2", ["b"]))
    assert images_in(tmp_path) == Counter("ab")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("left", "right"),
    [
        (LAKE + "dt=2026-11-22/", LAKE + "dt=2026-11-23/"),
        (LAKE + "dt=1", LAKE + "dt=10"),
        (LAKE + "dt=2026-10-*/*.jpg", LAKE + "dt=2026-11-*/*.jpg"),
        ("s3://lake/monday.parquet", "s3://lake/tuesday.parquet"),
        (LAKE + "{train,val}/*.{jpg,png}", LAKE + "test/"),
    ],
)
def test_runs_on_disjoint_input_go_on_side_by_side(tmp_path: Path, left: str, right: str) -> None:
    first, second = begun(tmp_path, "run-1", left), begun(tmp_path, "run-2", right)
    for name in "abc":
        first.commit(files(first, "run-1", [name]))
        second.commit(files(second, "run-2", [name.upper()], "2026-11-23"))
    assert images_in(tmp_path) == Counter("abcABC")


def test_a_run_that_began_while_a_commit_was_on_its_way_fences_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The moment between looking at the log and committing belongs to the store, not to us."""
    first = begun(tmp_path, "run-1")
    late = files(first, "run-1", ["a"])
    real = DeltaTable.create_write_transaction

    def overtaken(self: DeltaTable, *arguments: Any, **more: Any) -> None:
        monkeypatch.undo()
        begun(tmp_path, "run-2")
        real(self, *arguments, **more)

    monkeypatch.setattr(DeltaTable, "create_write_transaction", overtaken)
    with pytest.raises(Fenced, match="run-2"):
        first.commit(late)
    assert images_in(tmp_path) == Counter()


def test_a_run_that_is_overtaken_as_it_begins_is_fenced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = DeltaTable.create_write_transaction

    def overtaken(self: DeltaTable, *arguments: Any, **more: Any) -> None:
        monkeypatch.undo()
        real(self, *arguments, **more)
        begun(tmp_path, "run-2")

    monkeypatch.setattr(DeltaTable, "create_write_transaction", overtaken)
    with pytest.raises(Fenced, match="run-2"):
        begun(tmp_path, "run-1")


def test_reading_goes_on_behind_a_fence(tmp_path: Path) -> None:
    first = begun(tmp_path, "run-1")
    first.commit(files(first, "run-1", ["a"]))
    begun(tmp_path, "run-2")
    assert first.rows_of_run("run-1") == 1


def test_maintenance_by_others_does_not_fence(tmp_path: Path) -> None:
    table = begun(tmp_path, "run-1")
    for name in "ab":
        table.commit(files(table, "run-1", [name]))
    compacted = DeltaTable(str(tmp_path)).optimize.compact()
    assert compacted["numFilesRemoved"] == 2
    table.commit(files(table, "run-1", ["c"]))
    assert images_in(tmp_path) == Counter("abc")
    assert table.rows_of_run("run-1") == 3


@pytest.mark.slow
def test_no_commit_of_many_processes_is_lost(tmp_path: Path) -> None:
    expected = write_together(str(tmp_path))
    assert images_in(tmp_path) == expected
    assert list((tmp_path / "_masklake" / "live").iterdir()) == []


# What is left behind


def test_a_run_deletes_what_the_runs_it_fenced_left_uncommitted(tmp_path: Path) -> None:
    dead, finished = begun(tmp_path, "run-1", LAKE + "dt=2026-11-22/"), begun(tmp_path, "run-2", LAKE + "dt=2026-11-23/")
    dead.commit(committed := files(dead, "run-1", ["a"]))
    orphans = files(dead, "run-1", ["b"])
    finished.commit(files(finished, "run-2", ["c"], "2026-11-23"))
    finished.finish_run()
    begun(tmp_path, "run-3").finish_run()
    assert {Path(record.path).name for record in committed} <= data_files(tmp_path)
    assert {Path(record.path).name for record in orphans}.isdisjoint(data_files(tmp_path))
    assert images_in(tmp_path) == Counter("ac")
    assert list((tmp_path / "_masklake" / "live").iterdir()) == []


def test_files_of_live_runs_on_other_input_stay(tmp_path: Path) -> None:
    live = begun(tmp_path, "run-1", LAKE + "dt=2026-11-22/")
    waiting = files(live, "run-1", ["a"])
    other = begun(tmp_path, "run-11", LAKE + "dt=2026-11-23/")
    other.finish_run()
    live.commit(waiting)
    assert images_in(tmp_path) == Counter("a")


def test_files_that_a_compaction_replaced_stay_until_the_vacuum(tmp_path: Path) -> None:
    """Readers of an older version still need them."""
    dead = begun(tmp_path, "run-1")
    for name in "ab":
        dead.commit(files(dead, "run-1", [name]))
    before = data_files(tmp_path)
    DeltaTable(str(tmp_path)).optimize.compact()
    begun(tmp_path, "run-2")
    assert before <= data_files(tmp_path)
    assert images_in(tmp_path) == Counter("ab")


def test_files_written_after_the_fence_go_when_the_newer_run_is_over(tmp_path: Path) -> None:
    """A fenced run learns of it only when it commits."""
    older = begun(tmp_path, "run-1")
    newer = begun(tmp_path, "run-2")
    files(older, "run-1", ["a"])
    storage.write_bytes(older.run_folder("run-1") + "plan-00000.parquet", b"work")
    storage.write_bytes(older.run_folder("run-1") + "report.json", b"{}")
    newer.commit(files(newer, "run-2", ["a"]))
    newer.finish_run()
    assert len(data_files(tmp_path)) == 1
    assert [path.name for path in (tmp_path / "_masklake" / "runs" / "run-1").iterdir()] == ["report.json"]


def test_a_run_that_ends_deletes_what_its_repeated_writes_left(tmp_path: Path) -> None:
    table, other = begun(tmp_path, "run-1"), begun(tmp_path, "run-2", "s3://other/")
    waiting = files(other, "run-2", ["x"])
    files(table, "run-1", ["a", "b"])  # its worker died, and the same rows were written again
    table.commit(files(table, "run-1", ["a", "b"]))
    table.finish_run()
    other.commit(waiting)
    assert images_in(tmp_path) == Counter("abx")
    assert len(data_files(tmp_path)) == 2


def test_a_fenced_run_takes_away_what_its_workers_wrote_after_the_newer_one_was_over(tmp_path: Path) -> None:
    older = begun(tmp_path, "run-1")
    older.commit(files(older, "run-1", ["a"]))
    newer = begun(tmp_path, "run-2")
    newer.commit(files(newer, "run-2", ["b"]))
    newer.finish_run()
    runs.mark(older.uri, runs.Marker("run-1", LAKE, begun=1, seen=0, beat=9, table=older.table_id))  # a paused heart beats once more
    with pytest.raises(Fenced):
        older.commit(files(older, "run-1", ["b"]))
    older.clean_up_if_fenced()
    assert images_in(tmp_path) == Counter("ab")
    assert len(data_files(tmp_path)) == 2
    assert runs.markers(older.uri) == []


def test_without_the_log_entries_nothing_is_deleted(tmp_path: Path) -> None:
    dead = begun(tmp_path, "run-1")
    for name in "ab":
        dead.commit(files(dead, "run-1", [name]))
    orphans = files(dead, "run-1", ["c"])
    DeltaTable(str(tmp_path)).create_checkpoint()
    (tmp_path / "_delta_log" / f"{2:020d}.json").unlink()
    begun(tmp_path, "run-2")
    assert {Path(record.path).name for record in orphans} <= data_files(tmp_path)


# What the plan asks


def test_done_keys_are_those_of_the_fingerprints_asked_for(tmp_path: Path) -> None:
    table = begun(tmp_path, "run-1")
    table.commit(files(table, "run-1", ["a", "b"], failed=[f"{LAKE}dt=2026-11-22/b.jpg"]))
    keys = table.done_keys(Wanted({"panoptic": FINGERPRINTS["panoptic"]}, LAKE)).read_all().sort_by("image_uri").to_pylist()
    uri = f"{LAKE}dt=2026-11-22/a.jpg"
    assert keys[0] == {"image_uri": uri, "image_etag": f"etag of {uri}", "task": "panoptic", "fingerprint": "f-panoptic", "status": "ok"}
    assert [key["status"] for key in keys] == ["ok", "error"]
    assert table.done_keys(Wanted({"panoptic": "another's"}, LAKE)).read_all().num_rows == 0
    assert table.done_keys(Wanted({}, LAKE)).read_all().num_rows == 0


@pytest.mark.parametrize(
    ("prefix", "names"),
    [
        (LAKE, "abc'"),
        (LAKE.rstrip("/"), "abc'"),
        (LAKE + "dt=2026-11-22/", "a'"),
        (LAKE + "dt=2026-11-2", "a'b"),
        (LAKE + "dt=2026-11-22/a.jpg", "a"),
        (LAKE + "dt=2026-11-22/'.jpg", "'"),
        (None, "abc'"),
    ],
)
def test_done_keys_of_a_prefix(tmp_path: Path, prefix: str | None, names: str) -> None:
    table = begun(tmp_path, "run-1")
    for name, day in {"a": "2026-11-22", "b": "2026-11-23", "c": "2026-12-01", "'": "2026-11-22"}.items():
        table.commit(files(table, "run-1", [name], day))
    found = table.done_keys(Wanted(FINGERPRINTS, prefix)).read_all()["image_uri"].to_pylist()
    assert sorted(uri[-5] for uri in found) == sorted(names)


def test_files_without_images_of_the_scope_are_not_opened(tmp_path: Path) -> None:
    table = begun(tmp_path, "run-1")
    table.commit(files(table, "run-1", ["a"]) + files(table, "run-1", ["b"], "2026-11-23"))
    for path in tmp_path.glob("task=panoptic/dt=2026-11-23/*.parquet"):
        path.write_bytes(b"unreadable" * 100)
    assert table.done_keys(Wanted(FINGERPRINTS, LAKE + "dt=2026-11-22/")).read_all().num_rows == 1
    with pytest.raises(MasklakeError, match="this file of the table cannot be read"):
        table.done_keys(Wanted(FINGERPRINTS, LAKE)).read_all()


# Other readers


def test_others_read_it_with_nested_segments_and_partition_columns(tmp_path: Path) -> None:
    table = begun(tmp_path, "run-1")
    table.commit(files(table, "run-1", ["a"], "ü /1") + files(table, "run-1", ["b"], "2026-11-23"))
    expected = {("ü /1", 6), ("2026-11-23", 6)}
    polars = pl.read_delta(str(tmp_path)).explode("segments").unnest("segments")
    assert set(polars.select("dt", "area").rows()) == expected
    with duckdb.connect() as database:
        database.register("masks", DeltaTable(str(tmp_path)).to_pyarrow_dataset())
        assert set(database.execute("SELECT dt, unnest(segments).area FROM masks").fetchall()) == expected
        plain = f"FROM read_parquet('{tmp_path}/task=*/**/*.parquet', hive_partitioning = true)"
        assert set(database.execute(f"SELECT dt, unnest(segments).area {plain}").fetchall()) == expected
    pandas = DeltaTable(str(tmp_path)).to_pandas()
    assert {(row.dt, row.segments[0]["area"]) for row in pandas.itertuples()} == expected
    assert set(pq.read_table(tmp_path / "task=panoptic")["dt"].to_pylist()) == {"ü /1", "2026-11-23"}


def test_the_log_says_who_committed_what(tmp_path: Path) -> None:
    table = begun(tmp_path, "run-1")
    table.commit(files(table, "run-1", ["a", "b"]))
    entries = [json.loads((tmp_path / "_delta_log" / f"{version:020d}.json").read_text().splitlines()[0]) for version in (1, 2)]
    begin, data = (entry["commitInfo"]["masklake"] for entry in entries)
    assert (begin["event"], begin["run_id"], begin["scope"]) == ("begin", "run-1", LAKE)
    assert (data["event"], data["run_id"], data["rows"]) == ("data", "run-1", 2)


def test_a_commit_by_somebody_elses_delta_writer_is_passed_over(tmp_path: Path) -> None:
    table = begun(tmp_path, "run-1")
    other = DeltaTable(str(tmp_path))
    by_other = CommitProperties(custom_metadata={"by": "other"})
    other.create_write_transaction([], "append", other.schema(), list(BY), commit_properties=by_other)
    table.commit(files(table, "run-1", ["a"]))
    assert images_in(tmp_path) == Counter("a")


# A table that is deleted under a living run


@pytest.mark.slow
@pytest.mark.parametrize("commits", [None, 0, 2, 3, 9])
def test_a_table_that_is_made_anew_takes_no_commit_of_a_run_of_the_old_one(tmp_path: Path, commits: int | None) -> None:
    """Whether its log is shorter than the old one, as long, or longer; None: nothing is there."""
    run = begun(tmp_path / "masks", "run-1")
    for name in "ab":
        run.commit(files(run, "run-1", [name]))
    shutil.rmtree(tmp_path / "masks")
    anew = None if commits is None else begun(tmp_path / "masks", "run-2")
    for number in range(commits or 0):
        assert anew
        anew.commit(files(anew, "run-2", [f"{number}"]))
    with pytest.raises(MasklakeError, match=r"masks was deleted, and perhaps created again, .* it commits nothing more"):
        run.commit(files(run, "run-1", ["c"]))
    run.clean_up_if_fenced()
    log = tmp_path / "masks" / "_delta_log"
    assert len(list(log.glob("*"))) == (0 if commits is None else commits + 2)
    if anew:
        assert images_in(tmp_path / "masks") == Counter(map(str, range(commits or 0)))
        assert [marker.run_id for marker in runs.markers(anew.uri)] == ["run-2"]


def test_a_run_of_the_old_table_is_nobodys_overlap_and_its_files_are_left_alone(tmp_path: Path) -> None:
    old = begun(tmp_path, "run-1")
    written = files(old, "run-1", ["a"])
    shutil.rmtree(tmp_path / "_delta_log")
    new = begun(tmp_path, "run-2")
    assert [marker.run_id for marker in runs.markers(new.uri)] == ["run-1", "run-2"]
    assert Table.open_or_create(str(tmp_path), BY).unfinished(LAKE) == [new._run]
    new.finish_run()
    assert (tmp_path / written[0].path).exists()


def test_a_compaction_does_not_put_the_old_tables_files_into_the_new_one(tmp_path: Path) -> None:
    run = begun(tmp_path, "run-1")
    for name in "ab":
        run.commit(files(run, "run-1", [name]))
    table = UpkeepTable.existing(str(tmp_path))
    table._run = runs.Marker("compact-1", "", begun=-1)
    old = table.files()
    (new,) = files(run, "compact-1", ["ab"])
    shutil.rmtree(tmp_path / "_delta_log")
    other = begun(tmp_path, "run-2")
    for name in "xyz":
        other.commit(files(other, "run-2", [name]))
    with pytest.raises(MasklakeError, match="was deleted"):
        table.swap(old, [new])
    assert images_in(tmp_path) == Counter("xyz")


def test_a_log_that_has_dropped_the_entry_seen_last_is_told_by_the_tables_id(tmp_path: Path) -> None:
    """As Delta does after 30 days, for which the job was paused."""
    run, other = begun(tmp_path, "run-1"), begun(tmp_path, "run-2", "s3://other/")
    run.refuse_if_fenced()
    other.commit(files(other, "run-2", ["a"]))
    table = DeltaTable(str(tmp_path))
    table.create_checkpoint()
    for version in range(table.version()):
        (tmp_path / "_delta_log" / f"{version:020d}.json").unlink()
    run.commit(files(run, "run-1", ["b"]))
    assert images_in(tmp_path) == Counter("ab")
