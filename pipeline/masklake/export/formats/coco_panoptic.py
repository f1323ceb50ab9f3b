"""COCO's panoptic format."""

from __future__ import annotations

from masklake.export.format import Format, Job, Written
from masklake.tasks import Task

_JSON, _PICTURES = "panoptic.json", "panoptic"


def _write(job: Job) -> Written:
    from masklake.export.coco import write_panoptic

    return write_panoptic(job, _JSON, _PICTURES)


FORMAT = Format(
    name="coco-panoptic",
    about="panoptic/*.png and panoptic.json: COCO's panoptic format; a pixel's colour is its segment's id, R + 256 G + 256^2 B",
    tasks=(Task.PANOPTIC, Task.SEMANTIC),
    complete=(_JSON,),
    files=rf"{_PICTURES}/.+\.png",
    write=_write,
    named_files=True,
)
