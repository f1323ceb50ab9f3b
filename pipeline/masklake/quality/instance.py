"""Average precision of instance masks, by pycocotools (`COCOeval`, iouType "segm"), which is the reference: crowds, areas, the bound.

COCOeval matches image by image and then accumulates. Here the first step is done wherever the image is; what it found, not the masks, is
kept and added up, so that a data set can be evaluated in pieces, in any order.
"""

from __future__ import annotations

import copy
import io
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval, Params

from masklake.quality import MAX_DETECTIONS

RunLengths = dict[str, Any]
"""COCO's compressed mask: `size` [height, width] and `counts`, bytes."""

CONFIDENT = 0.5
"""The score from which on a detection is counted in `confusion`."""

_ALL, _SMALL, _MEDIUM, _LARGE = range(4)  # COCOeval's area ranges


@dataclass(frozen=True)
class TrueInstance:
    """`area` decides whether it is small, medium or large: COCO's is the polygon's, not the mask's."""

    class_id: int
    mask: RunLengths
    area: float
    crowd: bool = False


@dataclass(frozen=True)
class Detection:
    """One predicted instance."""

    class_id: int
    mask: RunLengths
    score: float


@dataclass(frozen=True, eq=False)
class Matches:
    """What COCOeval found of one class in one image: [areas, thresholds, detections] whether each detection, by falling score, is matched
    and is ignored; [areas, truths] whether each true instance is ignored. `image` orders the images, as COCO's image ids do."""

    image: int
    class_id: int
    scores: NDArray[np.float64]
    matched: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    truth_ignored: NDArray[np.bool_]


@dataclass(frozen=True)
class InstanceQuality:
    """COCO's figures, 0..1, NaN where there was nothing to find; `ar` is COCO's AR with as many detections as count."""

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar: float
    per_class: dict[int, float]
    per_class50: dict[int, float]


@dataclass(frozen=True, eq=False)
class InstanceStats:
    """The matches of many images; `sum(parts, InstanceStats())` merges them. Of `cut` images, the bound on detections left some out."""

    matches: tuple[Matches, ...] = ()
    cut: int = 0

    def __add__(self, other: InstanceStats) -> InstanceStats:
        return InstanceStats(self.matches + other.matches, self.cut + other.cut)

    def pooled(self) -> float:
        """The best F1 that any threshold on the score gives at an IoU of 0.5, all classes together, which ranks images; NaN of nothing."""
        truths = sum(int((~match.truth_ignored[_ALL]).sum()) for match in self.matches)
        scores = np.concatenate([np.zeros(0), *(match.scores[~match.ignored[_ALL, 0]] for match in self.matches)])
        right = np.concatenate([np.zeros(0, bool), *(match.matched[_ALL, 0][~match.ignored[_ALL, 0]] for match in self.matches)])
        if not len(scores):
            return 0.0 if truths else float("nan")
        found = np.cumsum(right[np.argsort(-scores, kind="stable")])
        return float((2 * found / (np.arange(1, len(found) + 1) + truths)).max())

    def result(self) -> InstanceQuality:
        """COCO's figures of everything that was added up; classes without a true instance do not count."""
        class_ids = sorted({match.class_id for match in self.matches})
        if not class_ids:
            nothing = float("nan")
            return InstanceQuality(nothing, nothing, nothing, nothing, nothing, nothing, nothing, {}, {})
        accumulated = _accumulate(self.matches, class_ids)
        precision, recall = accumulated["precision"], accumulated["recall"]  # [threshold, recall, class, area, detections]; without recall
        per_class = {class_id: _mean(precision[:, :, index, _ALL, -1]) for index, class_id in enumerate(class_ids)}
        per_class50 = {class_id: _mean(precision[0, :, index, _ALL, -1]) for index, class_id in enumerate(class_ids)}
        return InstanceQuality(
            ap=_mean(precision[:, :, :, _ALL, -1]),
            ap50=_mean(precision[0, :, :, _ALL, -1]),
            ap75=_mean(precision[5, :, :, _ALL, -1]),
            ap_small=_mean(precision[:, :, :, _SMALL, -1]),
            ap_medium=_mean(precision[:, :, :, _MEDIUM, -1]),
            ap_large=_mean(precision[:, :, :, _LARGE, -1]),
            ar=_mean(recall[:, :, _ALL, -1]),
            per_class={class_id: value for class_id, value in per_class.items() if not np.isnan(value)},
            per_class50={class_id: value for class_id, value in per_class50.items() if not np.isnan(value)},
        )


def compare(
    prediction: Sequence[Detection], truth: Sequence[TrueInstance], image: int, max_detections: int = MAX_DETECTIONS
) -> InstanceStats:
    """Match one image's detections to its true instances, class by class, at COCO's ten thresholds and four ranges of areas.

    Args:
        prediction: of one image; of equal scores the first comes first.
        truth: of the same image, crowds included.
        image: the image's place among all; each image has its own.
        max_detections: of each class, so many of the highest scores count; the same for all images.
    """
    if not prediction and not truth:
        return InstanceStats()
    truths = [
        {"id": number, "category_id": each.class_id, "segmentation": each.mask, "area": each.area, "iscrowd": int(each.crowd)}
        for number, each in enumerate(truth, 1)  # COCOeval takes a match with number 0 for none
    ]
    detections = [
        {"id": number, "category_id": each.class_id, "segmentation": each.mask, "score": each.score, "iscrowd": 0}
        for number, each in enumerate(prediction, 1)
    ]
    for detection in detections:
        detection["area"] = float(coco_mask.area(detection["segmentation"]))
    size = (truth[0].mask if truth else prediction[0].mask)["size"]
    class_ids = sorted({each.class_id for each in truth} | {each.class_id for each in prediction})
    with redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_coco(truths, class_ids, size), _coco(detections, class_ids, size), "segm")
        evaluation.params.maxDets = [max_detections]
        evaluation.evaluate()
    by_class: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)  # each class's areas, in order
    for found in evaluation.evalImgs:
        if found is not None:
            by_class[found["category_id"]].append(found)
    most = max(Counter(each.class_id for each in prediction).values(), default=0)
    return InstanceStats(tuple(_matches(image, class_id, areas) for class_id, areas in by_class.items()), int(most > max_detections))


def confusion(prediction: Sequence[Detection], truth: Sequence[TrueInstance], classes: int) -> NDArray[np.int64]:
    """Which class true instances were taken for: int64 [classes, classes + 1], the last column for what nothing found; see `pairs`."""
    counts = np.zeros((classes, classes + 1), np.int64)
    found = pairs(prediction, truth)
    for index, each in enumerate(truth):
        if not each.crowd:
            counts[each.class_id, prediction[found[index]].class_id if index in found else classes] += 1
    return counts


def pairs(prediction: Sequence[Detection], truth: Sequence[TrueInstance]) -> dict[int, int]:
    """The detection that found each true instance, whatever their classes, by their places.

    Of `CONFIDENT` detections, by falling score, each takes the true instance with which its IoU is highest, and 0.5 or more. Crowds do not
    count.
    """
    wanted = [index for index, each in enumerate(truth) if not each.crowd]
    offered = [index for index, each in enumerate(prediction) if each.score >= CONFIDENT]
    offered.sort(key=lambda index: -prediction[index].score)
    if not offered or not wanted:
        return {}
    masks = [prediction[index].mask for index in offered], [truth[index].mask for index in wanted]
    found: dict[int, int] = {}
    for detection, row in zip(offered, coco_mask.iou(*masks, [0] * len(wanted)), strict=True):
        ious = {index: iou for index, iou in zip(wanted, row, strict=True) if index not in found and iou >= 0.5}
        if ious:
            found[max(ious, key=lambda index: ious[index])] = detection
    return found


def _matches(image: int, class_id: int, areas: Sequence[dict[str, Any]]) -> Matches:
    return Matches(
        image,
        class_id,
        np.asarray(areas[0]["dtScores"], np.float64),
        np.stack([np.asarray(area["dtMatches"]) != 0 for area in areas]),
        np.stack([np.asarray(area["dtIgnore"]).astype(bool) for area in areas]),
        np.stack([np.asarray(area["gtIgnore"]).astype(bool) for area in areas]),
    )


def _coco(annotations: Sequence[dict[str, Any]], class_ids: Sequence[int], size: Sequence[int]) -> COCO:
    """The annotations of one image, whose id is 1."""
    coco = COCO()
    coco.dataset = {
        "images": [{"id": 1, "height": size[0], "width": size[1]}],
        "categories": [{"id": class_id} for class_id in class_ids],
        "annotations": [{**annotation, "image_id": 1} for annotation in annotations],
    }
    coco.createIndex()
    return coco


def _accumulate(matches: Sequence[Matches], class_ids: Sequence[int]) -> dict[str, NDArray[np.float64]]:
    """COCOeval's second step, over the matches of all images in the order of the images."""
    images = sorted({match.image for match in matches})
    found = {(match.class_id, match.image): match for match in matches}
    with redirect_stdout(io.StringIO()):
        evaluation = COCOeval(iouType="segm")
    parameters: Params = evaluation.params
    parameters.catIds, parameters.imgIds = list(class_ids), images
    parameters.maxDets = [max(1, *(len(match.scores) for match in matches))]  # `compare` has cut what is beyond the bound
    evaluation._paramsEval = copy.deepcopy(parameters)
    evaluation.evalImgs = [
        _of_area(match, area) if (match := found.get((class_id, image))) is not None else None
        for class_id in class_ids
        for area in range(len(parameters.areaRng))
        for image in images
    ]
    with redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    accumulated: dict[str, NDArray[np.float64]] = evaluation.eval
    return accumulated


def _of_area(match: Matches, area: int) -> dict[str, Any]:
    return {
        "dtScores": match.scores,
        "dtMatches": match.matched[area],
        "dtIgnore": match.ignored[area],
        "gtIgnore": match.truth_ignored[area],
    }


def _mean(figures: NDArray[np.float64]) -> float:
    """As COCOeval's summary: -1 marks what did not occur."""
    occurred = figures[figures > -1]
    return float(occurred.mean()) if len(occurred) else float("nan")
