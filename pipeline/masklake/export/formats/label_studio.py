"""Label Studio's JSON of tasks with predictions."""

from __future__ import annotations

from masklake.export.format import Format, Job, Written
from masklake.tasks import Task

_JSON, _CONFIG = "tasks.json", "labels.xml"


def _write(job: Job) -> Written:
    from masklake.export.label_studio import write_label_studio

    return write_label_studio(job, _JSON, _CONFIG)


FORMAT = Format(
    name="label-studio",
    about="tasks.json and labels.xml: tasks with predictions, a polygon per segment, and the labelling configuration",
    tasks=(Task.INSTANCE, Task.PANOPTIC, Task.SEMANTIC),
    complete=(_JSON, _CONFIG),
    files="",
    write=_write,
    background=False,
    polygons=True,
)
