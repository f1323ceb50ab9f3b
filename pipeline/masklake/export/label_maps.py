"""Label maps: a single-channel PNG per image with the label id of each pixel, and the labels' names beside them."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from masklake import storage
from masklake.errors import Refused
from masklake.export.categories import Categories
from masklake.export.format import Job, Written
from masklake.export.pictures import store_each
from masklake.export.selection import Row
from masklake.export.settings import ExportConfig
from masklake.table.masks import id_map, is_painted, palette

_VOID = (224, 224, 192)


def write_label_maps(job: Job, name: str, pictures: str) -> Written:
    """PNGs in a folder, then a JSON: the void value, and the labels that occur by their id.

    Raises:
        Refused: a label id does not fit, or is the void value.
    """
    categories, settings = Categories(), job.settings
    for row in store_each(job.selection.numbered_rows(), f"{job.output}{pictures}/", lambda row: picture(row, settings)):
        for segment in row["segments"]:
            categories.note(segment, row["image_uri"])
    labels = {"void": settings.void_value, "bits": settings.bits, "labels": categories.labels}
    storage.write_bytes(job.output + name, json.dumps(labels, indent=2).encode())
    return categories.written()


def label_map(row: Row, settings: ExportConfig) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """`label_id` of each pixel, the void value where there is none: uint8 or uint16 [height, width].

    Raises:
        Refused: a label id does not fit, or is the void value.
    """
    segments = row["segments"]
    # A table of label ids by segment id: one look-up labels all segments at once.
    labels = np.full(1 + max((segment["segment_id"] for segment in segments), default=0), settings.void_value, f"u{settings.bits // 8}")
    for segment in segments:
        _check(segment["label_id"], segment["label"], settings)
        labels[segment["segment_id"]] = segment["label_id"]
    found: NDArray[np.uint8] | NDArray[np.uint16] = labels[id_map(segments, row["height"], row["width"])]
    return found


def picture(row: Row, settings: ExportConfig) -> Image.Image:
    """The label map of a row. With 8 bits it has a palette, so that people see classes where readers get ids: each label in the colour that
    it has in galleries, "background" black, and void as light as in PASCAL VOC. PNG has no palette of 16 bits.

    Raises:
        Refused: as `label_map`.
    """
    found = Image.fromarray(label_map(row, settings))
    if settings.bits == 8:
        unpainted = {segment["label_id"] for segment in row["segments"] if not is_painted(segment["label"])}
        colours = [(0, 0, 0) if label_id in unpainted else palette(label_id) for label_id in range(256)]
        colours[settings.void_value] = _VOID
        found.putpalette([part for colour in colours for part in colour])
    return found


def _check(label_id: int, label: str, settings: ExportConfig) -> None:
    if label_id >= 2**settings.bits:
        cure = "use --bits 16" if settings.bits == 8 else "no label map can hold it"
        raise Refused(f"--bits {settings.bits}: label id {label_id} ({label!r}) does not fit: {cure}")
    if label_id == settings.void_value:
        cure = "--bits 16, or another --void" if settings.bits == 8 else "another --void"
        raise Refused(f"--void {settings.void_value}: is the label id of {label!r}: use {cure}")
