"""How long a model was at work, and how often its memory did not suffice: what an operator wants to know of a device."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter


@dataclass(frozen=True)
class Spent:
    """`seconds` in which some caller had the model, and `halvings` of a batch that did not fit into memory."""

    seconds: float = 0.0
    halvings: int = 0


@dataclass
class Effort:
    """Of one model, for callers in several threads."""

    _seconds: float = 0.0
    _halvings: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Count the time within."""
        started = perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self._seconds += perf_counter() - started

    def halved(self) -> None:
        """Count a batch that did not fit."""
        with self._lock:
            self._halvings += 1

    def take(self) -> Spent:
        """What was spent since this was asked last, by whichever caller: added up, nothing counts twice."""
        with self._lock:
            spent, self._seconds, self._halvings = Spent(self._seconds, self._halvings), 0.0, 0
        return spent
