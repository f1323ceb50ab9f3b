"""A single-channel PNG per image, with the label id of each pixel."""

from __future__ import annotations

from masklake.export.format import Format, Job, Written
from masklake.tasks import Task

_JSON, _PICTURES = "labels.json", "label-maps"


def _write(job: Job) -> Written:
    from masklake.export.label_maps import write_label_maps

    return write_label_maps(job, _JSON, _PICTURES)


FORMAT = Format(
    name="label-maps",
    about="label-maps/*.png and labels.json: one single-channel PNG per image with the label id of each pixel",
    tasks=(Task.SEMANTIC, Task.PANOPTIC),
    complete=(_JSON,),
    files=rf"{_PICTURES}/.+\.png",
    write=_write,
    named_files=True,
)
