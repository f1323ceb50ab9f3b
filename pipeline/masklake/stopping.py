"""Stops: SIGTERM and Ctrl-C as one exception, raised at once or, where a step must not break in the middle, when it is asked for."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Protocol
from weakref import WeakSet

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(KeyboardInterrupt):
    """The user, or the cluster, ends the job.

    Attributes:
        exit_code: 143 for SIGTERM, 130 for Ctrl-C, as shells have it.
        summary: what the job wants to have said of itself in the last line.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number
        self.summary: dict[str, Any] = {}


class _Memory:
    """What has been asked of this process."""

    held = False
    number: int | None = None
    raised: Stopped | None = None


def listen() -> None:
    """Take the signals from here on; to be said again after a library has put handlers of its own in place."""
    if threading.current_thread() is threading.main_thread():
        _Memory.raised = None
        for number in _SIGNALS:
            signal.signal(number, _take)


class Interruptible(Protocol):
    """What is at work in C++, in threads of its own."""

    def interrupt(self) -> None:
        """Break off what it is at, if anything; harmless where that is over."""


_interruptible = WeakSet[Interruptible]()


def interrupt(work: Interruptible) -> None:
    """Interrupt it when a signal is raised, for as long as it is there."""
    _interruptible.add(work)


def _take(number: int, frame: FrameType | None) -> None:
    if _Memory.held and _Memory.number is None:  # a second signal is for somebody who has no patience left
        _Memory.number = number
        return
    for work in list(_interruptible):
        with suppress(Exception):  # it was closed
            work.interrupt()
    _Memory.raised = Stopped(number)
    raise _Memory.raised


def swallowed() -> Stopped | None:
    """The stop that was raised, where some library made an error of its own of it, as DuckDB does of one in a query."""
    return _Memory.raised


@contextmanager
def held() -> Iterator[None]:
    """Within, a signal is remembered for `requested`; at the end, one that nobody asked about is raised.

    Raises:
        Stopped: a signal came.
    """
    _Memory.held, _Memory.number = True, None
    try:
        yield
    finally:
        _Memory.held = False
    check()


def requested() -> bool:
    """Whether a signal came since `held`."""
    return _Memory.number is not None


def check() -> None:
    """Raise what `held` has remembered.

    Raises:
        Stopped: a signal came.
    """
    number, _Memory.number = _Memory.number, None
    if number is not None:
        raise Stopped(number)
