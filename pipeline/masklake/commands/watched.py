"""A command as two processes: one works, the other waits for it, and has the last word where the first ended without one.

Native code ends a process without asking Python: Ray's client does so (`_Exit(1)`) at the first use of an object store whose raylet died,
and where its control store was silent for a minute; the kernel does where memory is short. Only another process can still say so.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any, NoReturn

from masklake import leaving, stopping
from masklake.commands.ending import end_with, leave
from masklake.errors import MasklakeError

_ASKING = (signal.SIGTERM, signal.SIGINT)
_PAUSING = (signal.SIGTSTP, signal.SIGCONT)
_GO_ON = "what was committed stays, run the same command to go on"


def run_watched(work: Callable[[], int]) -> NoReturn:
    """Run the work in a child process and end this one with its exit code. To be called before anything has started a thread.

    Signals are handed on. Where the child ends before `work` has returned, a sentence and the JSON line say so: exit code 1, or what a
    stop is told by, where one was asked for. The child does not outlive this process.

    Args:
        work: says its last line itself, and returns the exit code.
    """
    ours, theirs = os.pipe()  # the child reads, and comes to the end when this process does
    said, say = os.pipe()
    signal.pthread_sigmask(signal.SIG_BLOCK, [*_ASKING, *_PAUSING])  # none is lost between the two
    child = os.fork()
    if not child:
        os.close(theirs)
        os.setpgid(0, 0)  # a terminal and whoever ends a group would signal twice: the second is for those without patience
        if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the work listens: no stack trace
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [*_ASKING, *_PAUSING])
        threading.Thread(target=_end_with_parent, args=(ours,), name="parent", daemon=True).start()
        leaving.with_job()
        code = _end_of(work)
        for number in _ASKING:
            signal.signal(number, signal.SIG_IGN)  # it has ended, and said how
        leaving.now()
        os.write(say, b".")
        leave(code)
    os.close(ours)
    os.close(say)
    with suppress(OSError):  # one that is over already
        os.setpgid(child, child)
    asked = _hand_on(child)
    _, status = os.waitpid(child, 0)
    stopping.listen()
    os.set_blocking(said, False)
    with suppress(BlockingIOError):  # a process of the child's lives on, and holds the other end
        if os.read(said, 1):
            leave(os.waitstatus_to_exitcode(status))
    leave(end_with(lambda: _account_for(os.waitstatus_to_exitcode(status), asked)))


def _end_of(work: Callable[[], int]) -> int:
    """The exit code of work that returns one, that leaves as argparse does with a shell's completions, or that a stop meets too early."""
    try:
        return work()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except stopping.Stopped as stop:
        return end_with(partial(_raise, stop))


def _raise(error: BaseException) -> NoReturn:
    raise error


def _end_with_parent(pipe: int) -> None:
    os.read(pipe, 1)
    os.kill(os.getpid(), signal.SIGKILL)


def _hand_on(child: int) -> set[int]:
    """Take signals for the child from here on; returns those that came, which grow."""
    asked: set[int] = set()

    def ask(number: int, frame: FrameType | None) -> None:
        asked.add(number)
        with suppress(ProcessLookupError):
            os.kill(child, number)

    def pause(number: int, frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)

    def go_on(number: int, frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGCONT)

    handlers = {**dict.fromkeys(_ASKING, ask), signal.SIGTSTP: pause, signal.SIGCONT: go_on}
    for number, handler in handlers.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [*_ASKING, *_PAUSING])
    return asked


def _account_for(code: int, asked: set[int]) -> dict[str, Any]:
    """What became of a child that did not say.

    Raises:
        Stopped: what it was asked to do.
        MasklakeError: anything else.
    """
    if -code in asked:
        raise stopping.Stopped(-code)
    if code == -signal.SIGKILL:
        raise MasklakeError(f"the process that did the work was killed (SIGKILL), perhaps for lack of memory; {_GO_ON}")
    if code < 0:
        raise MasklakeError(f"the process that did the work crashed ({signal.Signals(-code).name}); {_GO_ON}")
    raise MasklakeError(
        f"the process that did the work ended without a message (exit code {code}), as Ray ends it when its processes are gone; {_GO_ON}"
    )
