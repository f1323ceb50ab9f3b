"""COCO's list of results."""

from __future__ import annotations

from masklake.export.format import Format, Job, Written
from masklake.tasks import Task

_JSON = "results.json"


def _write(job: Job) -> Written:
    from masklake.export.coco import write_results

    return write_results(job, _JSON)


FORMAT = Format(
    name="coco-results",
    about="results.json: the plain list of masks and scores that pycocotools' loadRes takes, with --categories-of",
    tasks=(Task.INSTANCE, Task.PANOPTIC, Task.SEMANTIC),
    complete=(_JSON,),
    files="",
    write=_write,
)
