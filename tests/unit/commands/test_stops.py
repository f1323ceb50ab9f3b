"""Commands that are stopped in the middle: the last line says so, nothing half-made is left, and the same command does the rest."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from masklake import storage
from masklake.commands import cli
from masklake.export.iceberg import mirror
from tests.exports import build, export
from tests.tables import begun, data_files, files, images_in

STOPS = pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "Ctrl-C"])


@pytest.fixture(autouse=True)
def handlers_of_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A file for each of the images a to e."""
    made = begun(tmp_path / "masks", "run-1")
    for name in "abcde":
        made.commit(files(made, "run-1", [name]))
    made.finish_run()
    return tmp_path / "masks"


def after(place: Any, name: str, number: int, patch: pytest.MonkeyPatch, when: Callable[..., bool]) -> None:
    """Have this process take a signal when a function has done its work, the first time that `when` is true of its arguments."""
    function, sent = getattr(place, name), list[int]()

    def done(*arguments: Any, **more: Any) -> Any:
        result = function(*arguments, **more)
        if not sent and when(*arguments):
            sent.append(number)
            handler = signal.getsignal(number)  # called as Python would: another test's Ray may have put its own below Python's, in C++
            assert callable(handler)
            handler(number, None)
        return result

    patch.setattr(place, name, done)


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, dict[str, Any]]:
    code = cli.main([str(argument) for argument in arguments])
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


def stopped(capsys: pytest.CaptureFixture[str], code: int, *arguments: str | Path) -> None:
    began = time.monotonic()
    found, last = run(capsys, *arguments)
    assert (found, last["outcome"], last["exit_code"]) == (code, "stopped", code)
    assert time.monotonic() - began < 100  # 3 s, on a machine of one's own


def markers(table: Path) -> list[str]:
    return [path.name for path in (table / "_masklake" / "live").glob("*")]


@STOPS
@pytest.mark.parametrize("job", ["compact", "erase"])
def test_upkeep_leaves_no_file_and_no_marker(
    job: str, number: int, code: int, table: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = begun(table, "run-2", "s3://lake/other/")
    pair.commit(files(pair, "run-2", ["f", "g"]))  # in one file, of which something stays when f is erased
    pair.finish_run()
    before = data_files(table)
    more = ["s3://lake/images/dt=2026-11-22/f.jpg"] if job == "erase" else []
    command: tuple[str | Path, ...] = (job, "--table", table, *more, "--vacuum-hours", "168")
    with monkeypatch.context() as patch:
        after(storage, "write_bytes", number, patch, lambda uri, content: f"part-{job}" in uri)
        stopped(capsys, code, *command)
    assert (data_files(table), markers(table), set(images_in(table))) == (before, [], set("abcdefg"))
    assert run(capsys, *command)[0] == 0
    assert set(images_in(table)) == set("abcdefg") - ({"f"} if job == "erase" else set())
    assert set(images_in(table).values()) == {1}


def test_what_was_committed_just_before_the_stop_stays(
    table: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from masklake.upkeep.upkeep import UpkeepTable

    after(UpkeepTable, "swap", signal.SIGTERM, monkeypatch, lambda *arguments: True)
    stopped(capsys, 143, "compact", "--table", table)
    assert (set(images_in(table)), markers(table)) == (set("abcde"), [])
    assert len(data_files(table)) == 6  # the old ones, for readers of older versions, and the one that holds all


@pytest.mark.slow
def test_an_export_does_not_look_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("export", "--table", build(str(tmp_path / "masks")), "--output", tmp_path / "out", "--format", "label-maps", "--overwrite")
    with monkeypatch.context() as patch:
        after(storage, "write_bytes", signal.SIGINT, patch, lambda uri, content: "/out/" in uri)
        stopped(capsys, 130, *command)
    assert not (tmp_path / "out" / "_export.json").exists()
    assert run(capsys, *command)[0] == 0
    assert (tmp_path / "out" / "_export.json").exists()


@pytest.mark.slow
def test_an_evaluation_is_told_whole_or_not_at_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = build(str(tmp_path / "masks"))
    export(table, tmp_path / "truth", "coco-panoptic")
    command = ("evaluate", "--table", table, "--truth", tmp_path / "truth", "--output", tmp_path / "out")
    with monkeypatch.context() as patch:
        after(storage, "write_bytes", signal.SIGTERM, patch, lambda uri, content: "/out/" in uri)
        stopped(capsys, 143, *command)
    assert not (tmp_path / "out" / "evaluation.json").exists()
    assert run(capsys, *command)[0] == 0


def test_readers_of_a_mirror_see_it_as_it_was(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.icebergs import by_pyiceberg

    command = ("publish", "--table", table, "--catalog-file", tmp_path / "catalog.db", "--name", "masklake.masks")
    assert run(capsys, *command)[0] == 0
    more = begun(table, "run-2", "s3://lake/other/")
    more.commit(files(more, "run-2", ["f"]))
    more.finish_run()
    with monkeypatch.context() as patch:
        after(mirror, "data_files", signal.SIGTERM, patch, lambda *arguments: True)
        stopped(capsys, 143, *command)
    assert len(by_pyiceberg(tmp_path / "catalog.db")) == 5
    assert run(capsys, *command)[0] == 0
    assert len(by_pyiceberg(tmp_path / "catalog.db")) == 6


_QUERY = """
import sys
from masklake.commands.ending import end_with
from masklake.database import connect
def work():
    print("begun", flush=True)
    return {"found": connect().execute("select count(*) from range(10_000_000_000) where sin(range) > 2").fetchall()}
sys.exit(end_with(work))
"""


@pytest.mark.slow
@STOPS
def test_a_stop_that_a_library_makes_an_error_of_its_own_of_is_still_one(number: signal.Signals, code: int) -> None:
    job = subprocess.Popen([sys.executable, "-c", _QUERY], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert job.stdout
    assert job.stdout.readline() == "begun\n"
    time.sleep(0.3)  # until DuckDB is at it
    try:
        job.send_signal(number)
        out, said = job.communicate(timeout=100)
    finally:
        job.kill()
    assert (job.returncode, json.loads(out)["outcome"]) == (code, "stopped")
    assert said == "masklake: interrupted; what was committed stays, run the same command to go on\n"
