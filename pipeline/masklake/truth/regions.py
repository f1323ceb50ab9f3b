"""One image's truth as arrays: an id map, a class map, or instances. Run wherever the image is judged."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from masklake import storage
from masklake.errors import Refused
from masklake.quality.instance import RunLengths, TrueInstance
from masklake.quality.semantic import NONE
from masklake.truth.classes import Classes
from masklake.truth.coco import run_lengths
from masklake.truth.formats import BACKGROUND_ID, Format, TruthImage

_CODES = 256**3  # ids that a colour can hold


@dataclass(frozen=True)
class Regions:
    """`ids` int32 [H, W], 0 where nothing is judged; `labels` gives each id its class; `crowds` are the ids of crowds."""

    ids: NDArray[np.int32]
    labels: Mapping[int, int]
    crowds: frozenset[int]


def regions(image: TruthImage, classes: Classes) -> Regions:
    """A panoptic truth. Stuff of several categories that are one class becomes one segment; what is not judged becomes void.

    Raises:
        Refused: the PNG cannot be read, is of another size than the JSON says, or holds other ids.
    """
    pixels = _pixels(image)
    if pixels.ndim != 3 or pixels.shape[2] < 3:
        raise Refused(f"--truth {image.picture}: is not in colour: COCO's panoptic PNGs hold ids as R + 256 G + 256^2 B")
    coded = pixels[..., :3].astype(np.int32) @ np.array([1, 256, 65536], np.int32)
    _check_size(image, coded.shape)
    places = _places(image, coded)
    new_id: dict[int, int] = {}
    labels: dict[int, int] = {}
    crowds: set[int] = set()
    shared = _mixed_stuff(image, classes)
    for segment in image.segments:
        index = classes.of_category[segment["category_id"]]
        if index is None:
            continue
        new_id[segment["id"]] = segment["id"]
        if index in shared and not segment["iscrowd"]:
            new_id[segment["id"]] = shared[index] = shared[index] or segment["id"]
        labels[new_id[segment["id"]]] = index
        if segment["iscrowd"]:
            crowds.add(segment["id"])
    table = np.array([0, *(new_id.get(segment["id"], 0) for segment in image.segments)], np.int32)
    return Regions(table[places], labels, frozenset(crowds))


def _places(image: TruthImage, coded: NDArray[np.int32]) -> NDArray[np.int32]:
    """Whose pixel it is: the place of its segment in `segments`, from 1 on; 0 where it is black.

    Raises:
        Refused: PNG and JSON do not hold the same ids.
    """
    named = [segment["id"] for segment in image.segments]
    table = np.zeros(_CODES, np.int32)  # a page of it takes memory once it is touched; sorting the pixels would take far longer
    for place, code in enumerate(named, 1):
        if not 0 < code < _CODES:
            raise Refused(f"--truth {image.picture}: segment {code} is in the JSON and not in the PNG")
        table[code] = place
    places: NDArray[np.int32] = table[coded]
    if (unnamed := coded[(places == 0) & (coded != 0)]).size:
        raise Refused(f"--truth {image.picture}: segment {unnamed.min()} is in the PNG and not in the JSON")
    seen = np.bincount(places.ravel(), minlength=len(named) + 1)
    if unseen := [code for place, code in enumerate(named, 1) if not seen[place]]:
        raise Refused(f"--truth {image.picture}: segment {unseen[0]} is in the JSON and not in the PNG")
    return places


def classes_of_ids(ids: NDArray[np.int32], labels: Mapping[int, int]) -> NDArray[np.int32]:
    """The class of every pixel of an id map, `NONE` where its id has none: int32 [H, W]."""
    table = np.zeros(int(ids.max(initial=0)) + 1, np.int32)  # as in `_places`
    for segment_id, index in labels.items():
        table[segment_id] = index - NONE
    return table[ids] + np.int32(NONE)


def _mixed_stuff(image: TruthImage, classes: Classes) -> dict[int, int]:
    """Classes of stuff of which the image has segments of several categories; each with 0, the place for the id that they share."""
    seen: defaultdict[int, set[int]] = defaultdict(set)
    for segment in image.segments:
        index = classes.of_category[segment["category_id"]]
        if index is not None and not classes.judged[index].isthing:
            seen[index].add(segment["category_id"])
    return {index: 0 for index, categories in seen.items() if len(categories) > 1}


def class_map(image: TruthImage, wanted: Format, classes: Classes, ignore_index: int | None) -> NDArray[np.int32]:
    """The class of every pixel, int32 [H, W], `NONE` where it is not judged, of a truth in any format.

    Of instances, crowds lie below the others, and smaller ones on top of larger ones.

    Raises:
        Refused: as `regions` and `instances`; or a label map has a value that has no name and is not the ignore index.
    """
    if wanted is Format.PANOPTIC:
        found = regions(image, classes)
        return classes_of_ids(found.ids, found.labels)
    if wanted is Format.INSTANCES:
        assert image.size is not None
        background = classes.of_category.get(BACKGROUND_ID)
        painted = np.full(image.size, NONE if background is None else background, np.int32)
        for segment in sorted(image.segments, key=lambda segment: (not segment["iscrowd"], -float(segment["area"] or 0))):
            index = classes.of_category[segment["category_id"]]
            mask = coco_mask.decode(_run_lengths(image, segment)).view(np.bool_)
            painted[mask] = NONE if index is None else index
        return painted
    return _of_label_map(image, classes, ignore_index)


def _of_label_map(image: TruthImage, classes: Classes, ignore_index: int | None) -> NDArray[np.int32]:
    pixels = _pixels(image)
    if pixels.ndim != 2:
        raise Refused(f"--truth {image.picture}: is in colour: a label map has one channel, of label ids")
    values, places = np.unique(pixels, return_inverse=True)
    unknown = [value for value in values.tolist() if value != ignore_index and value not in classes.of_category]
    if unknown:
        raise Refused(
            f"--truth {image.picture}: has pixels of value {unknown[0]}, which has no name and is not the ignore index ({ignore_index}): "
            "see --labels and --ignore-index"
        )
    found = [classes.of_category.get(value) for value in values.tolist()]
    table = np.array([NONE if index is None else index for index in found], np.int32)
    return table[places].reshape(pixels.shape)


def instances(image: TruthImage, classes: Classes) -> list[TrueInstance]:
    """The instances that are judged, crowds among them.

    Raises:
        Refused: a mask is none of COCO's kinds.
    """
    found = []
    for segment in image.segments:
        index = classes.of_category[segment["category_id"]]
        if index is not None:
            mask = _run_lengths(image, segment)
            area = float(coco_mask.area(mask)) if segment["area"] is None else float(segment["area"])
            found.append(TrueInstance(index, mask, area, bool(segment["iscrowd"])))
    return found


def _run_lengths(image: TruthImage, annotation: Mapping[str, Any]) -> RunLengths:
    assert image.size is not None
    try:
        return run_lengths(annotation["segmentation"], *image.size)
    except ValueError as error:
        raise Refused(f"--truth: the mask of annotation {annotation['id']} ({image.name}) {error}") from None


def fetched(images: Sequence[TruthImage]) -> list[TruthImage]:
    """The images with their PNGs' bytes, read at once; one that cannot be read stays as it is, to fail when it is looked at."""
    uris = [image.picture for image in images if image.picture is not None]
    found = dict(zip(uris, storage.read_many(uris), strict=True))
    data = [found.get(image.picture or "") for image in images]
    return [replace(image, data=each) if isinstance(each, bytes) else image for image, each in zip(images, data, strict=True)]


def _pixels(image: TruthImage) -> NDArray[Any]:
    uri = image.picture
    assert uri is not None
    try:
        with Image.open(io.BytesIO(storage.read_bytes(uri) if image.data is None else image.data)) as picture:
            if picture.mode in ("P", "L", "RGB", "RGBA") or picture.mode.startswith("I"):
                return np.asarray(picture)  # of a palette, its indices
            raise ValueError(f"its mode is {picture.mode}")
    except (OSError, ValueError, SyntaxError) as error:
        raise Refused(f"--truth {uri}: cannot be read as a PNG of labels: {error}") from None


def _check_size(image: TruthImage, size: tuple[int, ...]) -> None:
    if image.size is not None and image.size != size:
        raise Refused(f"--truth {image.picture}: is of size {size} (height, width), and the JSON says {image.size}")
