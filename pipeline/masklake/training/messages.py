"""What a training on Ray says and is told: the one process that its driver and its workers both ask.

In a module of its own, so that this process imports neither torch nor Ray's training.
"""

from __future__ import annotations

from typing import Any


class Messages:
    """What workers have to say, and why they cannot go on."""

    def __init__(self) -> None:
        self._lines: list[dict[str, Any]] = []
        self._failure = ""
        self._stop, self._learning, self._ended = False, False, 0

    def stop(self, workers: int) -> bool:
        """Have the workers save and end; whether there is nothing to wait for: none of them has learned anything, or all have ended."""
        self._stop = True
        return not self._learning or self._ended >= workers

    def is_stopped(self) -> bool:
        """Asked by each worker after each step."""
        self._learning = True
        return self._stop

    def end(self) -> None:
        """Said by each worker that has nothing more to do."""
        self._ended += 1

    def put(self, line: dict[str, Any]) -> None:
        self._lines.append(line)

    def take(self) -> list[dict[str, Any]]:
        lines, self._lines = self._lines, []
        return lines

    def fail(self, reason: str) -> None:
        self._failure = self._failure or reason

    def failure(self) -> str:
        return self._failure
