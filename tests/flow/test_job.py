"""The whole job on local folders, here and on Ray: every image a row, runs that do only what is missing, refusals before any work."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from masklake import cluster, leaving, reading
from masklake.commands import cli
from masklake.demo.lake import broken_files
from masklake.errors import MasklakeError
from masklake.images import decoder
from masklake.segment import flow
from masklake.segment.engine import Resources
from masklake.segment.machine import cores
from masklake.segment.patience import Cluster
from masklake.segment.settings import RunConfig
from masklake.segment.stages import Work
from tests.beside import when
from tests.hostile import CRASHING, crashing_decoder, waiting
from tests.lakes import MODEL, rows_by_image, scene

BROKEN = {**broken_files(), "crash.png": CRASHING}


@pytest.fixture(scope="module", autouse=True)
def decoder_with_a_fault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Pillow of the processes that this module starts crashes on one image."""
    with pytest.MonkeyPatch.context() as environment:
        site = str(crashing_decoder(tmp_path_factory.mktemp("site")))
        environment.setenv("PYTHONPATH", site, prepend=os.pathsep)
        environment.syspath_prepend(site)
        decoder._idle.cache_clear()  # decoders that another module's runs have left here are without the fault
        yield
    decoder._idle.cache_clear()


@pytest.fixture(scope="module")
def on_ray(decoder_with_a_fault: None) -> Iterator[None]:
    """One Ray for the runs of this module, which leave it as they find it: its start costs more than they do."""
    with cluster.cluster(None) as resources, pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "cluster", lambda address: nullcontext(resources))
        yield


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight scenes in two day folders, and the broken files."""
    root = tmp_path_factory.mktemp("lake")
    for index in range(8):
        folder = root / "images" / f"dt=2026-11-{21 + index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"scene-{index}.jpg").write_bytes(scene(index))
    for name, data in BROKEN.items():
        (root / "images" / "dt=2026-11-21" / name).write_bytes(data)
    return root


def run(lake: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, object], str]:
    """Exit code, summary and stderr of one run."""
    fixed = ["--input", str(lake / "images"), "--output", str(lake / "masks"), "--model", str(MODEL)]
    if "--partition-by" not in arguments:
        fixed += ["--partition-by", "dt,task"]
    code = cli.main(["segment", *fixed, *arguments])
    captured = capsys.readouterr()
    return code, json.loads(captured.out.strip().splitlines()[-1]), captured.err


def test_a_dry_run_prints_the_plan_and_leaves_nothing_behind(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, summary, _ = run(lake, capsys, "--dry-run")
    assert code == 0
    assert summary["outcome"] == "planned"
    assert summary["planned"] == 8 + len(BROKEN)
    assert not (lake / "masks").exists()


def test_every_image_becomes_a_row_and_a_second_run_finds_nothing_to_do(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    total = 8 + len(BROKEN)
    code, summary, _ = run(lake, capsys, "--tasks", "panoptic,semantic")
    assert code == 0
    assert summary["images"] == total
    assert summary["errors"] == len(BROKEN)
    assert summary["errors_by_code"] == {"empty": 2, "not_an_image": 2, "too_large": 2, "truncated": 2, "decoder_crashed": 2}
    assert rows_by_image(str(lake / "masks")) == dict.fromkeys((f"file://{path}" for path in (lake / "images").rglob("*.*g")), 2)

    code, summary, errors = run(lake, capsys, "--no-local", "--tasks", "panoptic,semantic")
    assert code == 0
    assert summary["outcome"] == "nothing to do"
    assert "no model was started" in errors


@pytest.mark.usefixtures("on_ray")
def test_nothing_to_do_starts_no_ray_unless_the_table_is_too_large_to_read_here(
    lake: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    start = cluster.cluster

    def watched(address: str | None) -> AbstractContextManager[dict[str, float]]:
        started.append(address)
        return start(address)

    monkeypatch.setattr(cluster, "cluster", watched)
    small = run(lake, capsys, "--no-local", "--tasks", "panoptic,semantic")
    assert not started
    monkeypatch.setattr("masklake.segment.run.CLUSTER_ROWS", 2 * (8 + len(BROKEN)))
    large = run(lake, capsys, "--tasks", "panoptic,semantic")
    assert len(started) == 1
    assert (small[0], large[0], large[1]["outcome"]) == (0, 0, "nothing to do")
    assert small[1]["plan"] == large[1]["plan"]
    assert ": read on the cluster" in large[2]
    assert "on the cluster" not in small[2]


@pytest.mark.usefixtures("on_ray")
def test_on_ray_an_actor_of_two_calls_at_once_gives_the_answers_that_this_process_gave(
    lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = flow.choose_resources

    def as_on_a_gpu(config: RunConfig, cluster: Cluster, group_rows: int, most_rows: int) -> Resources:
        return replace(choose(config, cluster, group_rows, most_rows), actors=1, least=1, first=1, rows_per_call=2, calls_at_once=2)

    monkeypatch.setattr(flow, "choose_resources", as_on_a_gpu)
    code, _, _ = run(lake, capsys, "--no-local", "--tasks", "panoptic,semantic", "--output", str(tmp_path / "masks"))
    assert code == 0

    def answers(table: Path) -> dict[tuple[str, str], Any]:
        rows = reading.open_table(str(table)).rows(columns=["image_uri", "task", "error_code", "segments"]).to_pylist()
        return {(row["image_uri"], row["task"]): (row["error_code"], row["segments"]) for row in rows}

    assert answers(tmp_path / "masks") == answers(lake / "masks")


class LosesItsDevice(flow._SegmentActor):
    """An actor whose first forward breaks the device's context, in each process as long as the folder `lost` is empty."""

    def __init__(self, work: Work, threads: float) -> None:
        super().__init__(work, threads)
        assert self._segmenter
        module, lost = self._segmenter.module, Path(work.table_uri.removeprefix("file://")).parent / "lost"

        def broken(**values: Any) -> Any:
            if not list(lost.iterdir()):
                (lost / str(os.getpid())).touch()
                raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
            return module(**values)

        self._segmenter.module = broken


@pytest.mark.usefixtures("on_ray")
def test_a_lost_device_ends_its_process_and_another_does_the_work(
    lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lost").mkdir()
    monkeypatch.setattr(flow, "_SegmentActor", LosesItsDevice)
    monkeypatch.setattr(flow, "actors_of", lambda work, resources: 1)
    code, summary, errors = run(lake, capsys, "--no-local", "--tasks", "panoptic", "--output", str(tmp_path / "masks"))
    assert code == 0, errors
    assert (summary["images"], summary["errors"]) == (8 + len(BROKEN), len(BROKEN))  # no image is to blame
    processes = [int(path.name) for path in (tmp_path / "lost").iterdir()]
    assert len(processes) == 1
    assert not any(Path(f"/proc/{process}").exists() for process in processes)


def test_a_plan_that_is_refused_waits_for_no_ray_that_is_starting(
    lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, over = threading.Event(), threading.Event()

    @contextmanager
    def never_there(address: str | None) -> Iterator[dict[str, float]]:
        begun.set()
        over.wait(200)
        yield {}

    monkeypatch.setattr(cluster, "cluster", never_there)
    monkeypatch.setattr(leaving._Memory, "ends", True)  # as in a process of its own
    monkeypatch.setattr(leaving._Memory, "last", list[Callable[[], None]]())
    code, summary, errors = run(lake, capsys, "--no-local", "--output", str(tmp_path / "masks"), "--partition-by", "absent")
    assert begun.wait(100), "the first page begins it"
    over.set()
    assert (code, summary["outcome"]) == (2, "refused")
    assert "absent" in errors


def test_a_ray_that_cannot_start_ends_the_run_in_a_sentence(
    lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = "Ray could not start on this machine: out of ports"

    def fails(address: str | None) -> AbstractContextManager[dict[str, float]]:
        raise MasklakeError(failure)

    monkeypatch.setattr(cluster, "cluster", fails)
    code, summary, errors = run(lake, capsys, "--no-local", "--output", str(tmp_path / "masks"))
    assert (code, summary["error"]) == (1, failure)
    assert "Traceback" not in errors
    assert not (tmp_path / "masks" / "_delta_log").exists()


def test_the_partitions_mirror_the_lake(lake: Path) -> None:
    folders = {
        path.parent.relative_to(lake / "masks").as_posix() for path in (lake / "masks").rglob("*.parquet") if "_masklake" not in path.parts
    }
    assert folders == {f"dt=2026-11-{day}/task={task}" for day in (21, 22) for task in ("panoptic", "semantic")}


def test_report_and_gallery_lie_beside_the_table(lake: Path) -> None:
    runs = [path for path in (lake / "masks" / "_masklake" / "runs").iterdir() if (path / "report.json").exists()]
    assert len(runs) == 1
    report = json.loads((runs[0] / "report.json").read_text())
    assert report["images"]["failed"] == len(BROKEN)
    assert {"fetch", "decode", "segment", "write", "commit"} <= set(report["stages"])
    assert (report["device"], report["actors"]["count"]) == ("cpu", min(2, cores()))
    assert 0 < report["seconds_to_first_commit"] <= report["seconds"]
    assert report["pictures"]
    assert report["configuration"]["tasks"] == ["panoptic", "semantic"]
    page = (runs[0] / "gallery.html").read_text()
    assert "scene-3.jpg" in page
    assert "cut-short.jpg" in page


def test_only_a_new_image_a_changed_image_or_a_new_task_is_work(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (lake / "images" / "dt=2026-11-22" / "scene-8.jpg").write_bytes(scene(8))
    (lake / "images" / "dt=2026-11-21" / "scene-0.jpg").write_bytes(scene(9))
    code, summary, _ = run(lake, capsys, "--tasks", "panoptic")
    assert code == 0
    assert summary["images"] == 2
    newest = reading.open_table(str(lake / "masks")).newest(task="panoptic", columns=["image_uri"])
    assert sum(1 for _ in newest) == 9 + len(BROKEN)
    entries = sorted((lake / "masks" / "_delta_log").glob("*.json"))
    told = [json.loads(line)["commitInfo"].get("masklake") for entry in entries for line in entry.open() if "commitInfo" in line]
    begun = {event["run_id"]: version for version, event in enumerate(told) if event and event["event"] == "begin"}
    rows = reading.open_table(str(lake / "masks")).rows(columns=["run_id", "run_order"])
    assert dict(zip(*rows.to_pydict().values(), strict=True)) == begun, "the log's order is what each row says"


def test_too_many_failed_images_end_with_3_and_are_only_done_again_when_asked(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, summary, errors = run(lake, capsys, "--tasks", "panoptic", "--retry-errors")
    assert code == 3
    assert summary["images"] == summary["errors"] == len(BROKEN)
    assert "--max-error-rate" in errors


def test_a_changed_setting_is_new_work_and_a_task_the_model_cannot_do_is_refused(
    lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    total = 9 + len(BROKEN)
    code, summary, _ = run(lake, capsys, "--dry-run", "--object-threshold", "0.5")
    assert (code, summary["planned"]) == (0, total)
    code, summary, _ = run(lake, capsys, "--dry-run", "--gpus-per-actor", "1")
    assert (code, summary["planned"]) == (0, 0), "on GPUs as well, the precision is the one that the table holds"
    code, summary, errors = run(lake, capsys, "--dry-run", "--precision", "bfloat16")
    assert (code, summary["planned"]) == (0, total)
    assert "in bfloat16" in errors

    semantic_only = tmp_path / "model"
    shutil.copytree(MODEL, semantic_only)
    config = json.loads((MODEL / "config.json").read_text())
    (semantic_only / "config.json").write_text(json.dumps({**config, "thing_ids": []}))
    code, summary, errors = run(lake, capsys, "--model", str(semantic_only))
    assert code == 2
    assert "panoptic" in errors
    assert "semantic" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "no/such-folder-or-model@x"], "no/such-folder-or-model"),
        (["--model", "./absent"], "no such folder"),
        (["--input", "/absent/images"], "/absent/images"),
        (["--actors", "99", "--limit", "1", "--retry-errors"], "--actors 99 of 0.5 CPU each"),
        (["--partition-by", "task"], "is partitioned by dt,task"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(
    lake: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    code, summary, errors = run(lake, capsys, *arguments)
    assert code == 2
    assert summary["outcome"] == "refused"
    assert message in errors
    assert "Traceback" not in errors


def has_rows(table: Path) -> bool:
    """Whether its log has."""
    return any('"event":"data"' in path.read_text().replace(" ", "") for path in (table / "_delta_log").glob("*.json"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("engine", ["--local", "--no-local"])
def test_the_first_commits_come_long_before_everything_is_loaded(tmp_path: Path, engine: str, request: pytest.FixtureRequest) -> None:
    if engine == "--no-local":
        request.getfixturevalue("on_ray")
    capsys = request.getfixturevalue("capsys")  # after Ray's start, during which another `sys.stdout` is there
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0.jpg").write_bytes(scene(0))
    for index in range(1, 160):
        (tmp_path / "images" / f"{index:03}.jpg").hardlink_to(tmp_path / "images" / "0.jpg")
    (tmp_path / "images" / "last.ppm").write_bytes(waiting(tmp_path / "committed"))
    pace = ["--rows-per-file", "16", "--commit-seconds", "0.1", "--gallery-images", "0"]
    pace += ["--actors", "1"] if engine == "--no-local" else []
    with when(
        lambda: has_rows(tmp_path / "masks"), (tmp_path / "committed").touch
    ):  # had writing waited for the loading, nothing would ever be
        code, summary, errors = run(tmp_path, capsys, engine, "--partition-by", "task", *pace)
    assert (code, summary["ok"]) == (0, 161), errors
