"""Scores of the model as it is now, on held-out images, through the code that segments a lake: its resizing and post-processing.

The statistics of images are added up, so that workers can share the images.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from masklake.errors import MasklakeError
from masklake.inference import preprocess
from masklake.inference.families import INSTANCE, PANOPTIC, SEMANTIC
from masklake.inference.segmenter import ModelInput, Segment, Segmenter
from masklake.quality import instance, panoptic, semantic
from masklake.quality.instance import Detection, InstanceStats, TrueInstance
from masklake.quality.panoptic import PanopticStats
from masklake.quality.semantic import SemanticStats
from masklake.training.examples import Sample, Size

_TOGETHER = 8  # images of a forward pass


@dataclass(frozen=True)
class Scores:
    """Statistics of images, none of work that the model does not do; `+` merges them."""

    segments: PanopticStats | None = None
    pixels: SemanticStats | None = None
    objects: InstanceStats | None = None

    def __add__(self, other: Scores) -> Scores:
        return Scores(
            _sum(self.segments, other.segments),
            _sum(self.pixels, other.pixels),
            _sum(self.objects, other.objects),
        )

    def result(self, thing_ids: frozenset[int]) -> dict[str, float]:
        """`pq`, `miou` and `ap`, as far as the model does panoptic, semantic and instance work."""
        scores: dict[str, float] = {}
        if self.segments is not None:
            scores["pq"] = self.segments.result(thing_ids).pq
        if self.pixels is not None:
            scores["miou"] = self.pixels.result().miou
        if self.objects is not None:
            scores["ap"] = self.objects.result().ap
        return scores


def _sum(one: Any, other: Any) -> Any:
    if one is None or other is None:
        return other if one is None else one
    return one + other


def judge(segmenter: Segmenter, samples: Iterable[tuple[int, Sample]]) -> Scores:
    """Segment the samples for everything the model can do, and compare with their truth at their original size.

    Args:
        segmenter: the model.
        samples: each with its place among all that are judged, by whomever.

    Raises:
        MasklakeError: the model failed on one.
    """
    total, waiting = Scores(), []
    for each in samples:
        waiting.append(each)
        if len(waiting) == _TOGETHER:
            total += _judge(segmenter, waiting)
            waiting = []
    return total + _judge(segmenter, waiting)


def _judge(segmenter: Segmenter, samples: list[tuple[int, Sample]]) -> Scores:
    description = segmenter.description
    inputs = [ModelInput(preprocess.resize(sample.pixels, description.resize), _size(sample), description.tasks) for _, sample in samples]
    total = Scores()
    for (place, sample), answers in zip(samples, segmenter.segment(inputs), strict=True):
        for task, segments in answers.items():
            if not isinstance(segments, list):
                raise MasklakeError(f"validation: the model failed on an image: {segments.message}")
            if task == PANOPTIC:
                total += Scores(segments=compare_segments(segments, sample))
            elif task == SEMANTIC:
                total += Scores(pixels=compare_pixels(segments, sample, len(description.labels)))
            else:
                assert task == INSTANCE
                total += Scores(objects=compare_objects(segments, sample, description.thing_ids, place))
    return total


def compare_segments(segments: list[Segment], sample: Sample) -> PanopticStats:
    """Match a panoptic answer to the truth."""
    ids, labels = _painted([_mask(each, sample) for each in segments], [each.label_id for each in segments], _size(sample))
    true_ids, true_labels = _painted(list(sample.masks), sample.label_ids.tolist(), _size(sample))
    crowd = [index for index, flag in enumerate(sample.crowd.tolist(), 1) if flag and index in true_labels]
    return panoptic.compare(ids, labels, true_ids, true_labels, crowd_ids=crowd)


def _painted(masks: list[NDArray[np.bool_]], label_ids: list[int], size: Size) -> tuple[NDArray[np.int32], dict[int, int]]:
    """An id map with the first mask on top, and the labels of the ids that are seen."""
    ids = np.zeros(size, np.int32)
    for index in range(len(masks), 0, -1):
        ids[masks[index - 1]] = index
    seen = set(np.unique(ids).tolist())
    return ids, {index: label for index, label in enumerate(label_ids, 1) if index in seen}


def compare_objects(segments: list[Segment], sample: Sample, thing_ids: frozenset[int], place: int) -> InstanceStats:
    """Match an instance answer to the true things, of which the mask's area counts; `place` is the image's among all."""
    height, width = _size(sample)
    found = [Detection(each.label_id, {"size": [height, width], "counts": each.counts}, each.score) for each in segments]
    masks = zip(sample.masks, sample.label_ids.tolist(), sample.crowd.tolist(), strict=True)
    truth = [
        TrueInstance(label, coco_mask.encode(np.asfortranarray(mask, np.uint8)), float(mask.sum()), crowd)
        for mask, label, crowd in masks
        if label in thing_ids
    ]
    return instance.compare(found, truth, place)


def compare_pixels(segments: list[Segment], sample: Sample, classes: int) -> SemanticStats:
    """Count pixels; those without truth, or in crowd regions, are not judged."""
    truth = np.full(_size(sample), semantic.NONE, np.int64)
    for mask, label in zip(sample.masks[~sample.crowd], sample.label_ids[~sample.crowd], strict=True):
        truth[mask] = label
    predicted = np.full(_size(sample), semantic.NONE, np.int64)
    for segment in segments:
        predicted[_mask(segment, sample)] = segment.label_id
    return semantic.compare(predicted, truth, classes)


def _mask(segment: Segment, sample: Sample) -> NDArray[np.bool_]:
    height, width = _size(sample)
    return np.asarray(coco_mask.decode({"size": [height, width], "counts": segment.counts}), np.bool_)


def _size(sample: Sample) -> tuple[int, int]:
    height, width = sample.pixels.shape[:2]
    return height, width


def better(scores: Mapping[str, Any], than: Mapping[str, Any] | None, by: str) -> bool:
    """Whether scores are higher than the best so far, by `pq`, `miou` or `ap`; a score that is not a number is not."""
    if by not in scores or scores[by] != scores[by]:
        return False
    return than is None or by not in than or scores[by] > than[by]
