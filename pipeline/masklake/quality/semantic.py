"""Semantic segmentation: IoU by class, and its means, from a confusion matrix of pixels.

Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015 (arXiv:1411.4038), section 5, names the
four figures. Matrices of images are added up, so that a data set can be evaluated in pieces, in any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ClassMap = NDArray[np.integer[Any]]
"""[H, W]: the class of every pixel, 0..classes-1; `NONE` where there is none of them."""

NONE = -1
"""In a truth: not known, not judged (the ignore index). In a prediction: nothing, or a class that the truth does not have."""


@dataclass(frozen=True)
class SemanticQuality:
    """Each figure is 0..1, NaN where nothing was there to judge.

    `iou` and `accuracy` (recall) are by class, NaN for classes that occurred in neither truth nor prediction, which the means leave out.
    """

    miou: float
    frequency_weighted_iou: float
    pixel_accuracy: float
    mean_accuracy: float
    iou: tuple[float, ...]
    accuracy: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class SemanticStats:
    """`confusion` int64 [classes, classes + 1]: pixels by true class (row) and predicted class (column; the last is `NONE`)."""

    confusion: NDArray[np.int64]

    def __add__(self, other: SemanticStats) -> SemanticStats:
        return SemanticStats(self.confusion + other.confusion)

    def result(self) -> SemanticQuality:
        """The figures of everything that was added up."""
        right = self.confusion.diagonal().astype(np.float64)
        true, predicted = self.confusion.sum(1), self.confusion[:, :-1].sum(0)
        pixels = true.sum()
        iou, accuracy = _ratio(right, true + predicted - right), _ratio(right, true)
        return SemanticQuality(
            miou=_mean(iou),
            frequency_weighted_iou=float((true * np.nan_to_num(iou)).sum() / pixels) if pixels else float("nan"),
            pixel_accuracy=float(right.sum() / pixels) if pixels else float("nan"),
            mean_accuracy=_mean(accuracy),
            iou=tuple(iou.tolist()),
            accuracy=tuple(accuracy.tolist()),
        )


def compare(prediction: ClassMap, truth: ClassMap, classes: int) -> SemanticStats:
    """Count one image's pixels. Pixels whose truth is `NONE` do not count; a predicted `NONE` is wrong, but no class's false positive.

    Raises:
        ValueError: the maps differ in size, or hold a class that is not `NONE` or 0..classes-1.
    """
    if prediction.shape != truth.shape or truth.ndim != 2:
        raise ValueError(f"class maps must be [H, W] of one size, not {prediction.shape} (prediction) and {truth.shape} (truth)")
    for name, classes_seen in (("prediction", prediction), ("truth", truth)):
        if classes_seen.size and not (classes_seen.min() >= NONE and classes_seen.max() < classes):
            raise ValueError(f"{name}: holds classes {classes_seen.min()} to {classes_seen.max()}, and there are {classes}")
    known = truth != NONE
    predicted = np.where(prediction == NONE, classes, prediction)[known].astype(np.int64)
    counts = np.bincount(truth[known].astype(np.int64) * (classes + 1) + predicted, minlength=classes * (classes + 1))
    return SemanticStats(counts.reshape(classes, classes + 1).astype(np.int64))


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float64]:
    ratio: NDArray[np.float64] = np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
    return ratio


def _mean(figures: NDArray[np.float64]) -> float:
    occurred = figures[~np.isnan(figures)]
    return float(occurred.mean()) if len(occurred) else float("nan")
