"""Where an answer differs from ground truth: the pixels that it misses, those of which it says something wrong, and what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from masklake.evaluation.scoring import Scoring, detections_of, panoptic_ids, predicted_classes
from masklake.pages.cards import Painting, Size, nearest
from masklake.pages.names import Name, place
from masklake.quality import instance, panoptic
from masklake.quality.instance import CONFIDENT, RunLengths
from masklake.quality.semantic import NONE
from masklake.schema import Task
from masklake.table.masks import is_painted
from masklake.truth.formats import Drawn, Painted
from masklake.truth.regions import class_map, instances, regions, size_of

MISSED, WRONG = (64, 140, 255), (255, 128, 0)
"""Their colours, which differ in brightness and for every kind of colour blindness."""

_ALPHA = 0.8
_THINNEST = 0.02  # of the picture: what is thinner, as along borders, is painted and not named

Segments = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Region:
    """What is the matter with some pixels; `text` is empty where there is nothing to say beside the colour."""

    wrong: bool
    text: str = ""


@dataclass(frozen=True, eq=False)
class Difference:
    """`ids` int32 [H, W] says which of `regions`, from 1 on, a pixel is in; 0 where the answer is right, or not judged."""

    ids: NDArray[np.int32]
    regions: tuple[Region, ...]

    def share(self, wrong: bool) -> float:
        """Of the picture: what is wrong, or what is missed."""
        counts = np.bincount(self.ids.ravel(), minlength=len(self.regions) + 1)[1:]
        return sum(int(count) for count, region in zip(counts, self.regions, strict=True) if region.wrong is wrong) / self.ids.size


def difference(scoring: Scoring, truth: Painted | Drawn, segments: Segments) -> Difference:
    """What the segments of a row get wrong.

    Of a panoptic answer, a pixel is right where the segments that it lies in match, as PQ sees it; of a semantic one, where the classes are
    the same. Of an instance answer, confident detections and true instances that found each other are compared pixel by pixel; all others
    are missed or wrong as a whole.
    """
    if scoring.task is Task.INSTANCE:
        return _of_instances(scoring, truth, segments)
    labels = [each.label for each in scoring.classes.judged]
    if scoring.task is Task.SEMANTIC:
        true = class_map(truth, scoring.classes.of_category)
        named = {index - NONE: label for index, label in enumerate(labels)}
        predicted = predicted_classes(segments, scoring.classes, size_of(truth))
        right = {(number, number) for number in named}
        return _of_maps(true - NONE, predicted - NONE, named, named, right)
    found = regions(truth, scoring.classes)
    ids, predicted_labels = panoptic_ids(scoring, segments, size_of(truth))
    matched = set(panoptic.matches(ids, predicted_labels, found.ids, found.labels, crowd_ids=found.crowds))
    judged = {number: labels[index] for number, index in found.labels.items() if number not in found.crowds}
    return _of_maps(found.ids, ids, judged, {number: labels[index] for number, index in predicted_labels.items()}, matched)


def painting_of(found: Difference, to: Size) -> Painting:
    """The difference as it lies over a picture that was reduced to [height, width] `to`."""
    height, width = found.ids.shape
    ids = found.ids[np.ix_(*nearest((height, width), to))]
    colours = [WRONG if region.wrong else MISSED for region in found.regions]
    fill = np.array([(0, 0, 0, 0), *((*colour, round(255 * _ALPHA)) for colour in colours)], np.uint8)
    named = {
        number: Name(region.text, colour)
        for number, (region, colour) in enumerate(zip(found.regions, colours, strict=True), 1)
        if region.text
    }
    return Painting(fill[ids], (), place(named, ids, _THINNEST))


def _of_maps(
    true: NDArray[np.int32],
    predicted: NDArray[np.int32],
    true_labels: Mapping[int, str],
    predicted_labels: Mapping[int, str],
    right: set[tuple[int, int]],
) -> Difference:
    """Of two maps of ids, each with the labels of those that count; pairs in `right` agree. A label that is not painted is nothing."""
    pairs = (true.astype(np.int64) << 32) | predicted.astype(np.int64)
    codes, places = np.unique(pairs, return_inverse=True)
    table = np.zeros(len(codes), np.int32)
    found: list[Region] = []
    for code_place, code in enumerate(codes.tolist()):
        pair = code >> 32, code & 0xFFFFFFFF
        region = None if pair in right or pair[0] not in true_labels else _region(true_labels[pair[0]], predicted_labels.get(pair[1]))
        if region:
            found.append(region)
            table[code_place] = len(found)
    return Difference(table[places].reshape(true.shape), tuple(found))


def _region(true: str, predicted: str | None) -> Region | None:
    """What is said of pixels of one label that were taken for another one, or for nothing."""
    if predicted is None or not is_painted(predicted):
        return Region(False, f"{true} missed") if is_painted(true) else None
    if not is_painted(true):
        return Region(True, f"no {predicted}")
    return Region(True, f"{true} not matched" if true == predicted else f"{true} taken for {predicted}")


def _of_instances(scoring: Scoring, truth: Painted | Drawn, segments: Segments) -> Difference:
    size, labels = size_of(truth), [each.label for each in scoring.classes.judged]
    true = instances(truth, scoring.classes)
    detections = [each for each in detections_of(scoring, segments, size) if each.score >= CONFIDENT]
    found = instance.pairs(detections, true)
    crowds = _union([each.mask for each in true if each.crowd], size)
    parts: list[tuple[Region, NDArray[np.bool_]]] = []
    for index, each in enumerate(true):
        if each.crowd:
            continue
        there = _decoded(each.mask)
        if index not in found:
            parts.append((Region(False, f"{labels[each.class_id]} missed"), there))
            continue
        detection = detections[found[index]]
        claimed = _decoded(detection.mask)
        if detection.class_id != each.class_id:
            parts.append((Region(True, f"{labels[each.class_id]} taken for {labels[detection.class_id]}"), there | claimed))
        else:
            parts += [(Region(False), there & ~claimed), (Region(True), claimed & ~there & ~crowds)]
    for place_, detection in enumerate(detections):
        if place_ not in found.values():
            parts.append((Region(True, f"no {labels[detection.class_id]}"), _decoded(detection.mask) & ~crowds))
    ids = np.zeros(size, np.int32)
    parts.sort(key=lambda part: part[0].wrong)  # what is wrong lies over what is missed
    for number, (_, mask) in enumerate(parts, 1):
        ids[mask] = number
    return Difference(ids, tuple(region for region, _ in parts))


def _decoded(mask: RunLengths) -> NDArray[np.bool_]:
    decoded: NDArray[np.bool_] = coco_mask.decode(mask).view(np.bool_)
    return decoded


def _union(masks: Sequence[RunLengths], size: Size) -> NDArray[np.bool_]:
    return _decoded(coco_mask.merge(list(masks))) if masks else np.zeros(size, np.bool_)
