"""Lines of a log: which run and table, null for what nobody knows yet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from masklake.commands import lines
from masklake.commands.progress import line
from masklake.segment.progress import State

PHASES = """
import os
from masklake.commands import lines
from masklake.commands.progress import show_progress
from masklake.segment.progress import State
with show_progress() as listener:
    kept = os.dup(2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    listener.update(State("starting Ray"))
    os.dup2(kept, 2)
"""
RUN = {"run_id": "20261127T020000-abcdef", "table": "s3://lake/masks"}


@pytest.fixture(autouse=True)
def run() -> Iterator[None]:
    lines.about(RUN["table"], RUN["run_id"])
    yield
    lines.about(None)


def test_a_line_says_when_which_run_and_how_far() -> None:
    told = line(State("segmenting", planned=100, images=40, failed=1, seconds=10.0, warm=20))
    when = datetime.fromisoformat(told.pop("ts"))
    assert abs(datetime.now(UTC) - when) < timedelta(minutes=1)
    assert json.loads(json.dumps(told)) == {
        "level": "info",
        "event": "progress",
        **RUN,
        "phase": "segmenting",
        "images": 40,
        "planned": 100,
        "errors": 1,
        "images_per_second": 2.0,
        "eta_seconds": 30,
    }


def test_what_nobody_knows_yet_is_null_and_not_zero() -> None:
    told = line(State("starting the model", planned=100))
    assert (told["images_per_second"], told["eta_seconds"]) == (None, None)
    assert line(State("listing"))["planned"] is None


def test_a_terminal_shows_a_phase_at_once_also_while_stderr_goes_nowhere() -> None:
    ours, theirs = os.openpty()
    subprocess.run([sys.executable, "-c", PHASES], stderr=theirs, check=True, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"})
    os.close(theirs)
    assert b"starting Ray" in os.read(ours, 65_536)
    os.close(ours)
