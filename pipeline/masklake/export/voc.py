"""Pascal VOC's folders, as CVAT writes and reads them: colours of classes and objects, boxes in XML, and labelmap.txt.

`background` is black; pixels without a segment are background as well. Objects are the things; each has VOC's colour of its number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from masklake import storage
from masklake.errors import Refused
from masklake.export.categories import Categories
from masklake.export.format import Job, Written
from masklake.export.pictures import as_png, store_files
from masklake.export.selection import Row
from masklake.export.sources import Images
from masklake.spelling import visible
from masklake.table.masks import id_map, is_painted

_MOST = 255  # colours of VOC's map beside black
_BACKGROUND = "background"


def write_voc(job: Job, name: str) -> Written:
    """The pictures and boxes of each image, the list of images, then the labels.

    Raises:
        Refused: there are more classes, or objects in an image, than VOC has colours; or two images, as a.jpg and a.png, would share files.
    """
    job.selection.check_stems(job.settings.format)
    labels = {label_id: label for label_id, label in job.selection.labels().items() if is_painted(label)}
    if len(labels) > _MOST:
        raise Refused(f"--format voc: {len(labels)} classes, and Pascal VOC has colours for {_MOST}: choose some by --label")
    number = {label_id: place for place, label_id in enumerate(labels, 1)}
    categories, images, stems = Categories(), Images(job.settings.copy_images), list[str]()

    def make(row: Row) -> list[tuple[str, bytes]]:
        stem, ids = row["stem"], id_map(row["segments"], row["height"], row["width"])
        files = [
            (f"{job.output}SegmentationClass/{stem}.png", _picture(ids, _classes(row["segments"], number))),
            (f"{job.output}SegmentationObject/{stem}.png", _picture(ids, _objects(row))),
            (f"{job.output}Annotations/{stem}.xml", _boxes(row)),
        ]
        return [*files, *images.copied(row, f"{job.output}JPEGImages/")]

    for row in store_files(job.selection.numbered_rows(), make):
        stems.append(row["stem"])
        for segment in row["segments"]:
            categories.note(segment, row["image_uri"])
    listed = "".join(f"{stem}\n" for stem in sorted(stems)).encode()
    for folder in ("Segmentation", "Main"):
        storage.write_bytes(f"{job.output}ImageSets/{folder}/default.txt", listed)
    lines = ["# label:color_rgb:parts:actions", f"{_BACKGROUND}:0,0,0::"]
    lines += [f"{visible(label)}:{','.join(map(str, colour(number[label_id])))}::" for label_id, label in labels.items()]
    storage.write_bytes(job.output + name, ("\n".join(lines) + "\n").encode())
    return categories.written(remarks=images.remarks())


def colour(number: int) -> tuple[int, int, int]:
    """VOC's colour of a class or object (VOCcolormap.m of its development kit): its bits, three by three, from the high bits down."""
    red, green, blue = 0, 0, 0
    for place in range(8):
        bits = number >> 3 * place
        red, green, blue = red | (bits & 1) << 7 - place, green | (bits >> 1 & 1) << 7 - place, blue | (bits >> 2 & 1) << 7 - place
    return red, green, blue


def _classes(segments: Sequence[Mapping[str, Any]], number: Mapping[int, int]) -> dict[int, int]:
    return {segment["segment_id"]: number.get(segment["label_id"], 0) for segment in segments}


def _objects(row: Row) -> dict[int, int]:
    things = [segment["segment_id"] for segment in row["segments"] if segment["isthing"] and is_painted(segment["label"])]
    if len(things) > _MOST:
        raise Refused(
            f"--format voc: {row['image_uri']} has {len(things)} objects, and Pascal VOC has colours for {_MOST}: see --min-score"
        )
    return {segment_id: place for place, segment_id in enumerate(things, 1)}


def _picture(ids: NDArray[np.int32], values: Mapping[int, int]) -> bytes:
    """A PNG whose palette is VOC's: readers get numbers, or colours."""
    table = np.zeros(int(ids.max(initial=0)) + 1, np.uint8)
    for segment_id, value in values.items():
        if segment_id < len(table):
            table[segment_id] = value
    picture = Image.fromarray(table[ids])
    picture.putpalette([part for place in range(256) for part in colour(place)])
    return as_png(picture)


def _boxes(row: Row) -> bytes:
    root = ElementTree.Element("annotation")
    folder, _, name = row["file_name"].rpartition("/")
    size = {"width": row["width"], "height": row["height"], "depth": 3}
    _add(root, {"folder": folder, "filename": name, "source": {"database": row["image_uri"]}, "size": size, "segmented": 1})
    for segment in row["segments"]:
        if segment["isthing"] and is_painted(segment["label"]):
            x, y, w, h = segment["bbox"]
            box = {"xmin": x + 1, "ymin": y + 1, "xmax": x + w, "ymax": y + h}  # VOC's pixels begin at 1, and its boxes hold their ends
            words = {"name": segment["label"], "pose": "Unspecified", "truncated": 0, "difficult": 0, "bndbox": box}
            _add(ElementTree.SubElement(root, "object"), words)
    ElementTree.indent(root)
    written: bytes = ElementTree.tostring(root, encoding="utf-8")
    return written


def _add(parent: ElementTree.Element, words: Mapping[str, Any]) -> None:
    for name, value in words.items():
        child = ElementTree.SubElement(parent, name)
        if isinstance(value, Mapping):
            _add(child, value)
        else:
            child.text = visible(str(value))
