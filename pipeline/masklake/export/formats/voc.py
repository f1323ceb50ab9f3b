"""Pascal VOC's folders."""

from __future__ import annotations

from masklake.export.format import Format, Job, Written
from masklake.tasks import Task

_LABELS = "labelmap.txt"


def _write(job: Job) -> Written:
    from masklake.export.voc import write_voc

    return write_voc(job, _LABELS)


FORMAT = Format(
    name="voc",
    about="SegmentationClass, SegmentationObject, Annotations, ImageSets, labelmap.txt: Pascal VOC's folders, colours as in CVAT",
    tasks=(Task.PANOPTIC, Task.SEMANTIC),
    complete=(_LABELS,),
    files=r"(?:SegmentationClass|SegmentationObject)/.+\.png|Annotations/.+\.xml|ImageSets/.+\.txt|JPEGImages/.+",
    write=_write,
    named_files=True,
    copies=True,
)
