"""FiftyOne's own dataset."""

from __future__ import annotations

from masklake.export.format import Format, Job, Written
from masklake.tasks import Task

_SAMPLES, _METADATA = "samples.json", "metadata.json"


def _write(job: Job) -> Written:
    from masklake.export.fiftyone import write_fiftyone

    return write_fiftyone(job, _SAMPLES, _METADATA)


FORMAT = Format(
    name="fiftyone",
    about="samples.json and metadata.json: a FiftyOneDataset, an exact mask per segment; --copy-images for data/, which S3 needs",
    tasks=(Task.INSTANCE, Task.PANOPTIC, Task.SEMANTIC),
    complete=(_SAMPLES, _METADATA),
    files=r"data/.+",
    write=_write,
    named_files=True,
    background=False,
    copies=True,
)
