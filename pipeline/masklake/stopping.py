"""Stops: SIGTERM and Ctrl-C as one exception, raised at once or, where a step must not break in the middle, when it is asked for.

A library can lose an exception that a signal raises in its midst, as transformers and the interpreter's own callbacks do while modules are
imported, or make an error of its own of it. So what is raised is watched: where nothing handles it any more and the process goes on, it is
raised again.
"""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Protocol
from weakref import WeakSet

from masklake.errors import chain

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_LOOK_SECONDS, _LOST_LOOKS = 0.1, 10  # a stop is lost that nothing handles at so many looks in a row


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
    stop = _Memory.raised = Stopped(number)
    with suppress(RuntimeError):  # the interpreter is ending
        _thread.start_new_thread(_insist, (stop, number))  # `threading` has locks, of which this thread may hold one
    raise stop


def _insist(stop: Stopped, number: int) -> None:
    """Signal again where a stop was lost."""
    main = threading.main_thread().ident
    assert main is not None
    lost = 0
    while lost < _LOST_LOOKS:
        time.sleep(_LOOK_SECONDS)
        if _Memory.raised is not stop:
            return
        lost = 0 if _is_ending(main) else lost + 1
    signal.pthread_kill(main, number)


def _is_ending(thread: int) -> bool:
    """Whether a thread is at the end of something: an exception handler or `finally` after a stop, or a generator that is closed."""
    found: Any = sys._current_exceptions().get(thread)
    error = found[1] if isinstance(found, tuple) else found  # as Python 3.11 has it, and 3.12
    return any(isinstance(link, (Stopped, GeneratorExit)) for link in chain(error))


def swallowed() -> Stopped | None:
    """The stop that was raised, where some library made an error of its own of it, as DuckDB does of one in a query."""
    return _Memory.raised


def forget() -> None:
    """Say that what was raised has been attended to: for whoever catches it and lets the process go on."""
    _Memory.raised = None


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
