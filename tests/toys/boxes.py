"""Boxes as CSV. Its place: masklake/export/formats/; its line: an entry of FORMATS."""

from __future__ import annotations

from masklake.export.format import Format, Job, Written
from masklake.tasks import Task


def _write(job: Job) -> Written:
    from masklake import storage

    labels, lines = set[str](), ["image,label,x,y,width,height"]
    for row in job.selection.numbered_rows():
        for segment in row["segments"]:
            labels.add(segment["label"])
            lines.append(",".join(map(str, [row["image_uri"], segment["label"], *segment["bbox"]])))
    storage.write_bytes(f"{job.output}boxes.csv", "\n".join(lines).encode())
    return Written(len(lines) - 1, frozenset(labels))


FORMAT = Format(
    name="boxes",
    about="boxes.csv: a line per segment",
    tasks=(Task.INSTANCE, Task.SEMANTIC),
    complete=("boxes.csv",),
    files="",
    write=_write,
)
