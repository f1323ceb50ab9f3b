"""What is left for the very end of a process that ends with its job: after the last line, when nobody waits for more."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress


class _Memory:
    ends = False
    last: list[Callable[[], None]] = []  # noqa: RUF012 - this process's


def with_job() -> None:
    """Say that this process ends with its job, and that `now` will be called then."""
    _Memory.ends = True


def is_with_job() -> bool:
    """Whether this process ends with its job; else it may live on, as a notebook does."""
    return _Memory.ends


def finally_do(task: Callable[[], None]) -> None:
    """Leave a task for the end."""
    _Memory.last.append(task)


def now() -> None:
    """Do what was left; what fails then changes no outcome."""
    while _Memory.last:
        with suppress(Exception):
            _Memory.last.pop()()
