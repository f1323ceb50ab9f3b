"""Compaction beside runs, readers and other compactions; what is dropped as superseded."""

from __future__ import annotations

import json
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from masklake import reading
from masklake.errors import Refused
from masklake.table import overlap, runs
from masklake.table.append import Table
from masklake.table.keys import Wanted
from masklake.table.write import write_rows
from masklake.upkeep.compact import Compaction, groups_to_merge
from masklake.upkeep.rewrite import rewrite
from masklake.upkeep.superseded import REASONS
from masklake.upkeep.upkeep import TableFile, UpkeepTable
from tests.answers import FINGERPRINTS, rows
from tests.tables import (
    BY,
    LAKE,
    begun,
    compacted,
    content,
    data_files,
    files,
    images_in,
    lose_an_answer,
    some_commits,
    vacuumed,
    write_together,
)

MB = 1_000_000


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hearts that beat, and looks that come, many times a second."""
    monkeypatch.setattr(runs, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(overlap, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr("masklake.upkeep.vacuum.LOOK_SECONDS", 0.05)


# What is merged


def small(name: str, size: int, uri: str = "a", fingerprint: str = "f", dt: str | None = "1") -> TableFile:
    return TableFile(f"dt={dt}/{name}.parquet", size, {"dt": dt}, uri, uri, fingerprint)


def names(groups: list[list[TableFile]]) -> list[list[str]]:
    return [[file.name.removesuffix(".parquet") for file in group] for group in groups]


def test_files_are_packed_up_to_the_target_within_their_partition() -> None:
    sizes = {"a": 40, "b": 40, "c": 40, "d": 10, "e": 75, "f": 10}
    some = [small(name, size, uri=name) for name, size in sizes.items()]
    assert names(groups_to_merge(some, 100)) == [["a", "b"], ["c", "d", "f"]], "e is three quarters of the target already"
    apart = [small("a", 10), small("b", 10, dt="2"), small("c", 10, dt=None), small("d", 10, dt="2")]
    assert names(groups_to_merge(apart, 100)) == [["b", "d"]]


def test_neighbours_by_fingerprint_and_uri_go_together() -> None:
    some = [small("a", 50, "1", "g"), small("b", 50, "2", "f"), small("c", 50, "1", "f"), small("d", 50, "2", "g")]
    assert names(groups_to_merge(some, 100)) == [["c", "b"], ["a", "d"]]


def test_what_a_merge_does_not_change_is_left_alone() -> None:
    assert groups_to_merge([small("a", 60, "1"), small("b", 60, "2"), small("c", 60, "3")], 100) == []
    assert names(groups_to_merge([small("a", 60), small("b", 600)], 100, {"b.parquet"})) == [["b"]]


def test_every_value_stays_as_it_is_and_the_statistics_still_bound_them(tmp_path: Path) -> None:
    table = begun(tmp_path, "run-1")
    for number, day in enumerate(["ü /1%", "2026-11-23", "ü /1%", "2026-11-23", "ü /1%"]):
        table.commit(files(table, "run-1", [f"{number}", f"{number}-failed"], day, failed=[f"{LAKE}dt={day}/{number}-failed.jpg"]))
    before = content(tmp_path)
    done = compacted(tmp_path)
    assert (done.files_before, done.merged_files, done.new_files, done.files_after) == (5, 5, 2, 2)
    assert content(tmp_path).equals(before)
    assert pl.read_delta(str(tmp_path)).sort("image_uri").equals(pl.DataFrame(before).sort("image_uri"))

    (added,) = [
        action["add"] for action in last_actions(tmp_path) if "add" in action and action["add"]["partitionValues"]["dt"] == "2026-11-23"
    ] or [action["add"] for action in last_actions(tmp_path, 1) if "add" in action]
    stats = json.loads(added["stats"])
    assert stats["numRecords"] == 4
    assert stats["minValues"]["image_uri"] == f"{LAKE}dt=2026-11-23/1-failed.jpg"
    assert stats["maxValues"]["image_uri"] == f"{LAKE}dt=2026-11-23/3.jpg"
    assert (stats["nullCount"]["error_code"], stats["nullCount"]["run_id"]) == (2, 0)
    assert (stats["minValues"]["status"], stats["maxValues"]["status"]) == ("error", "ok")
    assert added["dataChange"] is False


def last_actions(uri: Path, back: int = 0) -> list[dict[str, Any]]:
    entries = sorted((uri / "_delta_log").glob("*.json"))
    return [json.loads(line) for line in entries[-1 - back].read_text().splitlines()]


def test_a_second_compaction_finds_nothing_to_do(tmp_path: Path) -> None:
    some_commits(tmp_path)
    assert compacted(tmp_path).merged_files == 4
    version = DeltaTable(str(tmp_path)).version()
    assert compacted(tmp_path, "compact-2").merged_files == 0
    assert DeltaTable(str(tmp_path)).version() == version


def test_a_dry_run_writes_nothing_at_all(tmp_path: Path) -> None:
    some_commits(tmp_path)
    everything = sorted(tmp_path.rglob("*"))
    done = compacted(tmp_path, dry_run=True, drop_superseded=True)
    assert (done.files_before, done.files_after, done.merged_files) == (4, 1, 4)
    assert vacuumed(tmp_path, 168, dry_run=True).files == 0
    assert sorted(tmp_path.rglob("*")) == everything


def test_row_groups_are_made_anew_and_large_files_pass_through_in_pieces(tmp_path: Path) -> None:
    table = begun(tmp_path, "run-1")
    for number in range(3):
        made = rows([f"{LAKE}dt=1/{number}-{row:03}.jpg" for row in range(100)], "run-1", BY, dt=["1"] * 100)
        heavy = pa.array([[{**segment, "counts": os.urandom(60_000)} for segment in found] for found in made["segments"].to_pylist()])
        made = made.set_column(made.schema.get_field_index("segments"), "segments", heavy.cast(made.schema.field("segments").type))
        table.commit(write_rows(made.cast(made.schema), table.uri, BY, "run-1"))
    before = content(tmp_path)
    assert compacted(tmp_path).new_files == 1
    assert content(tmp_path).equals(before)
    (new,) = list(tmp_path.rglob("part-compact-1-*.parquet"))
    metadata = pq.ParquetFile(new).metadata
    assert metadata.num_row_groups == 2  # three times 6 MB: two of them make more than 8 MiB
    assert metadata.row_group(0).column(0).compression == "ZSTD"


def test_an_empty_table_has_nothing_to_do(tmp_path: Path) -> None:
    Table.open_or_create(str(tmp_path), BY)
    assert compacted(tmp_path, drop_superseded=True) == Compaction(superseded_rows=dict.fromkeys(REASONS, 0))
    assert vacuumed(tmp_path, 0).files == 0


def test_there_must_be_a_table(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"--table \S+: there is no table"), UpkeepTable.job(str(tmp_path), "compact-1"):
        pass


# Beside others


def test_runs_go_on_beside_a_compaction_and_find_all_their_rows(tmp_path: Path) -> None:
    run = some_commits(tmp_path, "ab")
    with UpkeepTable.job(str(tmp_path), "compact-1", beat=False) as table:
        old = table.files()
        new = rewrite(table, old)
        run.commit(files(run, "run-1", ["c"]))
        assert new.file
        assert table.swap(old, [new.file])
        run.commit(files(run, "run-1", ["d"]))
    assert images_in(tmp_path) == Counter("abcd")
    assert run.rows_of_run("run-1") == 4
    run.finish_run()


def test_of_two_compactions_of_the_same_files_one_is_made(tmp_path: Path) -> None:
    some_commits(tmp_path, "ab")
    with UpkeepTable.job(str(tmp_path), "compact-1", beat=False) as one, UpkeepTable.job(str(tmp_path), "compact-2", beat=False) as two:
        (mine, other) = [(table, table.files(), rewrite(table, table.files()).file) for table in (one, two)]
        assert [table.swap(old, [new]) for table, old, new in (mine, other) if new] == [True, False]
    assert images_in(tmp_path) == Counter("ab")


def test_files_that_another_program_replaced_are_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some_commits(tmp_path, "ab")
    real = DeltaTable.create_write_transaction

    def overtaken(self: DeltaTable, *arguments: Any, **more: Any) -> None:
        monkeypatch.undo()
        DeltaTable(str(tmp_path)).optimize.compact()
        real(self, *arguments, **more)

    monkeypatch.setattr(DeltaTable, "create_write_transaction", overtaken)
    done = compacted(tmp_path)
    assert (done.overtaken_files, done.merged_files, done.files_after) == (2, 0, 1)
    assert images_in(tmp_path) == Counter("ab")
    assert not [name for name in data_files(tmp_path) if name.startswith("part-compact")], "what it had written is deleted"


def test_a_commit_whose_answer_got_lost_is_not_made_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some_commits(tmp_path, "ab")
    lose_an_answer(monkeypatch)
    done = compacted(tmp_path)
    assert (done.merged_files, done.new_files, done.overtaken_files) == (2, 1, 0)
    assert images_in(tmp_path) == Counter("ab")


@pytest.mark.slow
def test_compactions_again_and_again_while_many_write(tmp_path: Path) -> None:
    uri, merged = tmp_path / "masks", tmp_path / "merged"
    begun(uri, "run-0").finish_run()
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write_together, str(uri), processes=1, threads=3, commits=6, until=merged)
        count = 0
        while not writing.done():
            count += 1
            if compacted(uri, f"compact-{count}").merged_files:
                merged.touch()  # so that they write on beside the next ones
            vacuumed(uri, 0, f"vacuum-{count}", lease_seconds=60)
    assert images_in(uri) == writing.result()
    assert merged.exists()
    compacted(uri, "compact-last")
    vacuumed(uri, 0)
    assert len(data_files(uri)) == len(DeltaTable(str(uri)).file_uris()) == 3
    assert list((uri / "_masklake" / "live").iterdir()) == []


def test_readers_of_an_older_version_read_on(tmp_path: Path) -> None:
    some_commits(tmp_path).finish_run()
    reader, before = DeltaTable(str(tmp_path)), content(tmp_path)
    compacted(tmp_path)
    assert vacuumed(tmp_path, 168).files == 0
    assert reader.to_pyarrow_table().sort_by("image_uri").equals(before.sort_by("image_uri"))


# What is superseded


def answered(uri: Path, run_id: str, names: str, minute: int, failed: str = "", **columns: Any) -> None:
    """A run of this minute that answers images with these names."""
    table = begun(uri, run_id)
    uris = [f"{LAKE}{name}.jpg" for name in names]
    made = rows(uris, run_id, BY, minute, [f"{LAKE}{name}.jpg" for name in failed], dt=["1"] * len(uris))
    for name, value in columns.items():
        made = made.set_column(made.schema.get_field_index(name), made.schema.field(name), pa.array([value] * len(uris)))
    table.commit(write_rows(made, table.uri, BY, run_id))
    table.finish_run()


def newest(uri: Path, where: str | None = None) -> dict[str, tuple[str, str]]:
    found = reading.open_table(str(uri)).newest(where=where, columns=["image_uri", "run_id", "status"])
    return {row["image_uri"][-5]: (row["run_id"], row["status"]) for row in found}


def test_exactly_the_rows_that_a_newer_row_supersedes_are_dropped(tmp_path: Path) -> None:
    answered(tmp_path, "run-1", "abcde", 1, failed="d")
    answered(tmp_path, "run-2", "a", 2, image_etag="changed")  # a changed image
    answered(tmp_path, "run-3", "ab", 3, fingerprint="f-new", image_etag="changed")  # a changed model; of b the image as well
    answered(tmp_path, "run-4", "cd", 4, failed="c", fingerprint="f-new")  # c fails now: its older answer is worth keeping
    answered(tmp_path, "run-5", "c", 5, failed="c", fingerprint="f-new")  # and fails again
    before, ok_before = newest(tmp_path), newest(tmp_path, "status = 'ok'")

    expected = {"changed image": 2, "changed model or settings": 2, "done again": 1}
    # changed image: a and b of run-1; changed model: a of run-2, d of run-1; done again: c of run-4
    assert compacted(tmp_path, dry_run=True, drop_superseded=True).superseded_rows == expected
    done = compacted(tmp_path, drop_superseded=True)
    assert done.superseded_rows == expected
    assert done.files_after == 1
    left = content(tmp_path).select(["image_uri", "run_id"]).to_pylist()
    assert sorted((row["image_uri"][-5], row["run_id"]) for row in left) == [
        ("a", "run-3"),
        ("b", "run-3"),
        ("c", "run-1"),
        ("c", "run-5"),
        ("d", "run-4"),
        ("e", "run-1"),
    ]
    assert (newest(tmp_path), newest(tmp_path, "status = 'ok'")) == (before, ok_before)
    assert compacted(tmp_path, "compact-2", drop_superseded=True).merged_files == 0


@pytest.mark.parametrize("where", [None, "status = 'ok'"])
def test_the_log_orders_rows_and_no_clock(tmp_path: Path, where: str | None) -> None:
    """The second run's machine is a year behind; its rows are the newer ones all the same."""
    for run_id, minute, fingerprint in (("run-9", 59, "f-old"), ("run-1", 1, "f-new")):
        run = begun(tmp_path, run_id)
        made = rows([f"{LAKE}{name}.jpg" for name in "ab"], run_id, BY, minute, order=run.run_order, dt=["1"] * 2)
        made = made.set_column(made.schema.get_field_index("fingerprint"), made.schema.field("fingerprint"), pa.array([fingerprint] * 2))
        run.commit(write_rows(made, run.uri, BY, run_id))
        run.finish_run()
    assert newest(tmp_path, where) == dict.fromkeys("ab", ("run-1", "ok"))
    assert compacted(tmp_path, drop_superseded=True).superseded_rows["changed model or settings"] == 2
    assert newest(tmp_path, where) == dict.fromkeys("ab", ("run-1", "ok"))
    assert set(content(tmp_path)["run_id"].to_pylist()) == {"run-1"}


def test_rows_from_before_the_order_was_kept_are_older_and_go_by_their_clock(tmp_path: Path) -> None:
    for run_id, minute, names in (("run-3", 3, "abc"), ("run-2", 2, "abc")):
        made = rows([f"{LAKE}{name}.jpg" for name in names], run_id, BY, minute, dt=["1"] * len(names)).drop_columns(["run_order"])
        write_deltalake(str(tmp_path), made, mode="append", partition_by=list(BY))
    assert newest(tmp_path) == dict.fromkeys("abc", ("run-3", "ok")), "by a table without that column"
    run = begun(tmp_path, "run-1")
    run.commit(write_rows(rows([f"{LAKE}a.jpg"], "run-1", BY, 1, order=run.run_order, dt=["1"]), run.uri, BY, "run-1"))
    run.finish_run()
    expected = {"a": ("run-1", "ok"), "b": ("run-3", "ok"), "c": ("run-3", "ok")}
    assert newest(tmp_path) == expected
    assert compacted(tmp_path, drop_superseded=True).superseded_rows["done again"] == 4
    assert newest(tmp_path) == expected
    assert images_in(tmp_path) == Counter("abc")


def test_runs_on_a_table_whose_rows_were_copied_from_a_longer_log_are_newer_still(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for number in range(1, 9):
        run = begun(there, f"run-{number}")
    assert run.run_order == 8
    run.commit(write_rows(rows([f"{LAKE}a.jpg"], "run-8", BY, 8, order=run.run_order, dt=["1"]), run.uri, BY, "run-8"))
    write_deltalake(str(here), DeltaTable(str(there)).to_pyarrow_table(), partition_by=list(BY))
    anew = begun(here, "run-1")
    assert DeltaTable(str(here)).version() < 8 < anew.run_order
    anew.commit(write_rows(rows([f"{LAKE}a.jpg"], "run-1", BY, 1, order=anew.run_order, dt=["1"]), anew.uri, BY, "run-1"))
    assert newest(here) == {"a": ("run-1", "ok")}


def test_a_file_of_nothing_but_superseded_rows_goes_and_a_large_one_is_rewritten(tmp_path: Path) -> None:
    answered(tmp_path, "run-1", "a", 1)
    answered(tmp_path, "run-2", "bc", 2)
    answered(tmp_path, "run-3", "ab", 3, fingerprint="f-new")
    done = compacted(tmp_path, target=1, drop_superseded=True)  # every file is larger than the target
    assert (done.merged_files, done.new_files, done.files_after) == (2, 1, 2)
    assert images_in(tmp_path) == Counter("abc")


def test_tasks_in_files_of_their_own_column_are_told_apart(tmp_path: Path) -> None:
    table = Table.open_or_create(str(tmp_path), ["dt"])
    table.begin_run(LAKE, "run-1", beat=False)
    made = rows([f"{LAKE}a.jpg"], "run-1", ["dt"], 1, dt=["1"])
    other = made.set_column(made.schema.get_field_index("task"), made.schema.field("task"), pa.array(["semantic"]))
    for part in (made, other):
        table.commit(write_rows(part, table.uri, ["dt"], "run-1"))
    assert compacted(tmp_path, drop_superseded=True).superseded_rows == dict.fromkeys(REASONS, 0)


def test_a_run_whose_rows_are_dropped_while_it_works_still_finds_itself_complete(tmp_path: Path) -> None:
    run = begun(tmp_path, "run-1")
    run.commit(write_rows(rows([f"{LAKE}a.jpg", f"{LAKE}b.jpg"], "run-1", BY, 1, dt=["1"] * 2), run.uri, BY, "run-1"))
    newer = Table.open_or_create(str(tmp_path), BY)
    newer.begin_run("s3://lake/list.parquet", "run-9", beat=False)  # a list of images overlaps with nothing, and may name the same ones
    again = rows([f"{LAKE}a.jpg"], "run-9", BY, 9, dt=["1"])
    again = again.set_column(again.schema.get_field_index("fingerprint"), "fingerprint", pa.array(["f-new"])).cast(again.schema)
    newer.commit(write_rows(again, newer.uri, BY, "run-9"))
    assert compacted(tmp_path, drop_superseded=True).superseded_rows["changed model or settings"] == 1
    assert images_in(tmp_path) == Counter("ab")
    assert run.rows_of_run("run-1") == 2


def test_done_keys_skip_merged_files_by_their_bounds(tmp_path: Path) -> None:
    table = begun(tmp_path, "run-1")
    for name in ("a", "b"):
        table.commit(files(table, "run-1", [name]) + files(table, "run-1", [name], "2026-11-23"))
    compacted(tmp_path)
    vacuumed(tmp_path, 0)
    for path in tmp_path.glob("task=panoptic/dt=2026-11-23/*.parquet"):
        path.write_bytes(b"unreadable" * 100)
    assert table.done_keys(Wanted(FINGERPRINTS, LAKE + "dt=2026-11-22/")).read_all().num_rows == 2


def test_the_markers_of_upkeep_are_nobodys_overlap(tmp_path: Path) -> None:
    some_commits(tmp_path, "ab").finish_run()
    with UpkeepTable.job(str(tmp_path), "compact-1", beat=False):
        run = begun(tmp_path, "run-2")
        assert [replace(marker, beat=0).run_id for marker in run.unfinished("s3://")] == []
