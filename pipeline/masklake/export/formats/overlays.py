"""Each image with its segments painted over it."""

from __future__ import annotations

from masklake.export.format import Format, Job, Written
from masklake.tasks import Task


def _write(job: Job) -> Written:
    from masklake.export.shown import write_overlays

    return write_overlays(job, "overlays")


FORMAT = Format(
    name="overlays",
    about="overlays/*.jpg: each image with its segments painted over it",
    tasks=(Task.PANOPTIC, Task.INSTANCE, Task.SEMANTIC),
    complete=(),
    files=r"overlays/.+\.jpg",
    write=_write,
    named_files=True,
)
