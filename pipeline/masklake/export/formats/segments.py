"""The flat form: Parquet files of one row per segment."""

from __future__ import annotations

from masklake.export.format import Format, Job, Written


def _file(number: int) -> str:
    return f"segments-{number:05d}.parquet"


def _write(job: Job) -> Written:
    from masklake.export.segments import write_segments

    return write_segments(job, _file)


FORMAT = Format(
    name="segments",
    about="segments-*.parquet: one row per segment, with its image, label, score, area, share of the image, box and mask",
    tasks=(),
    complete=(),
    files=r"segments-[0-9]+\.parquet",
    write=_write,
    numbered=False,
)
