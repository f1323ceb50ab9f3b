"""How every job ends: an exit code, messages without a stack trace on stderr, and one JSON object as the last line on stdout."""

from __future__ import annotations

import errno
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn, TextIO

from masklake import stopping
from masklake.commands import lines
from masklake.commands.lines import say
from masklake.errors import MasklakeError, chain, one_line, outcome_of

_EVERY = 10.0  # seconds between lines of progress
_FULL = {errno.ENOSPC, errno.EDQUOT}
_FULL_IN_WORDS = os.strerror(errno.ENOSPC)  # of libraries that keep the words alone


def end_with(
    work: Callable[[], dict[str, Any]], interrupted: str = "interrupted; what was committed stays, run the same command to go on"
) -> int:
    """Do the work of a job and say how it ended; returns the exit code.

    Args:
        work: returns the job's summary; its `exit_code` is 0 where it names none.
        interrupted: what to say where the user, or the cluster, stops the job (exit code 130 after Ctrl-C, 143 after SIGTERM).
    """
    try:
        with lines.shown():
            return _ended(work, interrupted)
    finally:
        stopping.forget()


def _ended(work: Callable[[], dict[str, Any]], interrupted: str) -> int:
    stopping.listen()
    stdout = sys.stdout  # which is another one later, for threads of Ray's go on printing
    told = partial(_fail, stdout)
    try:
        summary = {"exit_code": 0, **work()}
    except KeyboardInterrupt as stop:
        return told([interrupted], *((stop.exit_code, stop.summary) if isinstance(stop, stopping.Stopped) else (130,)))
    except Exception as error:
        if swallowed := stopping.swallowed():
            return told([interrupted], swallowed.exit_code, swallowed.summary)
        if isinstance(error, MasklakeError):
            return told(error.args, error.exit_code)
        if _is_disk_full(error):
            place = os.environ.get("TMPDIR") or tempfile.gettempdir()
            full = (
                f"no space is left on this machine's disk, where temporary files go ({place}): free some, or name another in TMPDIR; "
                "what was committed stays, run the same command to go on"
            )
            return told([full], 1)
        lines.show(error)
        return told([f"{type(error).__name__}: {one_line(error)}"], 1)
    _last(stdout, summary)
    return int(summary["exit_code"])


def _fail(stdout: TextIO, reasons: Sequence[str], code: int, summary: dict[str, Any] | None = None) -> int:
    outcome, level = outcome_of(code), _level(code)
    for reason in reasons:
        say(reason, outcome, level)
    _last(stdout, {**(summary or {}), "outcome": outcome, "error": "\n".join(reasons), "exit_code": code})
    return code


def _last(stdout: TextIO, summary: dict[str, Any]) -> None:
    about = lines.made("end", _level(summary["exit_code"])) if lines.are_json() else {}
    print(json.dumps({**about, **summary}), file=stdout, flush=True)


def _level(code: int) -> str:
    return {0: "info", 130: "warning", 143: "warning"}.get(code, "error")


def _is_disk_full(error: BaseException) -> bool:
    return any((isinstance(link, OSError) and link.errno in _FULL) or _FULL_IN_WORDS in str(link) for link in chain(error))


class Paced:
    """Progress for the user, every ten seconds at most."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, text: str) -> None:
        if time.monotonic() - self._last >= _EVERY:
            self._last = time.monotonic()
            say(text)


def leave(code: int) -> NoReturn:
    """End the process now, with this exit code, and without taking the interpreter down.

    While that happens, Ray's native threads may still run, and now and then one of them aborts the process: a finished job's exit code
    would then be 134. Whoever calls this has closed everything of its own.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
