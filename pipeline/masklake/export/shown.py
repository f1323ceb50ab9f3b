"""Pictures of segments: each cut out of its image, or all painted over it."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

from PIL import Image

from masklake.export.categories import Categories
from masklake.export.format import Job, Written
from masklake.export.pictures import as_png, store_files
from masklake.export.selection import Row
from masklake.export.sources import Images
from masklake.results import cutouts
from masklake.table.masks import overlay

_QUALITY = 90
_ODD = re.compile(r"[^\w.-]+")  # in a label, for a file's name
_LONGEST = 60


def write_cutouts(job: Job, folder: str) -> Written:
    """A PNG with transparency per segment, in a folder per image."""

    def make(row: Row, images: Images) -> list[tuple[str, bytes]]:
        pixels = images.pixels(row) if row["segments"] else None
        if pixels is None:
            return []
        return [
            (f"{job.output}{folder}/{row['stem']}/{_name(segment['segment_id'], segment['label'])}.png", as_png(Image.fromarray(cut)))
            for segment, cut in zip(row["segments"], cutouts(pixels, row["segments"]), strict=True)
            if cut.size
        ]

    return _write(job, make)


def write_overlays(job: Job, folder: str) -> Written:
    """A JPEG per image."""

    def make(row: Row, images: Images) -> list[tuple[str, bytes]]:
        pixels = images.pixels(row)
        if pixels is None:
            return []
        file = io.BytesIO()
        Image.fromarray(overlay(pixels, row["segments"])).save(file, "JPEG", quality=_QUALITY)
        return [(f"{job.output}{folder}/{row['stem']}.jpg", file.getvalue())]

    return _write(job, make)


def _write(job: Job, make: Callable[[Row, Images], list[tuple[str, bytes]]]) -> Written:
    categories, images = Categories(), Images()
    for row in store_files(job.selection.numbered_rows(), lambda row: make(row, images)):
        for segment in row["segments"]:
            categories.note(segment, row["image_uri"])
    return categories.written(remarks=images.remarks())


def _name(segment_id: int, label: str) -> str:
    return f"{segment_id:04d}-{_ODD.sub('_', label)[:_LONGEST]}"
