from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from masklake.segment import plan as plan_module
from masklake.segment.digests import DIGESTS, digest
from masklake.segment.plan import GROUPS_PER_FILE, Filter, Plan, WorkList, make_plan, read_group

WANTED = {"panoptic": "p1", "semantic": "s1"}
KEYS = pa.schema([(name, pa.string()) for name in ("image_uri", "image_etag", "task", "fingerprint", "status")])


def page(*names: str, **columns: Any) -> pa.Table:
    """A page of a listing: 10 bytes an image, the etag is the name in capitals."""
    table: dict[str, Any] = {
        "image_uri": [f"s3://lake/{name}" for name in names],
        "image_etag": [name.upper() for name in names],
        "image_bytes": pa.array([10] * len(names), pa.int64()),
        "image_modified": pa.nulls(len(names), pa.timestamp("us", tz="UTC")),
    }
    return pa.table({**table, **columns})


def row(name: str, task: str = "panoptic", fingerprint: str = "p1", status: str = "ok", etag: str | None = "") -> pa.RecordBatch:
    """A row of the table, of the image as `page` lists it, as its digest."""
    etag = name.upper() if etag == "" else etag
    told = {"image_uri": f"s3://lake/{name}", "image_etag": etag, "task": task, "fingerprint": fingerprint, "status": status}
    found = list(digest([pa.RecordBatch.from_pylist([told], schema=KEYS)], KEYS, WANTED))
    return found[0] if found else pa.RecordBatch.from_pylist([], schema=DIGESTS)


def work(folder: Path, plan: Plan) -> dict[str, list[str]]:
    """The work list as task lists by image name, in its order."""
    groups = [read_group(str(folder), index) for index in range(plan.groups)]
    rows = [row for group in groups for row in group.to_pylist()]
    return {row["image_uri"].removeprefix("s3://lake/"): row["tasks"] for row in rows}


def test_without_a_table_everything_is_to_do(tmp_path: Path) -> None:
    plan = make_plan([page("a", "b"), page("c")], None, WANTED, work_list=WorkList(str(tmp_path)))
    assert plan == Plan(3, 30, 0, 3, 6, 30, 0, 0, 1)
    assert work(tmp_path, plan) == {"a": ["panoptic", "semantic"], "b": ["panoptic", "semantic"], "c": ["panoptic", "semantic"]}


def test_an_image_is_done_by_task_etag_and_fingerprint(tmp_path: Path) -> None:
    done = [
        row("all"),
        row("all", "semantic", "s1"),
        row("one"),
        row("changed", etag="OLD"),
        row("changed", "semantic", "s1", etag=None),
        row("older-model", fingerprint="p0"),
        row("older-model", "semantic", "s1"),
        row("gone"),
    ]
    plan = make_plan([page("all", "one", "changed", "older-model")], done, WANTED, work_list=WorkList(str(tmp_path)))
    assert work(tmp_path, plan) == {"changed": ["panoptic", "semantic"], "older-model": ["panoptic"], "one": ["semantic"]}
    assert (plan.images, plan.done_images, plan.todo_images, plan.todo_rows, plan.todo_bytes) == (4, 1, 3, 4, 30)


def test_a_store_without_etags_compares_none_with_none(tmp_path: Path) -> None:
    listing = page("a", "b", image_etag=pa.nulls(2, pa.string()))
    plan = make_plan([listing], [row("a", etag=None), row("b", etag="B")], {"panoptic": "p1"}, work_list=WorkList(str(tmp_path)))
    assert list(work(tmp_path, plan)) == ["b"]


def test_errors_are_done_unless_they_are_to_be_retried(tmp_path: Path) -> None:
    done = [row("bad", status="error"), row("mended", status="error"), row("mended"), row("good")]
    listing = [page("bad", "mended", "good", "new")]
    left = make_plan(listing, done, {"panoptic": "p1"}, work_list=WorkList(str(tmp_path / "left")))
    assert list(work(tmp_path / "left", left)) == ["new"]
    assert (left.done_images, left.kept_errors, left.retried_errors) == (3, 1, 0)
    retried = make_plan(listing, done, {"panoptic": "p1"}, Filter(retry_errors=True), work_list=WorkList(str(tmp_path / "retried")))
    assert list(work(tmp_path / "retried", retried)) == ["bad", "new"]
    assert (retried.done_images, retried.kept_errors, retried.retried_errors, retried.todo_rows) == (2, 0, 1, 2)


def test_an_image_listed_twice_counts_once(tmp_path: Path) -> None:
    plan = make_plan([page("a", "b", "a"), page("b")], [row("b")], {"panoptic": "p1"}, work_list=WorkList(str(tmp_path)))
    assert plan == Plan(2, 20, 1, 1, 1, 10, 0, 0, 1)
    assert list(work(tmp_path, plan)) == ["a"]


def test_a_limit_takes_the_first_of_what_is_to_do_in_whatever_order_it_was_listed(tmp_path: Path) -> None:
    names, done = ["d", "a", "c", "b", "e"], [row("a")]
    plan = make_plan([page(*names)], done, {"panoptic": "p1"}, Filter(limit=2), work_list=WorkList(str(tmp_path)))
    assert list(work(tmp_path, plan)) == ["b", "c"]
    assert (plan.images, plan.done_images, plan.todo_images, plan.todo_rows, plan.todo_bytes) == (5, 1, 2, 2, 20)
    assert make_plan([page(*names)], done, {"panoptic": "p1"}, Filter(limit=100)).todo_images == 4


def test_a_failure_of_the_listing_travels_with_the_image(tmp_path: Path) -> None:
    failure: dict[str, Any] = {"error_code": ["not_found", None], "error_message": ["no", None]}
    listing = page("a", "b", image_etag=[None, "B"], image_bytes=pa.array([None, 10]), **failure)
    plan = make_plan([listing], None, {"panoptic": "p1"}, work_list=WorkList(str(tmp_path)))
    first = read_group(str(tmp_path), 0).to_pylist()[0]
    assert (first["image_bytes"], first["error_code"], first["error_message"]) == (None, "not_found", "no")
    assert plan.bytes == 10


def test_what_only_some_pages_tell_is_kept_of_these(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "_BATCH_ROWS", 1)  # each page is put in by itself
    pages = [
        page("a", image_etag=pa.nulls(1, pa.string()), image_bytes=pa.nulls(1, pa.int64())),
        page("b", image_start=pa.array([5], pa.int64()), image_container=pa.array([11], pa.int32()), image_source=["shards"]),
        page("c", error_code=["unsupported"], error_message=["why"], image_keys=['{"k": "v"}']),
    ]
    assert make_plan(pages, None, WANTED, work_list=WorkList(str(tmp_path))).bytes == 20
    rows = {
        row.pop("image_uri")[-1]: {name: value for name, value in row.items() if value} for row in read_group(str(tmp_path), 0).to_pylist()
    }
    tasks = {"tasks": ["panoptic", "semantic"]}
    assert rows == {
        "a": tasks,
        "b": {"image_etag": "B", "image_bytes": 10, "image_container": 11, "image_start": 5, "image_source": "shards", **tasks},
        "c": {"image_etag": "C", "image_bytes": 10, "error_code": "unsupported", "error_message": "why", **tasks},
    }


def test_hive_style_keys_of_the_path_become_columns(tmp_path: Path) -> None:
    names = ["dt=2026-11-22/site=a%20b/x.jpg", "dt=2026-11-23/x.jpg", "x.jpg"]
    make_plan([page(*names)], None, {"panoptic": "p1"}, work_list=WorkList(str(tmp_path), hive_columns=("site", "dt")))
    group = read_group(str(tmp_path), 0)
    assert group["dt"].to_pylist() == ["2026-11-22", "2026-11-23", None]
    assert group["site"].to_pylist() == ["a b", None, None]


def test_groups_are_found_by_arithmetic_across_files(tmp_path: Path) -> None:
    count = 2 * 3 * GROUPS_PER_FILE + 4  # two full files of three rows a group, and two groups in a third
    names = [f"{number:05d}" for number in range(count)]
    plan = make_plan([page(*names)], None, {"panoptic": "p1"}, work_list=WorkList(str(tmp_path), group_rows=3))
    assert plan.groups == 2 * GROUPS_PER_FILE + 2
    assert len(list(tmp_path.iterdir())) == 3
    assert [read_group(str(tmp_path), index).num_rows for index in (0, GROUPS_PER_FILE, plan.groups - 2, plan.groups - 1)] == [3, 3, 3, 1]
    assert list(work(tmp_path, plan)) == names
    assert read_group(str(tmp_path), GROUPS_PER_FILE)["image_uri"][0].as_py() == f"s3://lake/{3 * GROUPS_PER_FILE:05d}"


def test_numbers_alone_write_nothing(tmp_path: Path) -> None:
    plan = make_plan([page("a")], None, WANTED)
    assert (plan.todo_rows, plan.groups) == (2, 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("listing", [[], [page()], [page("a")]])
def test_nothing_to_do_is_an_empty_work_list(tmp_path: Path, listing: list[pa.Table]) -> None:
    plan = make_plan(listing, [row("a")], {"panoptic": "p1"}, work_list=WorkList(str(tmp_path)))
    assert (plan.todo_images, plan.todo_rows, plan.groups) == (0, 0, 0)
    assert list(tmp_path.iterdir()) == []


def synthetic(count: int) -> Iterator[pa.Table]:
    for start in range(0, count, 1000):
        yield page(*(f"images/dt=2026-11-{number // 1000 % 28:02d}/camera-{number:060d}.jpg" for number in range(start, start + 1000)))


def held(count: int) -> Iterator[pa.RecordBatch]:
    """Rows of a table that holds every other page of as many images."""
    for number, listed in enumerate(synthetic(count)):
        if number % 2:
            told = {"task": "panoptic", "fingerprint": "p1", "status": "ok"}
            columns = {name: listed[name].combine_chunks() for name in ("image_uri", "image_etag")}
            yield pa.record_batch({**columns, **{name: pa.repeat(text, len(listed)) for name, text in told.items()}}, schema=KEYS)


MEASURE = """
import sys, tempfile
from pathlib import Path
from masklake.segment import plan
from tests.unit.segment.test_plan import KEYS, digest, held, synthetic
plan._MEMORY = "100MB"
images, fingerprints = int(sys.argv[1]), {"panoptic": "p1"}
with tempfile.TemporaryDirectory() as folder:
    done = digest(held(images), KEYS, fingerprints)
    made = plan.make_plan(synthetic(images), done, fingerprints, work_list=plan.WorkList(folder))
assert made.todo_images == made.done_images == images // 2
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(int(peak.split()[1]) // 1024)  # of this program: the kernel's `ru_maxrss` begins with that of the process that started it
"""


def peak_mebibytes(images: int) -> int:
    """Peak memory of a process that plans so many images."""
    return int(subprocess.run([sys.executable, "-c", MEASURE, str(images)], check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's /proc")
@pytest.mark.slow
def test_memory_is_bounded_by_the_setting_not_by_the_number_of_images() -> None:
    """DuckDB is given 100 MB here; without a bound, this many images take twice as much (and nothing is printed)."""
    few, many = peak_mebibytes(20_000), peak_mebibytes(400_000)
    assert many - few < 160
