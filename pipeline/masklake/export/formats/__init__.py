"""The formats of export, one module each: see `masklake.export.format`. This list is all that names them."""

from __future__ import annotations

from masklake.export.format import Format
from masklake.export.formats import (
    coco_instances,
    coco_panoptic,
    coco_results,
    cutouts,
    cvat,
    fiftyone,
    geojson,
    label_maps,
    label_studio,
    overlays,
    segments,
    voc,
    yolo_seg,
)

FORMATS: tuple[Format, ...] = (
    coco_instances.FORMAT,
    coco_panoptic.FORMAT,
    coco_results.FORMAT,
    yolo_seg.FORMAT,
    voc.FORMAT,
    geojson.FORMAT,
    cvat.FORMAT,
    label_studio.FORMAT,
    fiftyone.FORMAT,
    label_maps.FORMAT,
    segments.FORMAT,
    cutouts.FORMAT,
    overlays.FORMAT,
)


def format_named(name: str) -> Format:
    """The format of this name."""
    return next(each for each in FORMATS if each.name == name)
