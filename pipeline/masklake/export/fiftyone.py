"""FiftyOne's own format of a dataset (`fiftyone.types.FiftyOneDataset`): a field `masklake` of detections with their masks.

A mask is a NumPy file, compressed with zlib, in base64, of the pixels in its box, as FiftyOne serialises arrays.
"""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from masklake import storage
from masklake.export.categories import Categories
from masklake.export.format import Job, Written
from masklake.export.pictures import store_files
from masklake.export.selection import Row
from masklake.export.sources import Images
from masklake.table.masks import decode_masks

_FIELD = "masklake"


def write_fiftyone(job: Job, name: str, metadata: str) -> Written:
    """The samples, then what the dataset is."""
    categories, images = Categories(), Images(job.settings.copy_images)
    path = job.scratch / "samples.json"

    with path.open("w", encoding="ascii") as file:
        file.write('{"samples": [')
        for place, row in enumerate(store_files(job.selection.numbered_rows(), lambda row: images.copied(row, f"{job.output}data/"))):
            for segment in row["segments"]:
                categories.note(segment, row["image_uri"])
            file.write(f"{',' if place else ''}\n{json.dumps(_sample(row, job.settings.copy_images))}")
        file.write("\n]}\n")
    storage.upload_file(path, job.output + name)
    about = {
        "name": f"masklake {job.selection.task}",
        "version": "1.0",
        "media_type": "image",
        "sample_fields": [],
        "default_classes": list(categories.labels.values()),
        "info": dict(job.info),
    }
    storage.write_bytes(job.output + metadata, json.dumps(about).encode())
    return categories.written(remarks=images.remarks())


def _sample(row: Row, copied: bool) -> dict[str, Any]:
    uri = row["image_uri"]
    return {
        "filepath": f"data/{row['file_name']}" if copied else uri.removeprefix("file://"),
        "tags": [],
        "metadata": {"_cls": "ImageMetadata", "width": row["width"], "height": row["height"]},
        "_media_type": "image",
        "image_uri": uri,
        _FIELD: {"_cls": "Detections", "detections": [_detection(segment, row) for segment in row["segments"]]},
    }


def _detection(segment: Mapping[str, Any], row: Row) -> dict[str, Any]:
    x, y, w, h = segment["bbox"]
    height, width = row["height"], row["width"]
    mask, file = decode_masks([segment], height, width)[0, y : y + h, x : x + w], io.BytesIO()
    np.save(file, mask, allow_pickle=False)
    return {
        "_cls": "Detection",
        "attributes": {},
        "tags": [],
        "label": segment["label"],
        "bounding_box": [x / width, y / height, w / width, h / height],
        "mask": {"$binary": {"base64": base64.b64encode(zlib.compress(file.getvalue())).decode("ascii"), "subType": "00"}},
        "confidence": round(segment["score"], 6),
        "isthing": segment["isthing"],
        "area": segment["area"],
    }
