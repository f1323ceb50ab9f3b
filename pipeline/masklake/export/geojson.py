"""GeoJSON (RFC 7946 but for its coordinates: pixels, x to the right and y down, as QuPath has them), a file per image."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from shapely.geometry import mapping

from masklake.export.categories import Categories
from masklake.export.format import Job, Written
from masklake.export.pictures import store_files
from masklake.export.polygons import Polygons
from masklake.export.selection import Row
from masklake.table.masks import palette


def write_geojson(job: Job, folder: str) -> Written:
    """A FeatureCollection per image: a Polygon or MultiPolygon per segment, its label, score, area and box as properties."""
    categories, polygons = Categories(), Polygons(job.settings.simplify)

    def make(row: Row) -> list[tuple[str, bytes]]:
        features = [made for segment in row["segments"] if (made := _feature(segment, row, polygons))]
        collection = {"type": "FeatureCollection", "image_uri": row["image_uri"], "features": features}
        return [(f"{job.output}{folder}/{row['stem']}.geojson", json.dumps(collection).encode())]

    for row in store_files(job.selection.numbered_rows(), make):
        for segment in row["segments"]:
            categories.note(segment, row["image_uri"])
    return categories.written(polygons.iou())


def _feature(segment: Mapping[str, Any], row: Row, polygons: Polygons) -> dict[str, Any] | None:
    polygon = polygons.of(segment, row["height"], row["width"])
    if polygon.is_empty:
        return None
    return {
        "type": "Feature",
        "id": segment["segment_id"],
        "geometry": _plain(mapping(polygon if len(polygon.geoms) > 1 else polygon.geoms[0])),
        "properties": {
            "objectType": "annotation",  # QuPath's words for what it draws, and in which colour
            "classification": {"name": segment["label"], "color": list(palette(segment["label_id"]))},
            "label": segment["label"],
            "label_id": segment["label_id"],
            "isthing": segment["isthing"],
            "score": round(segment["score"], 6),
            "area": segment["area"],
            "bbox": segment["bbox"],
        },
    }


def _plain(value: Any) -> Any:
    """Numbers without a decimal point where they are whole."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return int(value) if isinstance(value, float | np.floating) and value == int(value) else value
