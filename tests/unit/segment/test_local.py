"""The engine that is this process: what the stages give one after another, and what befalls a thread reaches the run."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from masklake.commands import cli
from masklake.errors import ErrorCode, ImageFailure, MasklakeError
from masklake.segment import local, stages
from masklake.segment.engine import Resources
from masklake.segment.filling import Packet
from masklake.segment.local import Local
from masklake.segment.settings import RunConfig
from masklake.segment.stages import Work, Written
from masklake.storage import StorageError
from masklake.table.write import FileRecord
from tests.lakes import MODEL, scene
from tests.unit.segment.test_stages import work as work  # noqa: PLC0414 - a fixture

CONFIG = RunConfig(input="a", output="b", device="cpu")


def rows_of(work: Work, records: tuple[FileRecord, ...]) -> Iterator[dict[str, Any]]:
    for record in records:
        for row in pa.parquet.read_table(Path(work.table_uri, record.path)).to_pylist():
            yield {**row, "processed_at": None, "partition": str(Path(record.path).parent)}


def key(row: dict[str, Any]) -> tuple[str, str]:
    return row["image_uri"], row["partition"]


def test_its_rows_are_those_of_the_stages_one_after_another(work: Work) -> None:
    resources = Local(CONFIG).resources(group_rows=2, most_rows=16)
    with Local(CONFIG).flowing(work, resources) as flowing:
        written = list(flowing.written)
        flowing.check()
    assert (sum(each.images for each in written), sum(each.failed for each in written)) == (7, 4)
    segmenter = stages.open_segmenter(work, threads=1)
    packets = [stages.segment_rows(work, segmenter, table) for index in range(work.groups) for table in stages.load_group(work, index)]
    expected = stages.write_packets(work, packets)
    ours = sorted((row for each in written for row in rows_of(work, each.records)), key=key)
    assert ours == sorted(rows_of(work, expected.records), key=key)
    assert len(ours) == 14


@pytest.mark.slow
def test_no_write_goes_on_when_the_flow_is_left(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run that is fenced cleans up would not have its files: they came later."""
    writing, ended = threading.Event(), threading.Event()

    def slow(*arguments: object) -> Written:
        writing.set()
        time.sleep(0.5)
        ended.set()
        return Written((), 0, 0)

    def answered(*arguments: object) -> Iterator[Packet[bytes]]:
        yield Packet(b"", 1, 1)
        writing.wait(100)
        raise MasklakeError("a newer run took over")

    monkeypatch.setattr(local, "write_packets", slow)
    monkeypatch.setattr(local, "_packets", answered)
    config = CONFIG.model_copy(update={"rows_per_file": 1})
    with (
        pytest.raises(MasklakeError, match="took over"),
        Local(config).flowing(work, Resources(1, 1.0, 0.0, 1, 1)) as flowing,
    ):
        list(flowing.written)
    assert ended.is_set()


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["load_group", "segment_rows", "write_packets"])
def test_what_a_stage_raises_in_its_thread_is_raised_where_the_run_reads(work: Work, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> Iterator[pa.Table]:
        raise StorageError("s3://lake/a.parquet", ImageFailure(ErrorCode.UNREACHABLE, "the store failed"))

    monkeypatch.setattr(local, stage, fail)
    with (
        Local(CONFIG).flowing(work, Local(CONFIG).resources(32, 64)) as flowing,
        pytest.raises(MasklakeError, match=r"^s3://lake/a\.parquet: the store failed$"),
    ):
        list(flowing.written)
    until_ended()


@pytest.mark.slow
def test_no_thread_is_left_when_a_run_is_stopped_in_the_middle(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    load, loaded = stages.load_group, threading.Event()

    def endless(work: Work, index: int, look: stages.Look | None = None) -> Iterator[pa.Table]:
        while True:
            yield from load(work, index)
            loaded.set()

    monkeypatch.setattr(local, "load_group", endless)
    with Local(CONFIG).flowing(work, Resources(1, 1.0, 0.0, 8, 2)) as flowing:
        written = threading.Thread(target=lambda: list(flowing.written))
        written.start()
        assert loaded.wait(100)
    written.join(100)
    assert not written.is_alive()
    until_ended()


@pytest.mark.slow
def test_on_a_cpu_two_models_answer_at_the_same_time(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    both, at_work = threading.Event(), set[int]()

    def answer(work: Work, model: Any, images: pa.Table) -> bytes:
        at_work.add(id(model))
        if len(at_work) == 2:
            both.set()
        assert both.wait(60), "the other model waits for this one"
        return stages.segment_rows(work, model, images)

    monkeypatch.setattr(local, "segment_rows", answer)
    monkeypatch.setattr(local, "cores", lambda: 4)
    resources = Local(CONFIG).resources(32, 64)
    assert (resources.actors, resources.cpus_per_actor) == (2, 2.0)
    with Local(CONFIG).flowing(work, Resources(2, 1.0, 0.0, 1, 1)) as flowing:
        assert sum(each.images for each in flowing.written) == 7


@pytest.mark.parametrize(("settings", "models"), [({"forward": "compiled"}, 1), ({"forward": "openvino"}, 2), ({"device": "mps"}, 1)])
def test_the_model_is_there_once_where_it_has_its_own_way_of_using_the_device(
    settings: dict[str, str], models: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "cores", lambda: 8)
    monkeypatch.setattr("masklake.inference.devices.chosen_device", lambda asked: asked)
    resources = Local(CONFIG.model_copy(update=settings)).resources(32, 64)
    assert (resources.actors, resources.actors * resources.cpus_per_actor) == (models, 8)


def until_ended() -> None:
    deadline = time.monotonic() + 100
    while left := [thread.name for thread in threading.enumerate() if thread.name.startswith(("load-", "segment_", "write_"))]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


@pytest.mark.slow
def test_a_run_that_stands_still_ends_with_exit_code_5_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jpg").write_bytes(scene(0))
    over = threading.Event()

    def hang(*arguments: object) -> Any:
        over.wait(200)
        raise RuntimeError("the test is over")

    monkeypatch.setattr(local, "open_segmenter", hang)
    places = ["--input", str(tmp_path / "a.jpg"), "--output", str(tmp_path / "masks"), "--model", str(MODEL)]
    began = time.monotonic()
    code = cli.main(["segment", "--local", *places, "--stall-minutes", "0.02"])
    over.set()
    until_ended()
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (code, last["outcome"], last["exit_code"]) == (5, "stalled", 5)
    assert last["error"].startswith("nothing has happened for ")
    assert time.monotonic() - began < 150  # seconds; a busy machine takes 20, of which the wait is one
