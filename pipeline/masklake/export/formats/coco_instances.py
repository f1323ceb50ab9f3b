"""COCO's instance JSON."""

from __future__ import annotations

from masklake.export.format import Format, Job, Written
from masklake.tasks import Task

_JSON = "instances.json"


def _write(job: Job) -> Written:
    from masklake.export.coco import write_instances

    return write_instances(job, _JSON)


FORMAT = Format(
    name="coco-instances",
    about="instances.json: COCO's instance JSON, an annotation per segment: a compressed run-length mask, and its score",
    tasks=(Task.INSTANCE, Task.PANOPTIC, Task.SEMANTIC),
    complete=(_JSON,),
    files="",
    write=_write,
)
