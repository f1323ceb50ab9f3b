"""Each segment as a picture of its own."""

from __future__ import annotations

from masklake.export.format import Format, Job, Written
from masklake.tasks import Task


def _write(job: Job) -> Written:
    from masklake.export.shown import write_cutouts

    return write_cutouts(job, "cutouts")


FORMAT = Format(
    name="cutouts",
    about="cutouts/IMAGE/ID-LABEL.png: each segment cut out of its image, transparent beside its mask",
    tasks=(Task.INSTANCE, Task.PANOPTIC, Task.SEMANTIC),
    complete=(),
    files=r"cutouts/.+\.png",
    write=_write,
    named_files=True,
    background=False,
)
