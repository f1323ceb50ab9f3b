"""What an export is asked for, checked before any work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from masklake import storage
from masklake.errors import Refused
from masklake.schema import Task


class Format(StrEnum):
    """What an export writes."""

    INSTANCES = "coco-instances"
    PANOPTIC = "coco-panoptic"
    LABEL_MAPS = "label-maps"
    SEGMENTS = "segments"


TASKS: Mapping[Format, tuple[Task, ...]] = {
    Format.INSTANCES: (Task.INSTANCE, Task.PANOPTIC, Task.SEMANTIC),
    Format.PANOPTIC: (Task.PANOPTIC, Task.SEMANTIC),
    Format.LABEL_MAPS: (Task.SEMANTIC, Task.PANOPTIC),
    Format.SEGMENTS: (),
}
"""The tasks whose answers a format can hold, the first of them by default; a format without any holds all tasks at once."""

BITS = (8, 16)


@dataclass(frozen=True)
class Settings:
    """One export. `table` and `output` are folders in canonical form.

    Raises:
        Refused: settings contradict each other or are out of range.
    """

    table: str
    output: str
    format: Format
    task: Task | None = None
    """None: the format's first, or all tasks where it holds all."""
    labels: tuple[str, ...] = ()
    """Segments of these labels only; empty: of all."""
    min_score: float | None = None
    where: str | None = None
    """An SQL condition on the table's columns."""
    model: str | None = None
    fingerprint: str | None = None
    bits: int = 8
    """Of a pixel of a label map."""
    void: int | None = None
    """Value of pixels without a label in a label map; None: the largest that `bits` can hold."""
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name in ("table", "output"):
            object.__setattr__(self, name, storage.normalise(getattr(self, name)).rstrip("/"))
        allowed = TASKS[self.format]
        if allowed and self.task is None:
            object.__setattr__(self, "task", allowed[0])
        if allowed and self.task not in allowed:
            raise Refused(
                f"--task {self.task}: masks of such an answer may overlap, and {self.format} holds one segment a pixel: "
                f"use --task {' or '.join(allowed)}"
            )
        if self.min_score is not None and not 0 <= self.min_score <= 1:
            raise Refused(f"--min-score {self.min_score:g}: must be between 0 and 1")
        if self.bits not in BITS:
            raise Refused(f"--bits {self.bits}: must be 8 or 16")
        if not 0 <= self.void_value < 2**self.bits:
            raise Refused(f"--void {self.void}: does not fit {self.bits} bits: use 0 to {2**self.bits - 1}")
        if f"{self.output}/".startswith(f"{self.table}/") or f"{self.table}/".startswith(f"{self.output}/"):
            raise Refused(f"--output {self.output}: is, holds or lies in the table's folder: give the export a folder of its own")

    @property
    def void_value(self) -> int:
        """The value of pixels without a label."""
        return 2**self.bits - 1 if self.void is None else self.void
