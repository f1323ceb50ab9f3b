"""CVAT's XML of images."""

from __future__ import annotations

from masklake.export.format import Format, Job, Written
from masklake.tasks import Task

_XML = "annotations.xml"


def _write(job: Job) -> Written:
    from masklake.export.cvat import write_cvat

    return write_cvat(job, _XML)


FORMAT = Format(
    name="cvat",
    about="annotations.xml: CVAT for images 1.1, an exact mask per segment",
    tasks=(Task.INSTANCE, Task.PANOPTIC, Task.SEMANTIC),
    complete=(_XML,),
    files=r"images/.+",
    write=_write,
    named_files=True,
    background=False,
    copies=True,
)
