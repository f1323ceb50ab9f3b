"""Scores of the model as it is now, on held-out images: through the code that segments a lake, and through the code that evaluates a table.

The statistics of images are added up, so that workers can share the images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masklake.errors import MasklakeError
from masklake.evaluation.pairs import Pair
from masklake.evaluation.scoring import Scoring, Stats, score_image
from masklake.inference import preprocess
from masklake.inference.segmenter import ModelInput, Segmenter
from masklake.quality.instance import InstanceStats
from masklake.quality.panoptic import PanopticStats
from masklake.quality.semantic import SemanticStats
from masklake.training.examples import MEND, BadExample
from masklake.truth.formats import BadTruth, TruthImage

SCORES = ("pq", "miou", "ap")
"""Of panoptic, semantic and instance work, in the order in which they decide."""

_TOGETHER = 8  # images of a forward pass


@dataclass(frozen=True, eq=False)
class HeldOut:
    """An image that is judged by: its pixels, uint8 [H, W, 3], and what is true of it; `order` is its place among all of them."""

    order: int
    uri: str
    pixels: NDArray[np.uint8]
    truth: TruthImage


@dataclass(frozen=True)
class Scores:
    """Statistics of images by task; `+` merges them."""

    by_task: Mapping[str, Stats] = field(default_factory=dict)

    def __add__(self, other: Scores) -> Scores:
        merged = dict(self.by_task)
        for task, stats in other.by_task.items():
            merged[task] = merged[task] + stats if task in merged else stats
        return Scores(merged)

    def result(self) -> dict[str, float]:
        """`pq`, `miou` and `ap`, as far as the model does panoptic, semantic and instance work."""
        return dict(_score(stats) for stats in self.by_task.values())


def _score(stats: Stats) -> tuple[str, float]:
    if isinstance(stats, PanopticStats):
        return "pq", stats.result(()).pq
    if isinstance(stats, SemanticStats):
        return "miou", stats.result().miou
    assert isinstance(stats, InstanceStats)
    return "ap", stats.result().ap


def judge(
    segmenter: Segmenter, scorings: Mapping[str, Scoring], images: Iterable[HeldOut], skip_bad: bool, stop: Callable[[], bool]
) -> Scores | None:
    """Segment the images for each task, and score the answers as `masklake evaluate` does; None: `stop`, asked before each forward pass,
    said that nobody waits for it.

    Raises:
        BadExample: the truth of one cannot be read or does not fit its image, and `skip_bad` is false.
        MasklakeError: the model failed on one.
    """
    tasks, total = tuple(scorings), Scores()
    for group in _groups(images):
        if stop():
            return None
        resize = segmenter.description.resize
        inputs = [ModelInput(preprocess.resize(each.pixels, resize), _size(each), tasks) for each in group]
        for image, answers in zip(group, segmenter.segment(inputs), strict=True):
            for task, segments in answers.items():
                if not isinstance(segments, list):
                    raise MasklakeError(f"validation: the model failed on {image.uri}: {segments.message}")
                try:
                    total += Scores({task: score(scorings[task], image, [asdict(each) for each in segments])})
                except (BadExample, BadTruth) as error:
                    if not skip_bad:
                        raise BadExample(f"{error}; {MEND}") from None
    return total


def score(scoring: Scoring, image: HeldOut, segments: Sequence[Mapping[str, Any]]) -> Stats:
    """The statistics of one image's answer, given as the segments of a table's row.

    Raises:
        BadExample, BadTruth: its truth cannot be read, or is of another size.
    """
    height, width = _size(image)
    row = {"image_uri": image.uri, "height": height, "width": width, "segments": segments}
    tally = score_image(scoring, Pair(replace(image.truth.in_image((height, width)), order=image.order), row))
    for miss in tally.misses:
        raise BadExample(f"{image.uri}: {miss.reason}")
    return tally.stats


def _groups(images: Iterable[HeldOut]) -> Iterator[list[HeldOut]]:
    group: list[HeldOut] = []
    for image in images:
        group.append(image)
        if len(group) == _TOGETHER:
            yield group
            group = []
    if group:
        yield group


def _size(image: HeldOut) -> tuple[int, int]:
    height, width = image.pixels.shape[:2]
    return height, width


def better(scores: Mapping[str, Any], than: Mapping[str, Any] | None, by: str) -> bool:
    """Whether these scores, of a later step, are better than the best so far: by `by`, where that is equal by the others in the order of
    `SCORES`, and where all are equal because they are later. A score that is not a number is worse than any.
    """
    if not math.isfinite(scores.get(by, math.nan)):
        return False
    return than is None or _rank(scores, by) >= _rank(than, by)


def _rank(scores: Mapping[str, Any], by: str) -> tuple[float, ...]:
    values = (scores.get(name, math.nan) for name in (by, *(name for name in SCORES if name != by)))
    return tuple(value if math.isfinite(value) else -math.inf for value in values)
