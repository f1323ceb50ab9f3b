"""The runs of a table: from its log (who began, what was committed), the markers (who is unfinished) and the reports (how it went)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from masklake.table import log, runs
from masklake.table.overlap import Watch
from masklake.table.reports import reports
from masklake.table.runs import Marker

MOST_ENTRIES = 10_000
"""Entries of the log that are read, the newest: a run makes one every few seconds."""

_LOOK_SECONDS = 1.0

State = Literal["alive", "dead", "stopped", "done", "over"]
"""`over`: it began, and left neither a marker nor a report: a newer run took over, or it had nothing to do but to clean up."""


@dataclass(frozen=True)
class Run:
    """A run; a compaction, an erasure or a publication under way has no input."""

    run_id: str
    state: State = "over"
    input: str = ""
    began: datetime | None = None
    """By the store's clock; None where the log that was read does not reach back."""
    last_commit: datetime | None = None
    rows: int = 0
    """That it committed, as far as the log was read."""
    report: Mapping[str, Any] = field(default_factory=dict)
    """Its report, or nothing."""


@dataclass(frozen=True)
class Past:
    """The last runs, newest first, and whether older ones may be missing because the log was not read to its beginning."""

    runs: Sequence[Run]
    complete: bool


def past(table_uri: str, most: int, lease_seconds: float, sleep: Callable[[float], None] = time.sleep) -> Past:
    """The last runs of a table, and all that are unfinished; takes `lease_seconds` where one of these does not respond.

    Raises:
        MasklakeError: the log or a marker cannot be read.
    """
    found, complete = _logged(table_uri, most)
    unfinished = _states(table_uri, lease_seconds, sleep)
    for marker, _ in unfinished:
        found.setdefault(marker.run_id, Run(marker.run_id, input=marker.scope))
    states = {marker.run_id: state for marker, state in unfinished}
    newest = sorted(found.values(), key=lambda run: (run.began is None, -(run.began.timestamp() if run.began else 0)))
    shown = [run for place, run in enumerate(newest) if place < most or run.run_id in states]
    told = reports(table_uri, [run.run_id for run in shown])
    return Past([_with_state(run, states.get(run.run_id), told.get(run.run_id, {})) for run in shown], complete)


def _with_state(run: Run, marked: State | None, report: Mapping[str, Any]) -> Run:
    outcome: State = "over" if not report else "stopped" if report.get("outcome") == "stopped" else "done"
    return replace(run, report=report, state=outcome if report else marked or "over")


def _logged(table_uri: str, most: int) -> tuple[dict[str, Run], bool]:
    """The runs that the newest entries of the log tell of, up to `most` beginnings; whether that is all of the log."""
    times = log.listed(table_uri).entries
    versions = sorted(times, reverse=True)
    found: dict[str, Run] = {}
    begun = read = 0
    for first in range(0, min(len(versions), MOST_ENTRIES), log.PAGE):
        if begun > most:
            break
        page = versions[first : first + log.PAGE]
        for version, actions in log.entries(table_uri, page):
            event = log.event(actions)
            if event and event.get("event") in ("begin", "data"):
                run = _told(found.get(event["run_id"], Run(event["run_id"])), event, times[version])
                found[run.run_id] = run
                begun += event["event"] == "begin"
        read += len(page)
    return found, read == len(versions) and min(versions, default=0) == 0


def _told(run: Run, event: Mapping[str, Any], at: datetime | None) -> Run:
    """A run, and one more of its commits."""
    if event["event"] == "begin":
        return replace(run, input=event.get("scope", ""), began=at)
    later = max((each for each in (run.last_commit, at) if each), default=None)
    return replace(run, rows=run.rows + int(event.get("rows", 0)), last_commit=later)


def _states(table_uri: str, lease_seconds: float, sleep: Callable[[float], None]) -> list[tuple[Marker, State]]:
    """The unfinished runs, each with whether it lives: its marker changes while we look, or it is dead."""
    watch, waited = Watch(lease_seconds), 0.0
    while True:
        markers = runs.markers(table_uri)
        looked = watch.look(markers, waited)
        if all(looked.values()):
            return [(each, "stopped" if each.stopped else "alive" if looked.get(each.run_id) else "dead") for each in markers]
        sleep(_LOOK_SECONDS)
        waited += _LOOK_SECONDS
