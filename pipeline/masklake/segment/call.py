"""The job as a function of its settings."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from masklake.config import checked, extras
from masklake.config.closest import closest
from masklake.segment.progress import Listener, State
from masklake.segment.settings import PROGRAM

_LOG = logging.getLogger("masklake")
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class _Log(Listener):
    """Tells the log."""

    def begin(self, run_id: str, table: str) -> None:
        _LOG.debug("run %s, table %s", run_id, table)

    def say(self, text: str) -> None:
        _LOG.info("%s", text)

    def update(self, state: State) -> None:
        _LOG.debug("%s: %s", state.phase, state.numbers())


def call(settings: Mapping[str, Any], listener: Listener | None = None) -> dict[str, Any]:
    """Run the job; see `masklake.segment`."""
    extras.demand(PROGRAM.needs, "masklake.segment")
    unknown = [f"{name!r} is not a setting of masklake.segment{_hint(name)}" for name in settings if name not in PROGRAM.names]
    given = {PROGRAM.names[name]: _plain(value) for name, value in settings.items() if name in PROGRAM.names}
    config = checked(PROGRAM, {"in masklake.segment": given}, unknown)
    from masklake.segment import run  # Ray takes seconds to be imported

    with _own_signals():
        return run.segment(config, listener or _Log())


def _hint(name: str) -> str:
    close = closest(name, PROGRAM.names)
    return f": did you mean {close!r}?" if close else "; `masklake segment --help` lists them"


def _plain(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


@contextmanager
def _own_signals() -> Iterator[None]:
    """A run listens to SIGTERM and Ctrl-C; afterwards they mean again what they meant to this program."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                if handler is not None:
                    signal.signal(number, handler)
