"""Label Studio's JSON: a task per image, the segments as a prediction that people accept or correct."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from masklake import storage
from masklake.export.categories import Categories
from masklake.export.format import Job, Written
from masklake.export.outlines import joined
from masklake.export.polygons import Polygons
from masklake.export.selection import Row
from masklake.pages.rendering import hex_colour
from masklake.table.masks import palette

_CONTROL, _OBJECT = "label", "image"


def write_label_studio(job: Job, name: str, config: str) -> Written:
    """The tasks, then the labelling configuration (for a project's Labeling Interface)."""
    categories, polygons = Categories(), Polygons(job.settings.simplify)
    model = ", ".join(dict.fromkeys(f"{each.model} {each.fingerprint[:8]}" for each in job.selection.answers))
    path = job.scratch / "tasks.json"
    with path.open("w", encoding="ascii") as file:
        file.write("[")
        for place, row in enumerate(job.selection.numbered_rows()):
            for segment in row["segments"]:
                categories.note(segment, row["image_uri"])
            file.write(f"{',' if place else ''}\n{json.dumps(_task(row, model, polygons))}")
        file.write("\n]\n")
    storage.upload_file(path, job.output + name)
    storage.write_bytes(job.output + config, _config(categories.labels))
    return categories.written(polygons.iou())


def _task(row: Row, model: str, polygons: Polygons) -> dict[str, Any]:
    result = [made for segment in row["segments"] if (made := _region(segment, row, polygons))]
    scores = [segment["score"] for segment in row["segments"]]
    prediction = {"model_version": model, "score": round(sum(scores) / len(scores), 6) if scores else 0.0, "result": result}
    return {"id": row["id"], "data": {_OBJECT: row["image_uri"]}, "predictions": [prediction]}


def _region(segment: Mapping[str, Any], row: Row, polygons: Polygons) -> dict[str, Any] | None:
    height, width = row["height"], row["width"]
    corners = joined(polygons.of(segment, height, width)) * (100 / width, 100 / height)
    if not len(corners):
        return None
    return {
        "id": f"{row['id']}-{segment['segment_id']}",
        "type": "polygonlabels",
        "from_name": _CONTROL,
        "to_name": _OBJECT,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "score": round(segment["score"], 6),
        "value": {"points": corners.round(5).tolist(), "closed": True, "polygonlabels": [segment["label"]]},
    }


def _config(labels: Mapping[int, str]) -> bytes:
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name=_OBJECT, value=f"${_OBJECT}", zoom="true")
    control = ElementTree.SubElement(view, "PolygonLabels", name=_CONTROL, toName=_OBJECT, strokeWidth="2", opacity="0.4")
    for label_id, label in labels.items():
        ElementTree.SubElement(control, "Label", value=label, background=hex_colour(palette(label_id)))
    ElementTree.indent(view)
    written: bytes = ElementTree.tostring(view, encoding="utf-8")
    return written
