"""The table on a real S3 server: commits are atomic and fenced there as well, and everything reads it back."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from masklake import reading, storage
from masklake.errors import Fenced, Refused
from masklake.images.discover import discover
from masklake.images.source import Input
from masklake.segment.digests import digest
from masklake.segment.plan import Filter, WorkList, make_plan, read_group
from masklake.segment.stages import digest_files
from masklake.table import runs
from masklake.table.append import Table
from masklake.table.keys import KEYS, Wanted
from masklake.table.overlap import Watch
from masklake.table.place import check_table_place
from masklake.table.write import read_rows, write_rows
from masklake.upkeep.compact import compact
from masklake.upkeep.erase import erase
from masklake.upkeep.upkeep import UpkeepTable
from masklake.upkeep.vacuum import vacuum
from tests.answers import FINGERPRINTS, rows
from tests.tables import BY, LAKE, begun, files, write_together
from tests.unit.segment.test_plan import page


def images_in(uri: str) -> Counter[str]:
    found = reading.open_table(uri).rows(columns=["image_uri"])["image_uri"].to_pylist()
    return Counter(name.rpartition("/")[2].removesuffix(".jpg") for name in found)


def data_files(uri: str) -> set[str]:
    names = (file.uri.rpartition("/")[2] for page in storage.list_files(uri) for file in page)
    return {name for name in names if name.startswith("part-")}


def test_no_commit_of_many_processes_is_lost(bucket: str) -> None:
    expected = write_together(f"s3://{bucket}/masks")
    assert images_in(f"s3://{bucket}/masks") == expected


def test_a_newer_run_takes_over_and_cleans_up(bucket: str) -> None:
    uri = f"s3://{bucket}/masks of b"
    older = begun(uri, "run-1")
    older.commit(kept := files(older, "run-1", ["a"]))
    orphans = files(older, "run-1", ["b"])
    newer = begun(uri, "run-2", LAKE + "dt=2026-11-22/")
    with pytest.raises(Fenced, match="run-2"):
        older.commit(orphans)
    newer.commit(files(newer, "run-2", ["b"]))
    newer.finish_run()
    assert images_in(uri) == Counter("ab")
    assert len(data_files(uri)) == 2
    assert {record.path.rpartition("/")[2] for record in kept} <= data_files(uri)


def test_compaction_in_the_middle_of_a_run_loses_nothing(bucket: str) -> None:
    uri = f"s3://{bucket}/masks"
    table = begun(uri, "run-1")
    for name in "ab":
        table.commit(files(table, "run-1", [name]))
    DeltaTable(uri, storage_options=storage.delta_options(uri)).optimize.compact()
    table.commit(files(table, "run-1", ["c"]))
    assert images_in(uri) == Counter("abc")
    assert table.rows_of_run("run-1") == 3


def test_of_polite_runs_that_begin_at_the_same_instant_exactly_one_goes_on(bucket: str) -> None:
    uri, start = f"s3://{bucket}/masks", threading.Barrier(4)

    def begin(run: int) -> bool:
        table = Table.open_or_create(uri, BY)
        assert table.unfinished(LAKE) == []
        start.wait()
        return table.begin_run(LAKE, f"run-{run}", polite=True, beat=False)

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(begin, range(4))) == 1


def test_hearts_beat_here_as_well(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "BEAT_SECONDS", 0.1)
    table = Table.open_or_create(f"s3://{bucket}/masks", BY)
    table.begin_run(LAKE, "run-1")
    other, watch = Table.open_or_create(table.uri, BY), Watch(60)
    while not watch.look(other.unfinished(LAKE), 0)["run-1"]:
        time.sleep(0.1)
    table.finish_run()
    assert runs.markers(table.uri) == []


def test_a_table_is_compacted_erased_from_and_vacuumed_beside_a_run(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr("masklake.upkeep.vacuum.LOOK_SECONDS", 0.2)
    uri = f"s3://{bucket}/masks of b"
    live, finished = begun(uri, "run-1"), begun(uri, "run-2", "s3://other/")
    for name in "abc":
        live.commit(files(live, "run-1", [name], "ü /1%"))
        finished.commit(files(finished, "run-2", [f"{name}-of-2"], "ü /1%"))
    finished.finish_run()
    waiting = files(live, "run-1", ["d"], "ü /1%")
    before = reading.open_table(uri).rows().sort_by("image_uri")
    heart = runs.Heartbeat(live.uri, runs.markers(live.uri)[0])
    with UpkeepTable.job(uri, "compact-1") as table:
        assert compact(table, 1_000_000, say=lambda text: None).files_after == 1
        assert reading.open_table(uri).rows().sort_by("image_uri").equals(before)
        assert erase(table, [f"{LAKE}dt=ü /1%/b.jpg"]).rows == 1
        assert vacuum(table, 0, say=lambda text: None).files == 7
    live.commit(waiting)
    heart.stop()
    assert images_in(uri) == Counter(["a", "c", "d", "a-of-2", "b-of-2", "c-of-2"])
    assert live.rows_of_run("run-1") == 4
    assert len(data_files(uri)) == 2


def test_odd_partition_values_are_read_back(bucket: str) -> None:
    uri = f"s3://{bucket}/masks"
    table = begun(uri, "run-1")
    table.commit(written := files(table, "run-1", ["a"], "ü /1%"))
    assert [row["dt"] for row in reading.open_table(uri).newest()] == ["ü /1%"]
    assert pl.read_delta(uri, storage_options=storage.delta_options(uri))["dt"].to_list() == ["ü /1%"]
    assert [row["dt"] for row in read_rows(uri, written[0].samples[0])] == ["ü /1%"]


def test_a_plan_is_what_the_table_lacks(bucket: str) -> None:
    uri = f"s3://{bucket}/masks"
    table = Table.open_or_create(uri, BY)
    table.begin_run("s3://lake/", "run-1", beat=False)
    folder = table.run_folder("run-1")
    names = [f"dt=2026-11-22/{name}.jpg" for name in "abc"]
    listing = page(*names, image_etag=[f"etag of s3://lake/{name}" for name in names])

    fingerprints = {"panoptic": FINGERPRINTS["panoptic"]}
    wanted = Wanted(fingerprints, "s3://lake/")

    def plan(done: Iterator[pa.RecordBatch]) -> list[str]:
        planned = make_plan([listing], done, fingerprints, work_list=WorkList(folder, hive_columns=("dt",)))
        groups = [read_group(folder, index) for index in range(planned.groups)]
        return [uri[-5] for group in groups for uri in group["image_uri"].to_pylist()]

    assert plan(digest(table.done_keys(wanted), KEYS, fingerprints)) == ["a", "b", "c"]
    answered = rows([f"s3://lake/{name}" for name in (names[0], names[2])], "run-1", BY, dt=["2026-11-22"] * 2)
    table.commit(write_rows(answered, table.uri, BY, "run-1"))
    assert plan(digest(table.done_keys(wanted), KEYS, fingerprints)) == ["b"]
    files = table.key_files(wanted)
    assert files
    assert plan(batch for part in digest_files(table.uri, wanted, files) for batch in part.to_batches()) == ["b"]


def test_a_table_lies_apart_from_images_unless_the_bucket_is_the_input(bucket: str) -> None:
    lake, uri = f"s3://{bucket}/", f"s3://{bucket}/masks"
    for name in ("a.jpg", "images/b.jpg", "masks-2/c.jpg"):
        storage.write_bytes(lake + name, b"x")
    check_table_place(uri, lake)
    with pytest.raises(Refused, match=r"the folder holds c\.jpg"):
        check_table_place(f"{lake}masks-2", lake)
    with pytest.raises(Refused, match="among the images"):
        check_table_place(f"{lake}images/masks", f"{lake}images")
    table = begun(uri, "run-1", lake)
    table.commit(files(table, "run-1", ["x"], "A"))
    check_table_place(uri, lake)
    with pytest.raises(Refused, match="inside the table"):
        check_table_place(f"{uri}/deep/masks", f"{lake}images")
    for pattern in (lake, f"{lake}**", f"{lake}*/"):
        asked = Input(pattern)
        plan = make_plan(discover(asked), None, {"panoptic": "p"}, Filter(tables=asked.tables.found))
        assert asked.tables.found == {f"{uri}/"}
        assert (plan.images, plan.in_tables + asked.tables.left_out) == (2 if pattern.endswith("*/") else 3, 1)
