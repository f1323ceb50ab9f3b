"""YOLO's text files of polygons."""

from __future__ import annotations

from masklake.export.format import Format, Job, Written
from masklake.tasks import Task

_YAML = "data.yaml"


def _write(job: Job) -> Written:
    from masklake.export.yolo import write_yolo

    return write_yolo(job, _YAML)


FORMAT = Format(
    name="yolo-seg",
    about="labels/*.txt and data.yaml: YOLO's text files, a polygon per segment, as Ultralytics reads them",
    tasks=(Task.INSTANCE, Task.PANOPTIC, Task.SEMANTIC),
    complete=(_YAML,),
    files=r"labels/.+\.txt|images/.+",
    write=_write,
    named_files=True,
    background=False,
    polygons=True,
    copies=True,
)
