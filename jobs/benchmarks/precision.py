"""What half precision changes in the answers: the same pictures through the same weights, in float32 and in bfloat16 and float16.

Twice each: with coordinates in float32, as the job has it, and with all of the module cast, coordinates as well.

A segment counts as found again where one of the same label overlaps it with an intersection over union of at least a half.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from masklake.errors import ImageFailure
from masklake.inference import half_precision
from masklake.inference.preprocess import Size, resize
from masklake.inference.segmenter import Answers, ModelInput, Segment, Segmenter

Pixels = NDArray[np.uint8]

_FOUND = 0.5
_HALVES = (torch.bfloat16, torch.float16)
_COORDINATES = ("float32", "rounded")


@dataclass
class Change:
    """Counts of segments, and areas in pixels, added up over pictures."""

    segments: int = 0
    """In float32."""
    identical: int = 0
    """Of these, with the same label and not a pixel of difference."""
    found: int = 0
    """Of these, found again."""
    others: int = 0
    """Segments in half precision."""
    differing: float = 0.0
    """Pixels of exactly one of a float32 segment and its best match; all of a segment without any."""
    covered: float = 0.0
    """Pixels of either."""

    def add(self, expected: Sequence[Segment], got: Sequence[Segment], size: Size) -> None:
        """Count one picture's answers to one task."""
        self.others += len(got)
        for segment in expected:
            rivals = [other for other in got if other.label_id == segment.label_id]
            overlaps = _overlaps(segment, rivals, size)
            best = int(np.argmax(overlaps)) if rivals else -1
            overlap = float(overlaps[best]) if rivals else 0.0
            area = rivals[best].area if overlap else 0
            shared = overlap * (segment.area + area) / (1 + overlap)
            self.segments += 1
            self.identical += any(other.counts == segment.counts for other in rivals)
            self.found += overlap >= _FOUND
            self.covered += segment.area + area - shared
            self.differing += segment.area + area - 2 * shared


def _overlaps(segment: Segment, others: Sequence[Segment], size: Size) -> NDArray[np.float64]:
    """Intersection over union of a segment with each of others."""
    runs = [{"size": list(size), "counts": one.counts} for one in (segment, *others)]
    return np.asarray(coco_mask.iou(runs[1:], runs[:1], [0])).reshape(-1) if others else np.zeros(0)


def compare(segmenter: Segmenter, pictures: Sequence[Pixels], tasks: tuple[str, ...]) -> list[dict[str, Any]]:
    """Answer `pictures` uint8 [H, W, 3] with a float32 `segmenter` and with halves of it; prints a table, returns its figures."""
    inputs = [ModelInput(resize(one, segmenter.description.resize), (one.shape[0], one.shape[1]), tasks) for one in pictures]
    expected = segmenter.segment(inputs)
    print(f"\n{len(pictures)} pictures against float32 on {segmenter.device}")
    print(f"{'':<42}{'segments':>10}{'identical':>11}{'found':>8}{'new':>6}{'area that differs':>20}{'unanswered':>12}")
    rows = []
    for dtype, coordinates in itertools.product(_HALVES, _COORDINATES):
        module = copy.deepcopy(segmenter.module)
        if coordinates == "float32":
            half_precision.cast(module, dtype)
        else:
            half_precision.restore(module)
            module.to(dtype)
        got = Segmenter(module, segmenter.description, segmenter.device, dtype, segmenter.batch_size).segment(inputs)
        for task in tasks:
            row = {
                "dtype": str(dtype).removeprefix("torch."),
                "coordinates": coordinates,
                "task": task,
                **_figures(inputs, expected, got, task),
            }
            name = f"{row['dtype']}, coordinates {coordinates}, {task}"
            print(
                f"{name:<42}{row['segments']:>10}{row['identical']:>11}{row['found']:>8}{row['new']:>6}"
                f"{row['area_that_differs']:>20.3%}{row['unanswered']:>12}",
                flush=True,
            )
            rows.append(row)
    return rows


def _figures(inputs: Sequence[ModelInput], expected: Sequence[Answers], got: Sequence[Answers], task: str) -> dict[str, Any]:
    change = _change(inputs, expected, got, task)
    return {
        "segments": change.segments,
        "identical": change.identical,
        "found": change.found,
        "new": max(0, change.others - change.found),
        "area_that_differs": change.differing / max(1, change.covered),
        "unanswered": sum(isinstance(one[task], ImageFailure) for one in got),
    }


def _change(inputs: Sequence[ModelInput], expected: Sequence[Answers], got: Sequence[Answers], task: str) -> Change:
    change = Change()
    for item, one, other in zip(inputs, expected, got, strict=True):
        answer = other[task]
        change.add(_segments(one[task]), [] if isinstance(answer, ImageFailure) else answer, item.size)
    return change


def _segments(answer: list[Segment] | ImageFailure) -> list[Segment]:
    if isinstance(answer, ImageFailure):
        raise SystemExit(f"benchmark: the model failed on a picture: {answer}")
    return answer
