"""The worst images, with their truth, their prediction and the difference painted over them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from masklake.errors import ImageFailure, MasklakeError
from masklake.evaluation.differences import difference, painting_of
from masklake.evaluation.scoring import Judged, Scoring
from masklake.images.decoder import decode_apart
from masklake.images.fetch import fetch_by_uri
from masklake.inference.rle import encode_ids
from masklake.pages.cards import Painting, Size, paint, reduced
from masklake.quality.instance import CONFIDENT
from masklake.quality.semantic import NONE
from masklake.schema import Task
from masklake.truth.classes import Classes
from masklake.truth.formats import Drawn, Painted, Truth, TruthImage
from masklake.truth.regions import class_map, instances, regions

_GREY = 127  # where an image cannot be read any more

Segment = dict[str, Any]


@dataclass(frozen=True)
class Compared:
    """What is true in an image, what was predicted, and where they differ; `missed` and `wrong` are shares of the picture."""

    truth: Painting
    prediction: Painting
    difference: Painting
    missed: float
    wrong: float


@dataclass(frozen=True)
class Shown:
    """An image and its score, what is true there, what was predicted, and where they differ.

    `image` is uint8 [H, W, 3], reduced; `missed` and `wrong` are shares of the picture. `readable` is false where the image could not be
    read, so that the masks are on grey.
    """

    judged: Judged
    image: NDArray[np.uint8]
    truth: Painting
    prediction: Painting
    difference: Painting
    missed: float
    wrong: float
    readable: bool


def worst(
    rows: Iterable[Mapping[str, Any]], judged: Mapping[str, Judged], truth: Truth, scoring: Scoring, label_ids: Mapping[str, int]
) -> list[Shown]:
    """Pictures of rows of the table, those of the lowest scores first; `label_ids` are the table's, which decide the colours."""
    images = {image.order: image for image in truth.images}
    ids = class_ids(scoring.classes, label_ids)
    shown = [_show(row, judged[row["image_uri"]], images[judged[row["image_uri"]].order], scoring, ids) for row in rows]
    return sorted(shown, key=lambda each: (each.judged.score, each.judged.order))


def class_ids(classes: Classes, label_ids: Mapping[str, int]) -> list[int]:
    """The label id of each class as the table has it, so that a class has one colour on all pages; a free one where the table has none."""
    found: dict[int, int] = {}
    for label, label_id in sorted(label_ids.items(), key=lambda item: (item[1], item[0])):
        index = classes.of_label(label)
        if index is not None and label_id not in found.values():
            found.setdefault(index, label_id)
    free = max([-1, *label_ids.values()]) + 1
    return [found.get(index, free + index) for index in range(len(classes))]


def _show(row: Mapping[str, Any], judged: Judged, image: TruthImage, scoring: Scoring, ids: Sequence[int]) -> Shown:
    size = row["height"], row["width"]
    found = _image(row["image_uri"], size)
    pixels = reduced(np.full((*size, 3), _GREY, np.uint8) if found is None else found)
    found_ = compared(row, image, scoring, ids, (pixels.shape[0], pixels.shape[1]))
    return Shown(judged, pixels, found_.truth, found_.prediction, found_.difference, found_.missed, found_.wrong, found is not None)


def compared(row: Mapping[str, Any], image: TruthImage, scoring: Scoring, ids: Sequence[int], to: Size) -> Compared:
    """A row beside the truth of its image, painted for a picture that was reduced to [height, width] `to`; `ids` as of `class_ids`.

    Raises:
        Refused: a file of truth is wrong.
    """
    size = row["height"], row["width"]
    true = scoring.coding.read(image)
    differs = difference(scoring, true, row["segments"])
    return Compared(
        paint(list(true_segments(true, scoring, ids)), size, to, scores=False),
        paint(list(_in_classes(row["segments"], scoring, ids)), size, to),
        painting_of(differs, to),
        differs.share(wrong=False),
        differs.share(wrong=True),
    )


def _image(uri: str, size: tuple[int, int]) -> NDArray[np.uint8] | None:
    with suppress(MasklakeError):  # whoever scores a table need not have the keys of its lake
        data = fetch_by_uri(uri)
        found = data if isinstance(data, ImageFailure) else decode_apart(data, max_pixels=size[0] * size[1])
        if not isinstance(found, ImageFailure) and found.pixels.shape[:2] == size:
            return found.pixels
    return None


def true_segments(found: Painted | Drawn, scoring: Scoring, ids: Sequence[int]) -> Iterator[Segment]:
    """Truth as segments of the table, with label ids by class; smaller instances first."""
    if scoring.task is Task.INSTANCE:
        objects = sorted(instances(found, scoring.classes), key=lambda each: int(coco_mask.area(each.mask)))
        for number, each in enumerate(objects, 1):
            yield _segment(number, each.class_id, each.mask["counts"], scoring, ids)
        return
    if scoring.task is Task.PANOPTIC:
        truth = regions(found, scoring.classes)
        codes_of, labels = truth.ids, dict(truth.labels)
    else:
        codes_of = class_map(found, scoring.classes.of_category) - NONE
        labels = {index - NONE: index for index in range(len(scoring.classes))}
    codes, places = np.unique(codes_of, return_inverse=True)
    present = [code for code in codes.tolist() if code in labels]
    numbers = {code: number for number, code in enumerate(present, 1)}
    columns = np.array([numbers.get(code, 0) for code in codes.tolist()], np.int32)[places].reshape(codes_of.shape).T
    for code, encoded in zip(present, encode_ids(np.ascontiguousarray(columns), len(present)), strict=True):
        yield _segment(numbers[code], labels[code], encoded.counts, scoring, ids)


def _segment(number: int, index: int, counts: bytes, scoring: Scoring, ids: Sequence[int]) -> Segment:
    judged = scoring.classes.judged[index]
    thing = judged.isthing and scoring.task is not Task.SEMANTIC
    return {"segment_id": number, "label_id": ids[index], "label": judged.label, "isthing": thing, "score": 1.0, "counts": counts}


def _in_classes(segments: Iterable[Mapping[str, Any]], scoring: Scoring, ids: Sequence[int]) -> Iterator[Segment]:
    """The row's segments, coloured and named as the classes, where truth has one for them. Of instances, the confident ones: a model gives
    one of every class and query, and all of them together cover the picture.
    """
    for segment in segments:
        if scoring.task is Task.INSTANCE and segment["score"] < CONFIDENT:
            continue
        index = scoring.classes.of_label(segment["label"])
        if index is None:
            yield {**segment, "label": f"{segment['label']} (not judged)"}
        else:
            yield {**segment, "label_id": ids[index], "label": scoring.classes.judged[index].label}
