"""Scores of the model as it is now, on held-out images, through the code that segments a lake: its resizing and post-processing.

The statistics of images are added up, so that workers can share the images.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from pipeline.errors import MasklakeError
from pipeline.inference import preprocess
from pipeline.inference.families import INSTANCE, PANOPTIC, SEMANTIC
from pipeline.inference.segmenter import ModelInput, Segment, Segmenter
from pipeline.quality import panoptic, semantic
from pipeline.quality.panoptic import PanopticStats
from pipeline.quality.semantic import SemanticStats
from pipeline.training.examples import Sample, Size

_SURE = 0.5  # an instance answer's objects that score less are not judged: the id map holds one object a pixel
_TOGETHER = 8


@dataclass(frozen=True)
class Scores:
    """Statistics of images; `+` merges them. `pixels` are of semantic answers."""

    segments: PanopticStats = field(default_factory=PanopticStats)
    pixels: SemanticStats | None = None
    images: int = 0

    def __add__(self, other: Scores) -> Scores:
        parts = [each for each in (self.pixels, other.pixels) if each is not None]
        return Scores(self.segments + other.segments, sum(parts[1:], parts[0]) if parts else None, self.images + other.images)

    def result(self, thing_ids: frozenset[int]) -> dict[str, float]:
        """`pq` (of things alone where the model does instance work alone) and `miou`, as far as the model does such work."""
        scores: dict[str, float] = {}
        if self.segments.per_class:
            scores["pq"] = self.segments.result(thing_ids).pq
        if self.pixels is not None:
            scores["miou"] = self.pixels.result().miou
        return scores


def judge(segmenter: Segmenter, samples: Iterable[Sample]) -> Scores:
    """Segment the samples and compare with their truth at their original size.

    Raises:
        MasklakeError: the model failed on one.
    """
    total, waiting = Scores(), []
    for sample in samples:
        waiting.append(sample)
        if len(waiting) == _TOGETHER:
            total += _judge(segmenter, waiting)
            waiting = []
    return total + _judge(segmenter, waiting)


def _judge(segmenter: Segmenter, samples: list[Sample]) -> Scores:
    description = segmenter.description
    tasks = description.tasks
    asked = tuple(task for task in (PANOPTIC, SEMANTIC) if task in tasks) or (INSTANCE,)
    plan = description.resize
    inputs = [ModelInput(preprocess.resize(sample.pixels, plan), _size(sample), asked) for sample in samples]
    total = Scores()
    for sample, answers in zip(samples, segmenter.segment(inputs), strict=True):
        for task in asked:
            segments = answers[task]
            if not isinstance(segments, list):
                raise MasklakeError(f"validation: the model failed on an image: {segments.message}")
            if task == SEMANTIC:
                total += Scores(pixels=compare_pixels(segments, sample, len(description.labels)))
            else:
                total += Scores(_compare(segments, sample, task))
        total += Scores(images=1)
    return total


def _compare(segments: list[Segment], sample: Sample, task: str) -> PanopticStats:
    """Match segments to the truth; of instance answers, which may overlap, the surest is on top."""
    judged = [each for each in segments if task != INSTANCE or each.score >= _SURE]
    ids, labels = _painted([_mask(each, sample) for each in judged], [each.label_id for each in judged], _size(sample))
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
    """Whether scores are higher than the best so far, by `pq` or `miou`; a score that is not a number is not."""
    if by not in scores or scores[by] != scores[by]:
        return False
    return than is None or by not in than or scores[by] > than[by]
