"""Panoptic quality: Kirillov, He, Girshick, Rother, Dollar, "Panoptic Segmentation", CVPR 2019 (arXiv:1801.00868).

The rules follow the official implementation, cocodataset/panopticapi `evaluation.py`. Statistics of images are added up, so that a
data set can be evaluated in pieces, in any order. Knows nothing of models, tables and storage.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from masklake.table.masks import id_map

IdMap = NDArray[np.integer[Any]]
"""[H, W]: the segment id of every pixel."""


@dataclass(frozen=True)
class ClassStats:
    """One class's matches: `iou` is the sum over the true positives, kept exactly, so that no order of adding up changes a figure."""

    iou: Fraction | float = 0.0
    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "iou", Fraction(self.iou))

    def __add__(self, other: ClassStats) -> ClassStats:
        return ClassStats(self.iou + other.iou, self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    def quality(self) -> Quality:
        """PQ = SQ x RQ; the mean IoU of matched segments times their F1 score. NaN where the class never occurred."""
        weight = self.tp + 0.5 * self.fp + 0.5 * self.fn
        if not weight:
            return Quality(float("nan"), float("nan"), float("nan"), 0)
        return Quality(float(self.iou) / weight, float(self.iou) / self.tp if self.tp else 0.0, self.tp / weight, 1)


@dataclass(frozen=True)
class Quality:
    """Panoptic, segmentation and recognition quality, each 0..1, averaged over `classes` classes; NaN where that is 0."""

    pq: float
    sq: float
    rq: float
    classes: int


@dataclass(frozen=True)
class PanopticQuality:
    """The averages over all classes that occurred in truth or prediction, over things, over stuff, and every such class by label id."""

    pq: float
    sq: float
    rq: float
    things: Quality
    stuff: Quality
    per_class: dict[int, Quality]


@dataclass(frozen=True)
class PanopticStats:
    """Matches by label id; `sum(parts, PanopticStats())` merges the statistics of many images."""

    per_class: Mapping[int, ClassStats] = field(default_factory=dict)

    def __add__(self, other: PanopticStats) -> PanopticStats:
        merged = dict(self.per_class)
        for label_id, stats in other.per_class.items():
            merged[label_id] = merged.get(label_id, ClassStats()) + stats
        return PanopticStats(merged)

    def pooled(self) -> float:
        """The PQ of all segments as if they were of one class, which ranks images; NaN where there are none."""
        return sum(self.per_class.values(), ClassStats()).quality().pq

    def result(self, thing_ids: Collection[int]) -> PanopticQuality:
        """Average over classes; as in panopticapi, a class that occurred in neither truth nor prediction does not count."""
        per_class = {label_id: stats.quality() for label_id, stats in sorted(self.per_class.items())}
        per_class = {label_id: quality for label_id, quality in per_class.items() if quality.classes}
        everything = _average(per_class.values())
        return PanopticQuality(
            pq=everything.pq,
            sq=everything.sq,
            rq=everything.rq,
            things=_average(quality for label_id, quality in per_class.items() if label_id in thing_ids),
            stuff=_average(quality for label_id, quality in per_class.items() if label_id not in thing_ids),
            per_class=per_class,
        )


def compare(
    prediction_ids: IdMap,
    prediction_labels: Mapping[int, int],
    truth_ids: IdMap,
    truth_labels: Mapping[int, int],
    void: int = 0,
    crowd_ids: Collection[int] = (),
) -> PanopticStats:
    """Match one image's predicted segments to its true ones.

    A pair of one class matches where IoU > 0.5, which at most one pair of each segment can. Predicted pixels on void truth do not
    count in the union. A crowd region is never matched or missed. An unmatched prediction of which more than half lies on void
    truth, or on crowd regions of its own class, is not a false positive. (Of several crowd regions of a class in an image, which COCO
    does not have, panopticapi looks at the last one only.)

    Args:
        prediction_ids: integers [H, W], the predicted segment of every pixel; `void` where there is none.
        prediction_labels: label id of every predicted segment.
        truth_ids: integers [H, W], the true segment of every pixel; `void` where it is not known.
        truth_labels: label id of every true segment, crowd regions included.
        void: the id of pixels without a segment, in both maps.
        crowd_ids: true segments that stand for several things that are not told apart (COCO's `iscrowd`).

    Raises:
        ValueError: the maps differ in size or hold negative ids, or a map and its labels do not name the same segments.
    """
    overlaps = _overlaps(truth_ids, prediction_ids)
    truth_areas, prediction_areas = _areas(overlaps)
    _check_segments("truth", truth_areas, truth_labels, void)
    _check_segments("prediction", prediction_areas, prediction_labels, void)
    matched = _matched(overlaps, prediction_labels, truth_labels, void, crowd_ids)
    per_class: defaultdict[int, ClassStats] = defaultdict(ClassStats)
    for (truth, _), iou in matched.items():
        per_class[truth_labels[truth]] += ClassStats(iou=iou, tp=1)
    for truth in set(truth_labels) - set(crowd_ids) - {truth for truth, _ in matched}:
        per_class[truth_labels[truth]] += ClassStats(fn=1)
    ignored: Counter[int] = Counter()
    for (truth, prediction), area in overlaps.items():
        if truth == void or (truth in crowd_ids and truth_labels[truth] == prediction_labels.get(prediction)):
            ignored[prediction] += area
    for prediction in set(prediction_labels) - {prediction for _, prediction in matched}:
        if 2 * ignored[prediction] <= prediction_areas[prediction]:
            per_class[prediction_labels[prediction]] += ClassStats(fp=1)
    return PanopticStats(dict(per_class))


def matches(
    prediction_ids: IdMap,
    prediction_labels: Mapping[int, int],
    truth_ids: IdMap,
    truth_labels: Mapping[int, int],
    void: int = 0,
    crowd_ids: Collection[int] = (),
) -> dict[tuple[int, int], float]:
    """The IoU of each pair (true id, predicted id) that `compare` takes for a match; its arguments."""
    return _matched(_overlaps(truth_ids, prediction_ids), prediction_labels, truth_labels, void, crowd_ids)


def segment_ids(segments: Sequence[Mapping[str, Any]], height: int, width: int) -> tuple[NDArray[np.int32], dict[int, int]]:
    """A panoptic row of the table as `compare` takes it: the id map, int32 [H, W] with 0 for void, and the label id of each segment.

    Args:
        segments: the table's structs; `segment_id`, `label_id` and `counts` (COCO's compressed run lengths) are read.
        height: of the upright image, pixels.
        width: of the upright image, pixels.

    Raises:
        ValueError: two segments share a pixel or an id, so that no id map can hold them (instance answers may).
    """
    ids = id_map(segments, height, width)
    seen = np.bincount(ids.ravel(), minlength=max((segment["segment_id"] for segment in segments), default=0) + 1)
    labels: dict[int, int] = {}
    for segment in segments:
        segment_id, area = int(segment["segment_id"]), int(coco_mask.area({"size": [height, width], "counts": segment["counts"]}))
        if segment_id in labels:
            raise ValueError(f"segment id {segment_id} occurs twice")
        if seen[segment_id] != area:
            raise ValueError(f"segment {segment_id} overlaps another one: only panoptic and semantic answers have an id map")
        if area:
            labels[segment_id] = int(segment["label_id"])
    return ids, labels


def _overlaps(truth_ids: IdMap, prediction_ids: IdMap) -> dict[tuple[int, int], int]:
    """The pixels shared by each pair (true id, predicted id) that meets."""
    if prediction_ids.shape != truth_ids.shape or truth_ids.ndim != 2:
        raise ValueError(f"id maps must be [H, W] of one size, not {prediction_ids.shape} (prediction) and {truth_ids.shape} (truth)")
    if min(prediction_ids.min(initial=0), truth_ids.min(initial=0)) < 0:
        raise ValueError("segment ids must be 0 or more")
    pairs = (truth_ids.astype(np.int64) << 32) | prediction_ids.astype(np.int64)
    found, areas = np.unique(pairs, return_counts=True)
    return {(pair >> 32, pair & 0xFFFFFFFF): area for pair, area in zip(found.tolist(), areas.tolist(), strict=True)}


def _matched(
    overlaps: Mapping[tuple[int, int], int],
    prediction_labels: Mapping[int, int],
    truth_labels: Mapping[int, int],
    void: int,
    crowd_ids: Collection[int],
) -> dict[tuple[int, int], float]:
    truth_areas, prediction_areas = _areas(overlaps)
    found = {}
    for (truth, prediction), area in overlaps.items():
        if void in (truth, prediction) or truth in crowd_ids or truth_labels[truth] != prediction_labels[prediction]:
            continue
        union = truth_areas[truth] + prediction_areas[prediction] - area - overlaps.get((void, prediction), 0)
        if 2 * area > union:
            found[truth, prediction] = area / union
    return found


def _areas(overlaps: Mapping[tuple[int, int], int]) -> tuple[Counter[int], Counter[int]]:
    truth_areas: Counter[int] = Counter()
    prediction_areas: Counter[int] = Counter()
    for (truth, prediction), area in overlaps.items():
        truth_areas[truth] += area
        prediction_areas[prediction] += area
    return truth_areas, prediction_areas


def _check_segments(name: str, areas: Mapping[int, int], labels: Mapping[int, int], void: int) -> None:
    """A segment without a label would vanish from the figures, and one without pixels would lower them: neither may pass unseen."""
    if void in labels:
        raise ValueError(f"{name}: the void id {void} has a label")
    if unlabelled := set(areas) - set(labels) - {void}:
        raise ValueError(f"{name}: segments {sorted(unlabelled)[:5]} are in the id map but have no label")
    if unseen := set(labels) - set(areas):
        raise ValueError(f"{name}: segments {sorted(unseen)[:5]} have a label but no pixels in the id map")


def _average(qualities: Iterable[Quality]) -> Quality:
    """The mean over classes, each class weighing the same."""
    found = list(qualities)
    if not found:
        return Quality(float("nan"), float("nan"), float("nan"), 0)
    pq, sq, rq = np.mean([(quality.pq, quality.sq, quality.rq) for quality in found], axis=0).tolist()
    return Quality(pq, sq, rq, len(found))
