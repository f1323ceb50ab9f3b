"""Where a run stands, and who is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class State:
    """Where a run stands. Counts are of images, from committed rows; `planned` is None until the plan is made."""

    phase: str
    planned: int | None = None
    images: int = 0
    failed: int = 0
    seconds: float = 0.0
    """Since the rate began to mean something: the first commit, after the model had started."""
    warm: int = 0
    """Images that were committed by then."""

    @property
    def images_per_second(self) -> float:
        return (self.images - self.warm) / self.seconds if self.seconds else 0.0

    @property
    def eta_seconds(self) -> float | None:
        """Seconds left at the rate so far; None where nothing is known yet."""
        rate = self.images_per_second
        return ((self.planned or 0) - self.images) / rate if rate else None

    def numbers(self) -> dict[str, float | int | None]:
        """What a log line says; null is what nobody knows yet."""
        return {
            "images": self.images,
            "planned": self.planned,
            "errors": self.failed,
            "images_per_second": round(self.images_per_second, 2) or None,
            "eta_seconds": None if self.eta_seconds is None else round(self.eta_seconds),
        }


class Listener(Protocol):
    """Told how a run goes on."""

    def begin(self, run_id: str, table: str) -> None:
        """Called once, before anything is said of the run."""

    def say(self, text: str) -> None:
        """A sentence for the user."""

    def update(self, state: State) -> None:
        """Called about twice a second while work is under way."""
