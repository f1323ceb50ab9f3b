"""What a command says on stderr: sentences for people, or lines of JSON for whoever collects logs, where no terminal is.

Besides what masklake says itself, that is what libraries log, warn of and print: nobody who reads the lines must guess where one ends.
What native code writes, past Python, is as it is.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, TextIO

from masklake.errors import Refused
from masklake.spelling import visible

VARIABLE = "MASKLAKE_LOG_FORMAT"
_FORMATS = ("auto", "json", "text")
_ATTENTION = "ATTENTION"  # what such a sentence begins with is a warning


class _Memory:
    format: str | None = None  # within `shown`
    about: dict[str, str | None] = {"run_id": None, "table": None}  # noqa: RUF012 - this process's


def check() -> None:
    """Look at the variable that chooses.

    Raises:
        Refused: it is none of the formats.
    """
    if (given := os.environ.get(VARIABLE)) and given not in _FORMATS:
        raise Refused(f"{VARIABLE} {given} (in the environment): must be one of {', '.join(_FORMATS)}")


def are_json() -> bool:
    """Whether lines are JSON: as `MASKLAKE_LOG_FORMAT` says, else where stderr is no terminal."""
    if _Memory.format is None:
        return _chosen() == "json"
    return _Memory.format == "json"


def about(table: str | None, run_id: str | None = None) -> None:
    """Which table, and which run of it, every line is about from here on."""
    _Memory.about = {"run_id": run_id, "table": table}


def made(event: str, level: str = "info", /, **more: Any) -> dict[str, Any]:
    """A line: when, how grave, of which run and table, and what else there is to say."""
    ts = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {"ts": ts, "level": level, "event": event, **_Memory.about, **more}


def say(text: str, event: str = "message", level: str | None = None) -> None:
    """A sentence on stderr; names and labels in it may hold anything."""
    if are_json():
        level = level or ("warning" if text.startswith(_ATTENTION) else "info")
        _put(made(event, level, message=visible(text)))
    else:
        print(f"masklake: {visible(text)}", file=sys.stderr, flush=True)


def show(error: Exception) -> None:
    """The stack of something unforeseen: one line of JSON, or many for people."""
    stack = "".join(traceback.format_exception(error))
    if are_json():
        _put(made("traceback", "error", message=stack.rstrip()))
        return
    for line in stack.splitlines():
        print(visible(line), file=sys.stderr)


def _put(told: dict[str, Any], file: TextIO | None = None) -> None:
    print(json.dumps(told), file=file or sys.stderr, flush=True)


@contextmanager
def shown() -> Iterator[None]:
    """Within, whatever Python code writes to stderr is in the format that was chosen at the begin."""
    before, _Memory.format = _Memory.format, _chosen()
    about(None)
    try:
        with ExitStack() as opened:
            if _Memory.format == "json" and not isinstance(sys.stderr, _Lines):
                opened.enter_context(_caught())
            yield
    finally:
        _Memory.format = before


def _chosen() -> str:
    given = os.environ.get(VARIABLE)
    if given in ("json", "text"):
        return given
    return "text" if sys.stderr.isatty() else "json"


@contextmanager
def _caught() -> Iterator[None]:
    """Take what is logged, warned of and printed on stderr."""
    ours, warn = sys.stderr, warnings.showwarning
    lines, handler = _Lines(ours), _Records()
    sys.stderr, warnings.showwarning = lines, _warn
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        warnings.showwarning = warn
        lines.end()
        if sys.stderr is lines:
            sys.stderr = ours


def _warn(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None, line: str | None = None
) -> None:
    _put(made("warning", "warning", message=visible(str(message)), category=category.__name__, where=f"{filename}:{lineno}"), file)


class _Records(logging.Handler):
    """Lines of what libraries log."""

    def emit(self, record: logging.LogRecord) -> None:
        """A record with its logger, and its stack where it has one."""
        try:
            stack = {"traceback": logging.Formatter().formatException(record.exc_info)} if record.exc_info else {}
            level = record.levelname.lower()
            _put(made("log", level, message=visible(record.getMessage()), logger=record.name, **stack))
        except Exception:
            self.handleError(record)


class _Lines(io.TextIOBase):
    """In the place of stderr: lines of JSON pass, and any other text becomes one a line.

    Writes to a descriptor of its own, in whole lines and without a lock: others may have stderr go nowhere for a while, and a process
    that is forked in the middle of a line can go on writing.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._begun = stream, threading.local()
        self._own: io.FileIO | None = None
        if stream is sys.__stderr__:
            with suppress(OSError):
                self._own = io.FileIO(os.dup(stream.fileno()), "w")

    def write(self, text: str) -> int:
        """Take text of a thread; what has no line's end yet waits for it."""
        *whole, rest = (getattr(self._begun, "text", "") + text).split("\n")
        self._begun.text = rest
        for line in whole:
            self._put(line.rpartition("\r")[2] if "\r" in line.rstrip("\r") else line.rstrip("\r"))  # a bar was painted over
        return len(text)

    def end(self) -> None:
        """Write what this thread has begun; later lines go on to stderr as it was."""
        if getattr(self._begun, "text", ""):
            self.write("\n")

    def flush(self) -> None:
        """Nothing of a whole line is held back."""

    def fileno(self) -> int:
        """The descriptor of stderr itself, as for another process."""
        return self._stream.fileno()

    def isatty(self) -> bool:
        """No: what is for a terminal is not for here."""
        return False

    def writable(self) -> bool:
        """Yes."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of stderr."""
        return self._stream.encoding

    def _put(self, line: str) -> None:
        if not line.strip():
            return
        if not _is_object(line):
            line = json.dumps(made("stderr", "warning", message=visible(line)))
        if self._own is None:
            self._stream.write(line + "\n")
            self._stream.flush()
            return
        left = memoryview((line + "\n").encode())
        while left:
            left = left[self._own.write(left) :]


def _is_object(line: str) -> bool:
    if not line.startswith("{"):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
