"""Progress from committed rows: a live display on a terminal, else one JSON line every ten seconds."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from masklake.commands import lines
from masklake.segment.progress import Listener, State
from masklake.spelling import plural, visible

_EVERY = 10.0  # seconds between JSON lines


@contextmanager
def show_progress() -> Iterator[Listener]:
    """A listener for `job.segment` that suits where stderr goes."""
    if lines.are_json() or not sys.stderr.isatty():
        yield _Lines()
        return
    with _terminal() as terminal, _display(Console(file=terminal)) as bar:
        yield _Bar(bar, bar.add_task("starting", total=None, numbers=""))


@contextmanager
def _terminal() -> Iterator[IO[str]]:
    """What stderr is now: while Ray starts, what is written there goes nowhere, and just then people want to see a phase."""
    try:
        number = os.dup(sys.stderr.fileno())
    except OSError:  # a stand-in without a file
        yield sys.stderr
        return
    with os.fdopen(number, "w", encoding="utf-8", errors="replace") as terminal:
        yield terminal


def _display(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[numbers]}"),
        TimeElapsedColumn(),
        console=console,
        transient=False,
    )


class _Bar(Listener):
    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar, self._task, self._phase = bar, task, ""

    def begin(self, run_id: str, table: str) -> None:
        pass  # the user knows the table, and the run says its name

    def say(self, text: str) -> None:
        self._bar.console.print(visible(text), markup=False, highlight=False, soft_wrap=True)

    def update(self, state: State) -> None:
        numbers, phase, new = _numbers(state), visible(state.phase), state.phase != self._phase
        self._bar.update(self._task, refresh=new, description=phase, total=state.planned, completed=state.images, numbers=numbers)
        self._phase = state.phase


class _Lines(Listener):
    def __init__(self) -> None:
        self._last = time.monotonic()
        self._stdout = sys.stdout  # which is another one while a cluster is used

    def begin(self, run_id: str, table: str) -> None:
        lines.about(table, run_id)

    def say(self, text: str) -> None:
        lines.say(text)

    def update(self, state: State) -> None:
        if time.monotonic() - self._last >= _EVERY:
            self._last = time.monotonic()
            print(json.dumps(line(state)), file=self._stdout, flush=True)


def line(state: State) -> dict[str, Any]:
    """A line of a log: what is being done or waited for, and how far it is."""
    return lines.made("progress", phase=state.phase, **state.numbers())


def _numbers(state: State) -> str:
    if state.planned is None:
        return ""
    text = f"{state.images}/{state.planned} images, {plural(state.failed, 'error')}"
    if state.eta_seconds is not None:
        eta = f"{state.eta_seconds:.0f} s" if state.eta_seconds < 120 else f"{state.eta_seconds / 60:.0f} min"
        text += f", {state.images_per_second:.1f}/s, ETA {eta}"
    return text
