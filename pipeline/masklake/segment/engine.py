"""What does a run's work: Ray, or this process alone. Both run the same stages; this module knows neither."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from masklake.segment.machine import Machine
from masklake.segment.report import RunTotals
from masklake.segment.stages import Work, Written


@dataclass(frozen=True)
class Resources:
    """What the models are given; `rows_per_call` images go to one at a time, and `calls_at_once` calls, of which one works."""

    actors: int
    cpus_per_actor: float
    gpus_per_actor: float
    rows_per_call: int
    calls_at_once: int
    least: int = 1
    """Actors with which the work begins; they become up to `actors` as nodes join."""
    first: int = 1
    """Actors for which there is room at the start."""
    load_cpus: float = 0.9
    """What a load task asks for."""
    load_tasks: int | None = None
    """Of them at once, at most; None: as many as find room."""


@dataclass(frozen=True)
class Flowing:
    """Work under way."""

    written: Iterator[Written]
    """Each write as it happens."""
    check: Callable[[], None]
    """To be called every second or so; raises where the engine is gone."""
    flush: Callable[[], bool]
    """Has what is answered written now, without waiting for it; whether anything is left to be written."""
    sign: Callable[[], object]
    """Answers another value whenever something has happened."""
    diagnose: Callable[[float], str]
    """What to say of work in which nothing has happened for so many seconds."""


Meter = Callable[[RunTotals, float | None], None]
"""Takes what is committed, and the Unix time at which the oldest image to do was modified, where that is known."""


class Engine(Protocol):
    """Runs the stages on a work list."""

    starting: str
    """What the user is told while `start` takes its time."""

    def start(self) -> None:
        """Make ready for work, which is certain to come; may be said again."""

    def resources(self, group_rows: int, most_rows: int) -> Resources:
        """What there is for the work, where the settings left it open; a call of an actor gets `most_rows` images at most.

        Raises:
            Refused: less than the settings ask for.
            Stalled: what was waited for did not come.
        """

    def machine(self, work: Work, resources: Resources) -> Machine:
        """Where the work is done, for the report."""

    def meter(self, table: str, run_id: str) -> Meter:
        """What is to be told how a run stands, every second or so, for those who watch it from outside."""

    def flowing(self, work: Work, resources: Resources) -> AbstractContextManager[Flowing]:
        """Do the work while the context is open.

        Raises:
            MasklakeError: on reading what is written, a stage raised it, or the engine was lost.
        """
