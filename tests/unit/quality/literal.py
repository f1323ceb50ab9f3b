"""The official evaluation of panoptic segmentation, step by step, on arrays.

cocodataset/panopticapi, `panopticapi/evaluation.py`, `pq_compute_single_core` and `PQStat.pq_average` (BSD). Files are replaced by
arrays; what decides a figure is as it is there, in its order, with its names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

OFFSET = 256 * 256 * 256
VOID = 0

Annotation = tuple[NDArray[Any], Sequence[Mapping[str, Any]]]
"""Ids [H, W], and `segments_info` with `id, category_id, area, iscrowd`."""


@dataclass
class Stat:
    iou: float = 0.0
    tp: int = 0
    fp: int = 0
    fn: int = 0


def pq_compute(images: Iterable[tuple[Annotation, Annotation]]) -> dict[int, Stat]:  # noqa: C901, PLR0912 - as it is there
    """(truth, prediction) of each image -> the statistics of each category."""
    pq_stat: defaultdict[int, Stat] = defaultdict(Stat)
    for (pan_gt, gt_info), (pan_pred, pred_info) in images:
        gt_segms = {el["id"]: dict(el) for el in gt_info}
        pred_segms = {el["id"]: dict(el) for el in pred_info}

        pred_labels_set = {el["id"] for el in pred_info}
        labels, labels_cnt = np.unique(pan_pred, return_counts=True)
        for label, label_cnt in zip(labels.tolist(), labels_cnt.tolist(), strict=True):
            if label not in pred_segms:
                assert label == VOID
                continue
            pred_segms[label]["area"] = label_cnt
            pred_labels_set.remove(label)
        assert not pred_labels_set

        pan_gt_pred = pan_gt.astype(np.uint64) * OFFSET + pan_pred.astype(np.uint64)
        gt_pred_map = {}
        labels, labels_cnt = np.unique(pan_gt_pred, return_counts=True)
        for label, intersection in zip(labels.tolist(), labels_cnt.tolist(), strict=True):
            gt_pred_map[label // OFFSET, label % OFFSET] = intersection

        gt_matched = set()
        pred_matched = set()
        for (gt_label, pred_label), intersection in gt_pred_map.items():
            if gt_label not in gt_segms:
                continue
            if pred_label not in pred_segms:
                continue
            if gt_segms[gt_label]["iscrowd"] == 1:
                continue
            if gt_segms[gt_label]["category_id"] != pred_segms[pred_label]["category_id"]:
                continue
            union = pred_segms[pred_label]["area"] + gt_segms[gt_label]["area"] - intersection - gt_pred_map.get((VOID, pred_label), 0)
            iou = intersection / union
            if iou > 0.5:
                pq_stat[gt_segms[gt_label]["category_id"]].tp += 1
                pq_stat[gt_segms[gt_label]["category_id"]].iou += iou
                gt_matched.add(gt_label)
                pred_matched.add(pred_label)

        crowd_labels_dict = {}
        for gt_label, info in gt_segms.items():
            if gt_label in gt_matched:
                continue
            if info["iscrowd"] == 1:
                crowd_labels_dict[info["category_id"]] = gt_label
                continue
            pq_stat[info["category_id"]].fn += 1

        for pred_label, info in pred_segms.items():
            if pred_label in pred_matched:
                continue
            intersection = gt_pred_map.get((VOID, pred_label), 0)
            if info["category_id"] in crowd_labels_dict:
                intersection += gt_pred_map.get((crowd_labels_dict[info["category_id"]], pred_label), 0)
            if intersection / info["area"] > 0.5:
                continue
            pq_stat[info["category_id"]].fp += 1
    return dict(pq_stat)


def pq_average(pq_stat: Mapping[int, Stat], thing_ids: set[int], isthing: bool | None = None) -> tuple[float, float, float, int]:
    """PQ, SQ, RQ and the number of classes, over all classes, things or stuff."""
    pq, sq, rq, n = 0.0, 0.0, 0.0, 0
    for label, stat in pq_stat.items():
        if isthing is not None and (label in thing_ids) != isthing:
            continue
        if stat.tp + stat.fp + stat.fn == 0:
            continue
        n += 1
        pq += stat.iou / (stat.tp + 0.5 * stat.fp + 0.5 * stat.fn)
        sq += stat.iou / stat.tp if stat.tp != 0 else 0
        rq += stat.tp / (stat.tp + 0.5 * stat.fp + 0.5 * stat.fn)
    return pq / n, sq / n, rq / n, n
