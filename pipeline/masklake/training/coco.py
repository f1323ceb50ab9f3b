"""Examples from COCO's JSON: panoptic (with its PNGs) and instances (polygons or run lengths)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pycocotools import mask as coco_mask

from masklake import storage
from masklake.errors import Refused
from masklake.training.examples import DataSet, Example, PanopticPng, Runs, count_labels
from masklake.truth.coco import read_json, run_lengths


@dataclass(frozen=True)
class _Categories:
    labels: dict[int, str]
    thing_ids: frozenset[int]
    by_category: dict[int, int]
    """COCO's category id -> label id."""


def read_panoptic(uri: str, images: str | None, masks: str | None, setting: str) -> DataSet:
    """The examples of a panoptic JSON. The PNGs lie in `masks`, by default the folder named as the JSON without its ending; the images in
    `images`, by default where `coco_url` says; `setting` is what the user named the JSON by.

    Raises:
        Refused: the JSON is none, or names a category or image that it does not have.
    """
    content = read_json(uri, setting)
    categories = _categories(content, uri)
    names = _images(content, uri, images)
    folder = (masks or uri.removesuffix(".json")).rstrip("/") + "/"
    skipped: Counter[str] = Counter()
    examples = []
    for annotation in content["annotations"]:
        segments = tuple(
            (int(each["id"]), _label(each["category_id"], categories, uri), bool(each.get("iscrowd", 0)))
            for each in annotation["segments_info"]
        )
        labels = [label for _, label, crowd in segments if not crowd]
        skipped["crowd regions"] += len(segments) - len(labels)
        if not labels:
            skipped["images without segments"] += 1
            continue
        truth = PanopticPng(storage.normalise(folder + annotation["file_name"]), segments)
        examples.append(Example(_image(names, annotation["image_id"], uri)[0], truth))
    return DataSet(categories.labels, categories.thing_ids, tuple(examples), count_labels(examples), +skipped, f"COCO panoptic, {uri}")


def read_instances(uri: str, images: str | None, setting: str) -> DataSet:
    """The examples of an instances JSON: all its categories are things. Images without annotations are left out.

    Raises:
        Refused: the JSON is none, or names a category or image that it does not have, or a segmentation cannot be read.
    """
    content = read_json(uri, setting)
    categories = _categories(content, uri)
    names = _images(content, uri, images)
    skipped: Counter[str] = Counter()
    by_image: defaultdict[int, list[tuple[bytes, int, bool]]] = defaultdict(list)
    for annotation in content["annotations"]:
        label = _label(annotation["category_id"], categories, uri)
        _, height, width = _image(names, annotation["image_id"], uri)
        counts = _counts(annotation, height, width, uri)
        if not counts or not coco_mask.area({"size": [height, width], "counts": counts}):
            skipped["empty masks"] += 1
            continue
        crowd = bool(annotation.get("iscrowd", 0))
        skipped["crowd regions"] += crowd
        by_image[annotation["image_id"]].append((counts, label, crowd))
    examples = []
    for image_id, (image, height, width) in names.items():
        segments = tuple(by_image.get(image_id, ()))
        labels = [label for _, label, crowd in segments if not crowd]
        if not labels:
            skipped["images without segments"] += 1
            continue
        examples.append(Example(image, Runs((height, width), segments)))
    things = frozenset(categories.labels)
    return DataSet(categories.labels, things, tuple(examples), count_labels(examples), +skipped, f"COCO instances, {uri}")


def _categories(content: Mapping[str, Any], uri: str) -> _Categories:
    """Label ids are given in the order of the categories' ids."""
    categories = sorted(content["categories"], key=lambda each: int(each["id"]))
    names = [str(each["name"]) for each in categories]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice or not names:
        raise Refused(f"{uri}: " + (f"the category name {twice[0]!r} occurs twice" if twice else "has no categories"))
    return _Categories(
        dict(enumerate(names)),
        frozenset(index for index, each in enumerate(categories) if each.get("isthing", 1)),
        {int(each["id"]): index for index, each in enumerate(categories)},
    )


def _label(category_id: int, categories: _Categories, uri: str) -> int:
    if category_id not in categories.by_category:
        raise Refused(f"{uri}: an annotation has the category {category_id}, which is not among the categories")
    return categories.by_category[category_id]


def _images(content: Mapping[str, Any], uri: str, folder: str | None) -> dict[int, tuple[str, int, int]]:
    """Image id -> (URI, height, width)."""
    found: dict[int, tuple[str, int, int]] = {}
    for image in content["images"]:
        if folder is None and not str(image.get("coco_url", "")).startswith(("s3://", "file://")):
            raise Refused(f"--images is missing: {uri} does not say where its images are (coco_url is no s3:// or file:// URI)")
        place = str(image["coco_url"]) if folder is None else folder.rstrip("/") + "/" + image["file_name"]
        found[image["id"]] = (storage.normalise(place), int(image["height"]), int(image["width"]))
    return found


def _image(names: Mapping[int, tuple[str, int, int]], image_id: int, uri: str) -> tuple[str, int, int]:
    if image_id not in names:
        raise Refused(f"{uri}: an annotation is of the image {image_id}, which is not among the images")
    return names[image_id]


def _counts(annotation: Mapping[str, Any], height: int, width: int, uri: str) -> bytes:
    """The mask of an annotation, compressed; empty bytes where it has none."""
    if not annotation.get("segmentation"):
        return b""
    try:
        counts: bytes = run_lengths(annotation["segmentation"], height, width)["counts"]
    except ValueError as error:
        raise Refused(f"{uri}: the mask of annotation {annotation.get('id')} {error}") from None
    return counts
