"""COCO's JSON files as truth (cocodataset.org, "Data format"): instances, and panoptic with its folder of PNGs."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from pycocotools import mask as coco_mask

from masklake import storage
from masklake.errors import Refused
from masklake.quality.instance import RunLengths
from masklake.truth.formats import Category, Format, Truth, TruthImage


def read_json(uri: str, setting: str = "--truth") -> dict[str, Any]:
    """A COCO JSON, whole in memory; `setting` is what the user named it by.

    Raises:
        Refused: it cannot be read, is no JSON, or lacks the lists of COCO's format.
    """
    try:
        found = json.loads(storage.read_bytes(uri))
    except storage.StorageError as error:
        raise Refused(f"{setting} {uri}: {error}") from None
    except ValueError as error:
        raise Refused(f"{setting} {uri}: is no JSON: {error}") from None
    for name in ("images", "annotations", "categories"):
        if not isinstance(found, dict) or not isinstance(found.get(name), list) or not all(isinstance(each, dict) for each in found[name]):
            raise Refused(f"{setting} {uri}: has no list of {name}: a COCO JSON has images, annotations and categories")
    return found  # type: ignore[no-any-return]


def run_lengths(segmentation: Any, height: int, width: int) -> RunLengths:
    """An annotation's mask, whether polygons, run lengths in numbers or compressed, as pycocotools' `annToRLE`.

    Raises:
        ValueError: it is none of them, or of another size than the image.
    """
    try:
        if isinstance(segmentation, list):
            encoded: RunLengths = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
        elif isinstance(segmentation["counts"], list):
            encoded = coco_mask.frPyObjects(segmentation, height, width)
        else:
            counts = segmentation["counts"]
            encoded = {"size": segmentation["size"], "counts": counts.encode("ascii") if isinstance(counts, str) else counts}
    except Exception as error:  # pycocotools raises whatever it meets
        raise ValueError(f"is none of COCO's kinds: {error}") from None
    if list(encoded["size"]) != [height, width]:
        raise ValueError(f"has the size {list(encoded['size'])}, and its image [{height}, {width}]")
    return encoded


def format_of(found: Mapping[str, Any]) -> Format:
    """Panoptic annotations have `segments_info`."""
    annotations = found["annotations"]
    return Format.PANOPTIC if annotations and "segments_info" in annotations[0] else Format.INSTANCES


def from_json(found: Mapping[str, Any], uri: str, wanted: Format) -> Truth:
    """The truth of a COCO JSON that was read from `uri`; panoptic PNGs lie in the folder beside it that has its name without `.json`.

    Raises:
        Refused: an entry lacks what COCO's format demands, is there twice, or names what is not there.
    """
    try:
        categories = tuple(
            Category(int(each["id"]), str(each["name"]), None if each.get("isthing") is None else bool(each["isthing"]))
            for each in found["categories"]
        )
        _check_unique(uri, "category", (each.id for each in categories))
        _check_unique(uri, "category", (each.name for each in categories))
        _check_unique(uri, "image", (image["id"] for image in found["images"]))
        images = _panoptic(found, uri) if wanted is Format.PANOPTIC else _instances(found, uri)
    except (KeyError, TypeError, ValueError) as error:
        raise Refused(f"--truth {uri}: is not as COCO's format {wanted} demands: {type(error).__name__} {error}") from None
    known = {category.id for category in categories}
    for image in images:
        for segment in image.segments:
            if segment["category_id"] not in known:
                raise Refused(f"--truth {uri}: {image.name} has a segment of category {segment['category_id']}, which is not in categories")
    return Truth(wanted, uri, categories, images)


def _instances(found: Mapping[str, Any], uri: str) -> tuple[TruthImage, ...]:
    by_image: defaultdict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for annotation in found["annotations"]:
        by_image[annotation["image_id"]].append({name: annotation.get(name) for name in _ANNOTATION} | {"id": annotation["id"]})
    if unknown := set(by_image) - {image["id"] for image in found["images"]}:
        raise Refused(f"--truth {uri}: has annotations of image {min(unknown)}, which is not in images")
    return tuple(
        TruthImage(order, image["file_name"], uri=image.get("coco_url"), size=_size(image), segments=tuple(by_image[image["id"]]))
        for order, image in enumerate(sorted(found["images"], key=lambda image: image["id"]))
    )


_ANNOTATION = ("category_id", "segmentation", "area", "iscrowd")


def _panoptic(found: Mapping[str, Any], uri: str) -> tuple[TruthImage, ...]:
    _check_unique(uri, "annotation of image", (annotation["image_id"] for annotation in found["annotations"]))
    by_image = {annotation["image_id"]: annotation for annotation in found["annotations"]}
    if lacking := [image["file_name"] for image in found["images"] if image["id"] not in by_image]:
        raise Refused(f"--truth {uri}: {len(lacking)} images have no annotation, such as {lacking[0]}")
    folder = uri.removesuffix(".json") + "/"
    return tuple(
        TruthImage(
            order,
            image["file_name"],
            uri=image.get("coco_url"),
            size=_size(image),
            picture=folder + by_image[image["id"]]["file_name"],
            segments=tuple(
                {"id": int(segment["id"]), "category_id": segment["category_id"], "iscrowd": segment.get("iscrowd", 0)}
                for segment in by_image[image["id"]]["segments_info"]
            ),
        )
        for order, image in enumerate(sorted(found["images"], key=lambda image: image["id"]))
    )


def _size(image: Mapping[str, Any]) -> tuple[int, int]:
    return int(image["height"]), int(image["width"])


def _check_unique(uri: str, what: str, values: Iterable[object]) -> None:
    seen: set[object] = set()
    for value in values:
        if value in seen:
            raise Refused(f"--truth {uri}: has {what} {value} twice")
        seen.add(value)
