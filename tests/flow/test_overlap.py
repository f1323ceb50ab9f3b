"""Real jobs on one table at once: one gives way to a run that lives, one waits for a run that seems dead, and that one comes back."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from masklake.commands import cli
from masklake.table import runs
from tests.faults import processes
from tests.lakes import MODEL, ROOT, rows_by_image, scene

_IMAGES = 6000  # more than the first run can do before it is paused


@pytest.mark.timeout(900)
def test_a_run_skips_for_one_that_lives_waits_for_one_that_is_paused_and_the_paused_one_is_fenced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [tmp_path / "images" / f"dt=2026-11-2{day}" for day in (1, 2)]
    for folder in folders:
        folder.mkdir(parents=True)
    (folders[0] / "0.jpg").write_bytes(scene(0))
    for index in range(1, _IMAGES):
        (folders[0] / f"{index}.jpg").hardlink_to(folders[0] / "0.jpg")
    for index in range(4):  # the last of the work list: the first run does not come to them
        (folders[1] / f"{index}.jpg").write_bytes(scene(index))
    table = ["--output", str(tmp_path / "masks"), "--gallery-images", "0", "--commit-seconds", "0.5"]
    newer = ["--input", str(folders[1]), *table]

    first = _start("--input", str(tmp_path / "images"), *table)
    waiting = None
    try:
        _wait_until_begun(f"file://{tmp_path}/masks", first)
        waiting = _start(*newer, "--on-overlap", "wait", "--lease-seconds", "20")
        capsys.readouterr()
        code = cli.main(["segment", "--model", str(MODEL), *newer, "--on-overlap", "skip"])
        said = capsys.readouterr()
        assert (code, json.loads(said.out.splitlines()[-1])["outcome"]) == (0, "skipped"), said.err
        assert "is at work on the same or overlapping input" in said.err
        assert (first.poll(), waiting.poll()) == (None, None)

        paused = processes.below([first.pid])
        processes.kill(paused, signal.SIGSTOP)
        output, errors = waiting.communicate(timeout=400)
        done = json.loads(output.splitlines()[-1])
        assert (waiting.returncode, done["outcome"], done["images"]) == (0, "done", 4), errors
        assert "has not responded for 20 s: treated as dead" in errors

        processes.kill(paused, signal.SIGCONT)
        output, errors = first.communicate(timeout=200)
        assert first.returncode == 4, errors
        assert json.loads(output.splitlines()[-1])["outcome"] == "fenced"
    finally:
        for run in (first, waiting):
            if run:
                run.kill()
                run.communicate()
    assert set(rows_by_image(str(tmp_path / "masks")).values()) == {1}


def _start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "masklake", "segment", "--model", str(MODEL), "--local", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _wait_until_begun(table: str, run: subprocess.Popen[str]) -> None:
    while not any(marker.begun >= 0 for marker in runs.markers(table)):
        assert run.poll() is None
        time.sleep(0.2)
