"""The worst images, with their truth and their prediction painted over them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from masklake.errors import ImageFailure, MasklakeError
from masklake.evaluation.scoring import Judged, Scoring
from masklake.images.decoder import decode_apart
from masklake.images.fetch import fetch_by_uri
from masklake.inference.rle import encode_ids
from masklake.pages.cards import Card, card_from
from masklake.quality.instance import CONFIDENT
from masklake.quality.semantic import NONE
from masklake.schema import Task
from masklake.truth.formats import Truth, TruthImage
from masklake.truth.regions import class_map, instances, regions

_GREY = 127  # where an image cannot be read any more

Segment = dict[str, Any]


@dataclass(frozen=True)
class Shown:
    """An image and its score, twice: with what is true and with what was predicted. A class has one colour in both.

    `readable` is false where the image could not be read, so that the masks are on grey.
    """

    judged: Judged
    truth: Card
    prediction: Card
    readable: bool


def worst(rows: Iterable[Mapping[str, Any]], judged: Mapping[str, Judged], truth: Truth, scoring: Scoring) -> list[Shown]:
    """Pictures of rows of the table, those of the lowest scores first."""
    images = {image.order: image for image in truth.images}
    shown = [_show(row, judged[row["image_uri"]], images[judged[row["image_uri"]].order], scoring) for row in rows]
    return sorted(shown, key=lambda each: (each.judged.score, each.judged.order))


def _show(row: Mapping[str, Any], judged: Judged, image: TruthImage, scoring: Scoring) -> Shown:
    size = row["height"], row["width"]
    found = _image(row["image_uri"], size)
    pixels = np.full((*size, 3), _GREY, np.uint8) if found is None else found
    place = {"image_uri": row["image_uri"], "task": row["task"], "height": size[0], "width": size[1]}
    true = {**place, "segments": list(true_segments(image, scoring))}
    predicted = {**place, "segments": list(_in_classes(row["segments"], scoring))}
    return Shown(judged, card_from(pixels, true), card_from(pixels, predicted), found is not None)


def _image(uri: str, size: tuple[int, int]) -> NDArray[np.uint8] | None:
    with suppress(MasklakeError):  # whoever scores a table need not have the keys of its lake
        data = fetch_by_uri(uri)
        found = data if isinstance(data, ImageFailure) else decode_apart(data, max_pixels=size[0] * size[1])
        if not isinstance(found, ImageFailure) and found.pixels.shape[:2] == size:
            return found.pixels
    return None


def true_segments(image: TruthImage, scoring: Scoring) -> Iterator[Segment]:
    """Truth as segments of the table, with the classes' indices for label ids; smaller instances first."""
    found = scoring.coding.read(image)
    if scoring.task is Task.INSTANCE:
        objects = sorted(instances(found, scoring.classes), key=lambda each: int(coco_mask.area(each.mask)))
        for number, each in enumerate(objects, 1):
            yield _segment(number, each.class_id, each.mask["counts"], scoring)
        return
    if scoring.task is Task.PANOPTIC:
        truth = regions(found, scoring.classes)
        ids, labels = truth.ids, dict(truth.labels)
    else:
        ids = class_map(found, scoring.classes.of_category) - NONE
        labels = {index - NONE: index for index in range(len(scoring.classes))}
    codes, places = np.unique(ids, return_inverse=True)
    present = [code for code in codes.tolist() if code in labels]
    numbers = {code: number for number, code in enumerate(present, 1)}
    columns = np.array([numbers.get(code, 0) for code in codes.tolist()], np.int32)[places].reshape(ids.shape).T
    for code, encoded in zip(present, encode_ids(np.ascontiguousarray(columns), len(present)), strict=True):
        yield _segment(numbers[code], labels[code], encoded.counts, scoring)


def _segment(number: int, index: int, counts: bytes, scoring: Scoring) -> Segment:
    judged = scoring.classes.judged[index]
    thing = judged.isthing and scoring.task is not Task.SEMANTIC
    return {"segment_id": number, "label_id": index, "label": judged.label, "isthing": thing, "score": 1.0, "counts": counts}


def _in_classes(segments: Iterable[Mapping[str, Any]], scoring: Scoring) -> Iterator[Segment]:
    """The row's segments, coloured as the classes; those that truth has no class for come after them. Of instances, the confident ones: a
    model gives one of every class and query, and all of them together cover the picture.
    """
    for segment in segments:
        if scoring.task is Task.INSTANCE and segment["score"] < CONFIDENT:
            continue
        index = scoring.classes.of_label(segment["label"])
        label_id = len(scoring.classes) + segment["label_id"] if index is None else index
        yield {**segment, "label_id": label_id, "label": segment["label"] + (" (not judged)" if index is None else "")}
