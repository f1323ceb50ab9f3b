"""Telling others how a run went: a JSON document posted to a URL, and OpenLineage events.

Neither may cost a run anything: each is done in bounded time, and what fails is said and changes no outcome.
"""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from masklake.errors import MasklakeError, Say, first_line, outcome_of
from masklake.segment.lineage import Lineage
from masklake.segment.machine import own_version
from masklake.segment.progress import Listener, State
from masklake.segment.settings import Config
from masklake.stopping import Stopped

SECONDS = 15.0
"""How long the end of a run may wait for others."""

STOPPED_SECONDS = 1.0
"""The same of a run that is stopped: whoever stops it kills it soon."""

_TRY_SECONDS = 5.0

Summary = dict[str, Any]


def told(config: Config, listener: Listener, work: Callable[[Listener], Summary]) -> Summary:
    """Do the work of a run, and tell whoever is to know how it ended, whatever the end is.

    Raises:
        BaseException: what the work raised.
    """
    lineage = None if config.dry_run or config.preview else Lineage.here(config, listener.say)
    if config.notify is None and lineage is None:
        return work(listener)
    watching = _Watching(listener, lineage)
    started = datetime.now(UTC)
    try:
        summary = work(watching)
    except BaseException as error:
        _tell(config, lineage, ending_of(error, watching.run), started, listener.say)
        raise
    code = 3 if summary["too_many_failed"] else 0
    _tell(config, lineage, {**summary, "exit_code": code}, started, listener.say)
    return summary


def ending_of(error: BaseException, run: Mapping[str, Any]) -> Summary:
    """What the last line will say of a run that ended so."""
    stopped = error.summary if isinstance(error, Stopped) else {}
    code = getattr(error, "exit_code", 130 if isinstance(error, KeyboardInterrupt) else 1)
    reason = "stopped" if isinstance(error, KeyboardInterrupt) else str(error) if isinstance(error, MasklakeError) else _named(error)
    return {**run, **stopped, "outcome": outcome_of(code), "error": reason, "exit_code": code}


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


class _Watching(Listener):
    """Passes on what a run tells, and knows which run of which table it is."""

    def __init__(self, listener: Listener, lineage: Lineage | None) -> None:
        self.run: dict[str, str] = {}
        self._listener, self._lineage = listener, lineage

    def begin(self, run_id: str, table: str) -> None:
        self.run = {"run_id": run_id, "table": table}
        if self._lineage:
            self._lineage.begin(run_id, table)
        self._listener.begin(run_id, table)

    def say(self, text: str) -> None:
        self._listener.say(text)

    def update(self, state: State) -> None:
        self._listener.update(state)


def _tell(config: Config, lineage: Lineage | None, ended: Summary, started: datetime, say: Say) -> None:
    seconds = STOPPED_SECONDS if ended["outcome"] == "stopped" else SECONDS
    url = config.notify
    tasks: dict[str, Callable[[], None]] = {}
    if url is not None:
        document = {"event": "masklake.segment", "version": own_version(), "started_at": started.isoformat(), **ended}
        tasks[f"--notify {place(url)}"] = lambda: post(url, {**document, "finished_at": datetime.now(UTC).isoformat()})
    if lineage:
        tasks["OPENLINEAGE_URL"] = lambda: lineage.end(ended)
    waiting = {name: _begun(task) for name, task in tasks.items()}
    for name, (thread, failed) in waiting.items():
        thread.join(seconds)
        if thread.is_alive():
            say(f"{name}: no answer within {seconds:g} s, so nobody was told there how the run ended")
        elif failed:
            say(f"{name}: nobody was told there how the run ended: {failed[0]}")


def _begun(task: Callable[[], Any]) -> tuple[threading.Thread, list[str]]:
    """A task in a thread of its own that ends with the process, and why it failed, once it has."""
    failed: list[str] = []

    def run() -> None:
        try:
            task()
        except Exception as error:
            failed.append(_reason(error))

    thread = threading.Thread(target=run, name="notice", daemon=True)
    thread.start()
    return thread, failed


def _reason(error: Exception) -> str:
    """Without the URL, whose path is often a secret."""
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    return type(error).__name__


def post(url: str, document: Mapping[str, Any]) -> None:
    """Post a document as JSON.

    Raises:
        OSError: nobody took it, twice.
    """
    headers = {"Content-Type": "application/json", "User-Agent": f"masklake/{own_version()}"}
    request = urllib.request.Request(url, json.dumps(document, default=str).encode(), headers, method="POST")  # noqa: S310 - http(s) only
    for last in (False, True):
        try:
            with urllib.request.urlopen(request, timeout=_TRY_SECONDS):  # noqa: S310
                return
        except urllib.error.HTTPError as error:
            if last or error.code < 500:
                raise
        except OSError:
            if last:
                raise


def place(url: str) -> str:
    """A URL without its path, query and user."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
