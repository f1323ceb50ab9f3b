"""YOLO's text files, `class x1 y1 x2 y2 ...` as shares of the image, and data.yaml, as Ultralytics reads them."""

from __future__ import annotations

import yaml

from masklake import storage
from masklake.export.categories import Categories
from masklake.export.format import Job, Written
from masklake.export.outlines import joined
from masklake.export.pictures import store_files
from masklake.export.polygons import Polygons
from masklake.export.selection import Row
from masklake.export.sources import Images


def write_yolo(job: Job, name: str) -> Written:
    """A text file per image, and the classes, numbered from 0 by their label ids, in a YAML.

    Raises:
        Refused: two images, as a.jpg and a.png, would have one text file.
    """
    job.selection.check_stems(job.settings.format)
    labels = job.selection.labels()
    number = {label_id: place for place, label_id in enumerate(labels)}
    categories, polygons, images = Categories(), Polygons(job.settings.simplify), Images(job.settings.copy_images)

    def make(row: Row) -> list[tuple[str, bytes]]:
        height, width = row["height"], row["width"]
        lines = []
        for segment in row["segments"]:
            corners = joined(polygons.of(segment, height, width)) / (width, height)
            if len(corners):
                lines.append(f"{number[segment['label_id']]} {' '.join(f'{share:.6f}' for share in corners.ravel())}\n")
        files = [(f"{job.output}labels/{row['stem']}.txt", "".join(lines).encode("ascii"))]
        return [*files, *images.copied(row, f"{job.output}images/")]

    for row in store_files(job.selection.numbered_rows(), make):
        for segment in row["segments"]:
            categories.note(segment, row["image_uri"])
    data = {"path": ".", "train": "images", "val": "images", "names": {number[label_id]: label for label_id, label in labels.items()}}
    storage.write_bytes(job.output + name, yaml.safe_dump(data, sort_keys=False, allow_unicode=True).encode())
    return categories.written(polygons.iou(), images.remarks())
