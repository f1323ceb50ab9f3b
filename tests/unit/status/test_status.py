"""A table and its runs from outside: of runs that live, died, stopped and ended; of partitions, errors, classes and what is to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pytest

from masklake import storage
from masklake.commands import cli
from masklake.images.discover import discover
from masklake.images.source import Input
from masklake.status import past as module
from masklake.status.coverage import Group, coverage
from masklake.status.past import past
from masklake.table import log, runs
from masklake.table.append import Table
from masklake.table.narrow import narrow_rows
from masklake.table.read import open_table
from masklake.table.write import write_rows
from tests.answers import FINGERPRINTS, rows
from tests.tables import BY, LAKE, begun, compacted, files

PANOPTIC = FINGERPRINTS["panoptic"]


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[list[str], dict[str, Any]]:
    assert cli.main(["status", *arguments]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    return lines, json.loads(last)


def reported(folder: Path, run_id: str, **report: Any) -> None:
    file = folder / "_masklake" / "runs" / run_id / "report.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"run_id": run_id, **report}), encoding="utf-8")


def states(folder: Path, sleep: Any = lambda seconds: None) -> Mapping[str, str]:
    return {run.run_id: run.state for run in past(str(folder), 10, 5, sleep).runs}


# Runs


def test_runs_that_live_died_stopped_ended_and_were_taken_over(tmp_path: Path) -> None:
    for run_id, ends in (("run-1", "done"), ("run-2", "stopped"), ("run-3", "over")):
        table = begun(tmp_path, run_id)
        table.commit(files(table, run_id, [run_id]))
        if ends == "over":
            begun(tmp_path, "run-4").finish_run()  # takes over, and takes the marker away
        else:
            reported(tmp_path, run_id, outcome=ends)
            table.finish_run()
    begun(tmp_path, "run-5", "s3://lake/other/")
    alive = runs.Marker("run-6", "s3://lake/third/", begun=-1)
    runs.mark(str(tmp_path), alive)
    runs.mark(str(tmp_path), runs.Marker("run-7", "s3://lake/fourth/", begun=-1, stopped=True))

    def beats(seconds: float) -> None:
        nonlocal alive
        alive = replace(alive, beat=alive.beat + 1)
        runs.mark(str(tmp_path), alive)

    expected = {"run-1": "done", "run-2": "stopped", "run-3": "over", "run-4": "over"}
    assert states(tmp_path, beats) == {**expected, "run-5": "dead", "run-6": "alive", "run-7": "stopped"}
    by_id = {run.run_id: run for run in past(str(tmp_path), 10, 5, beats).runs}
    assert (by_id["run-1"].rows, by_id["run-1"].input, by_id["run-4"].rows) == (1, LAKE, 0)
    assert by_id["run-1"].began is not None
    assert by_id["run-1"].last_commit is not None
    assert by_id["run-1"].began <= by_id["run-1"].last_commit


def test_where_all_are_alive_nobody_waits_and_where_one_is_silent_a_lease_passes(tmp_path: Path) -> None:
    waited: list[float] = []
    begun(tmp_path, "run-1").finish_run()
    assert states(tmp_path, waited.append) == {"run-1": "over"}
    assert waited == []
    begun(tmp_path, "run-2")
    assert states(tmp_path, waited.append)["run-2"] == "dead"
    assert sum(waited) == 5


def test_only_the_last_runs_and_a_bounded_part_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        begun(tmp_path, f"run-{number}").finish_run()
    assert [run.run_id for run in past(str(tmp_path), 2, 5).runs] == ["run-3", "run-2"]
    assert past(str(tmp_path), 2, 5).complete
    monkeypatch.setattr(module, "MOST_ENTRIES", 2)
    monkeypatch.setattr(log, "PAGE", 1)
    found = past(str(tmp_path), 10, 5)
    assert ([run.run_id for run in found.runs], found.complete) == (["run-3", "run-2"], False)


# What the table holds


def test_rows_are_counted_once_by_their_newest_and_masks_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = list[str]()
    open_file = storage.open_file

    def noted(uri: str) -> BinaryIO:
        opened.append(uri)
        return open_file(uri)

    monkeypatch.setattr(storage, "open_file", noted)
    table = begun(tmp_path, "run-1")
    uris = [f"{LAKE}dt=1/{name}.jpg" for name in "abcd"]
    table.commit(write_rows(rows(uris, "run-1", BY, 1, failed=uris[:2], dt=["1"] * 4), table.uri, BY, "run-1"))
    table.commit(write_rows(rows(uris[:1], "run-1", BY, 2, dt=["1"]), table.uri, BY, "run-1"))  # a retry that went well
    table.commit(write_rows(rows([f"{LAKE}dt=2/e.jpg"], "run-1", BY, 2, dt=["2"]), table.uri, BY, "run-1"))
    for again in (False, True):
        if again:
            compacted(tmp_path)
        opened.clear()
        found = coverage(open_table(str(tmp_path)))
        assert len(opened) == len({*opened}) == len(open_table(str(tmp_path)).delta.file_uris()), "each file is opened once"
        first, second = found.groups[Group(("1",), "panoptic", PANOPTIC)], found.groups[Group(("2",), "panoptic", PANOPTIC)]
        assert (first.images, first.done, sum(first.errors.values())) == (4, 3, 1)
        assert (second.images, second.done, second.errors) == (1, 1, {})
        assert found.newest() == {"panoptic": PANOPTIC}
        delta = open_table(str(tmp_path)).delta
        assert (first.classes, second.classes) == ({"label 3": 3}, {"label 3": 1})
        whole = delta.to_pyarrow_table().sort_by([("image_uri", "ascending"), ("processed_at", "ascending")]).to_pylist()
        narrow = narrow_rows(str(tmp_path), delta, ["image_uri", "processed_at", "dt"], labels=True).read_all()
        narrow = narrow.sort_by([("image_uri", "ascending"), ("processed_at", "ascending")])
        assert narrow["labels"].to_pylist() == [[each["label"] for each in row["segments"] or []] for row in whole]
        assert set(narrow["dt"].to_pylist()) == {"1", "2"}


def test_a_camera_that_broke_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = begun(tmp_path, "run-1")
    for day in ("2026-11-20", "2026-11-21"):
        table.commit(files(table, "run-1", [f"{day}-{number}" for number in range(30)], day))
    broken = rows([f"{LAKE}dt=2026-11-22/{number}.jpg" for number in range(30)], "run-1", BY, dt=["2026-11-22"] * 30)
    place, field = broken.schema.get_field_index("segments"), broken.schema.field("segments")
    empty = broken.set_column(place, field, pa.array([[]] * 30, field.type))
    table.commit(write_rows(empty, table.uri, BY, "run-1"))
    table.finish_run()
    lines, found = shown(capsys, str(tmp_path))
    (vanished,) = [each for each in found["moved"] if each["images"] == 0]
    assert vanished["partition"] == {"dt": "2026-11-22"}
    assert (vanished["of"], vanished["elsewhere"], vanished["of_others"]) == (30, 60, 60)
    assert any(f"dt=2026-11-22 panoptic: {vanished['label']} in 0.0% of 30 images, elsewhere in 100.0% of 60" in line for line in lines)
    assert [each["images"] for each in found["partitions"]] == [30, 30, 30]
    assert [each["run_id"] for each in found["runs"]] == ["run-1"]


# What is to do


def lake_of(folder: Path, names: Mapping[str, int]) -> Path:
    """Files by name below `folder/images`, each modified at this second."""
    for name, modified in names.items():
        file = folder / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
        os.utime(file, (modified, modified))
    return folder / "images"


def test_what_is_to_do_is_what_a_run_would_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lake = lake_of(tmp_path, {"dt=1/a.jpg": 1_000, "dt=1/b.jpg": 2_000, "dt=2/c.jpg": 3_000, "dt=2/notes.txt": 500, "dt=3/d.jpg": 4_000})
    uri = f"file://{tmp_path}/images/"
    table = Table.open_or_create(str(tmp_path / "masks"), BY)
    table.begin_run(uri, "run-1", beat=False)
    listed = {row["image_uri"]: row["image_etag"] for page in discover(Input(uri)) for row in page.to_pylist()}
    made = rows([f"{uri}dt=1/a.jpg"], "run-1", BY, dt=["1"], image_etag=[listed[f"{uri}dt=1/a.jpg"]])
    table.commit(write_rows(made, table.uri, BY, "run-1"))
    reported(tmp_path / "masks", "run-1", input=str(lake), configuration={"input": str(lake), "exclude": ["*.txt"], "limit": 1})
    table.finish_run()
    lines, found = shown(capsys, str(tmp_path / "masks"), "--input", str(lake))
    behind = found["lag"]
    assert (behind["images"], behind["todo_images"], behind["oldest_uri"]) == (4, 3, f"{uri}dt=1/b.jpg")
    assert behind["oldest_modified"] == "1970-01-01T00:33:20+00:00"
    assert behind["seconds"] > 1e9
    assert {each["partition"]["dt"]: (each["images"], each["todo"]) for each in found["partitions"]} == {
        "1": (1, 1),
        "2": (0, 1),
        "3": (0, 1),
    }
    assert any("3 of 4 images to do, the oldest" in line for line in lines)


def test_of_an_empty_table_everything_is_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lake = lake_of(tmp_path, {"a.jpg": 1_000})
    Table.open_or_create(str(tmp_path / "masks"), ["task"])
    lines, found = shown(capsys, str(tmp_path / "masks"), "--input", str(lake), "--json")
    assert (lines, found["lag"]["todo_images"], found["answers"]) == ([], 1, [])


def test_where_there_is_no_table_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", str(tmp_path)]) == 2
    assert "there is no table: name the folder that segment has as --output" in json.loads(capsys.readouterr().out)["error"]


@pytest.mark.slow
def test_it_needs_neither_ray_nor_torch(tmp_path: Path) -> None:
    lake = lake_of(tmp_path, {"a.jpg": 1_000})
    begun(tmp_path / "masks", "run-1").finish_run()
    script = (
        "import sys; from masklake.commands import cli\n"
        f"code = cli.main(['status', {str(tmp_path / 'masks')!r}, '--input', {str(lake)!r}, '--json'])\n"
        "print(code, [name for name in ('ray', 'torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
