"""COCO's formats: instances as one JSON, panoptic as PNGs and a JSON (cocodataset.org, "Data format").

A JSON is written member by member, `categories` last, because they are known when the annotations have gone by.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from masklake import storage
from masklake.errors import MasklakeError
from masklake.export.categories import Categories
from masklake.export.format import Job, Written
from masklake.export.pictures import store_each
from masklake.export.selection import Row
from masklake.table.masks import id_map

_OF_RESULTS = ("image_id", "category_id", "segmentation", "score")

SEGMENTS_PER_IMAGE = 100_000
"""An annotation's id is its image's id times this, plus its segment id; it stays below 2^53 for 90 thousand million images."""


def write_instances(job: Job, name: str) -> Written:
    """A JSON: every segment an annotation with a compressed run-length mask and its score."""
    categories = Categories()
    annotations = (_annotation(row, segment) for row in job.selection.numbered_rows() for segment in _noted(row, categories))
    _store_json(job, name, annotations, categories)
    return categories.written()


def write_results(job: Job, name: str) -> Written:
    """COCO's list of results: what pycocotools' `loadRes` takes, image, category, mask and score of each segment."""
    categories, path = Categories(), job.scratch / "results.json"
    with path.open("w", encoding="ascii") as file:
        file.write("[")
        written = 0
        for row in job.selection.numbered_rows():
            for segment in _noted(row, categories):
                # with a box, pycocotools would take its area for the mask's
                kept = {key: value for key, value in _annotation(row, segment).items() if key in _OF_RESULTS}
                file.write(f"{',' if written else ''}\n{json.dumps(kept)}")
                written += 1
        file.write("]\n")
    storage.upload_file(path, job.output + name)
    return categories.written()


def write_panoptic(job: Job, name: str, pictures: str) -> Written:
    """PNGs with segment ids as colours, in a folder, and a JSON."""
    categories = Categories()
    drawn = store_each(job.selection.numbered_rows(), f"{job.output}{pictures}/", lambda row: Image.fromarray(id_picture(row)))
    annotations = (
        {"image_id": row["id"], "file_name": row["png"], "segments_info": [_segment_info(segment) for segment in _noted(row, categories)]}
        for row in drawn
    )
    _store_json(job, name, annotations, categories)
    return categories.written()


def id_picture(row: Row) -> NDArray[np.uint8]:
    """Segment ids as colours, id = R + 256 G + 256^2 B, black where there is none: uint8 [height, width, 3].

    Raises:
        MasklakeError: masks overlap, or an area is not that of its mask.
    """
    ids = id_map(row["segments"], row["height"], row["width"])
    areas = np.bincount(ids.ravel(), minlength=1 + max((segment["segment_id"] for segment in row["segments"]), default=0))
    for segment in row["segments"]:
        seen = int(areas[segment["segment_id"]])
        if not seen or seen != segment["area"]:
            raise MasklakeError(
                f"{row['image_uri']}: segment {segment['segment_id']} has {segment['area']} pixels in the table and shows {seen}: "
                "its row is damaged, leave it out by --where"
            )
    return np.stack((ids & 255, ids >> 8 & 255, ids >> 16), axis=-1).astype(np.uint8)


def _noted(row: Row, categories: Categories) -> Iterator[Mapping[str, Any]]:
    for segment in row["segments"]:
        categories.note(segment, row["image_uri"])
        yield segment


def _segment_info(segment: Mapping[str, Any]) -> Row:
    return {
        "id": segment["segment_id"],
        "category_id": segment["category_id"],
        "area": segment["area"],
        "bbox": segment["bbox"],
        "iscrowd": 0,
        "score": round(segment["score"], 6),
        **({} if segment["class_score"] is None else {"class_score": round(segment["class_score"], 6)}),
    }


def _annotation(row: Row, segment: Mapping[str, Any]) -> Row:
    if segment["segment_id"] >= SEGMENTS_PER_IMAGE:
        raise MasklakeError(
            f"{row['image_uri']} has {segment['segment_id']} segments: annotation ids have room for {SEGMENTS_PER_IMAGE - 1}"
        )
    mask = {"size": [row["height"], row["width"]], "counts": segment["counts"].decode("ascii")}
    return {
        **_segment_info(segment),
        "id": row["number"] * SEGMENTS_PER_IMAGE + segment["segment_id"],
        "image_id": row["id"],
        "segmentation": mask,
    }


def _store_json(job: Job, name: str, annotations: Iterable[Row], categories: Categories) -> None:
    path = job.scratch / "coco.json"
    with path.open("w", encoding="ascii") as file:
        file.write(f'{{"info": {json.dumps(job.info)},\n"licenses": []')
        members = {"images": map(_image, job.selection.images()), "annotations": annotations, "categories": _late(job, categories)}
        for member, items in members.items():
            file.write(f',\n"{member}": [')
            for number, item in enumerate(items):
                file.write(f"{',' if number else ''}\n{json.dumps(item)}")
            file.write("]")
        file.write("}\n")
    storage.upload_file(path, job.output + name)


def _late(job: Job, categories: Categories) -> Iterator[Row]:
    """The categories, looked at when they are asked for: those of the official file, or those that were met."""
    yield from job.official.categories if job.official is not None else categories.coco()


def _image(row: Row) -> Row:
    return {"id": row["id"], "width": row["width"], "height": row["height"], "file_name": row["file_name"], "coco_url": row["image_uri"]}
