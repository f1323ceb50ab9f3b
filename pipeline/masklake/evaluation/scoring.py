"""The score of a group of images: a plain function, run in process or as a task of a cluster, whose results are added up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from masklake.errors import MasklakeError
from masklake.evaluation.pairs import Pair
from masklake.quality import MAX_DETECTIONS, instance, panoptic, semantic
from masklake.quality.semantic import SemanticStats
from masklake.schema import Task
from masklake.table.masks import id_map
from masklake.truth.classes import Classes
from masklake.truth.formats import Coding, Drawn, Painted
from masklake.truth.pictures import fetched
from masklake.truth.regions import class_map, classes_of_ids, instances, regions, size_of

Segments = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Scoring:
    """What is judged, and how; `worst` images are kept; `max_detections` as in `quality.instance`."""

    task: Task
    coding: Coding
    classes: Classes
    worst: int
    max_detections: int = MAX_DETECTIONS


class Stats(Protocol):
    """Statistics of `masklake.quality` that can be merged."""

    def __add__(self, other: Any) -> Any: ...


@dataclass(frozen=True)
class Judged:
    """An image's own score, 0..1; `order` and `name` are truth's, `uri` is the table's."""

    score: float
    order: int
    name: str
    uri: str


@dataclass(frozen=True)
class Miss:
    """An image of truth without an answer that can be scored."""

    order: int
    name: str
    reason: str


@dataclass(frozen=True, eq=False)
class Tally:
    """What was found in some images; tallies add up in any order to the same.

    `confusion` counts pixels, and true instances for the instance task; `true` counts the true segments of each class, crowds left out;
    `labels` counts the predicted segments of each label of the table, and `label_ids` has the lowest id that such a segment has.
    """

    images: int
    stats: Stats
    confusion: SemanticStats
    true: Counter[int]
    labels: Counter[str]
    label_ids: Mapping[str, int]
    misses: tuple[Miss, ...]
    worst: tuple[Judged, ...]
    keep: int

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.images + other.images,
            self.stats + other.stats,
            self.confusion + other.confusion,
            self.true + other.true,
            self.labels + other.labels,
            _lowest([*self.label_ids.items(), *other.label_ids.items()]),
            tuple(sorted(self.misses + other.misses, key=lambda miss: miss.order)),
            tuple(sorted(self.worst + other.worst, key=lambda judged: (judged.score, judged.order))[: self.keep]),
            self.keep,
        )


def _lowest(named: Iterable[tuple[str, int]]) -> dict[str, int]:
    """The lowest number that each name has."""
    return dict(sorted(named, reverse=True))


def score_group(scoring: Scoring, pairs: Sequence[Pair]) -> Tally:
    """Score some images.

    Raises:
        Refused: a file of truth is wrong.
        MasklakeError: a row of the table is damaged.
    """
    images = fetched([pair.image for pair in pairs])
    return reduce(add, (score_image(scoring, replace(pair, image=image)) for pair, image in zip(pairs, images, strict=True)))


def score_image(scoring: Scoring, pair: Pair) -> Tally:
    """Score one image. Where it has no answer, or one of another size, everything in it is missed.

    Raises:
        Refused, MasklakeError: as `score_group`.
    """
    judge = {Task.PANOPTIC: _panoptic, Task.SEMANTIC: _semantic, Task.INSTANCE: _instance}[scoring.task]
    truth = scoring.coding.read(pair.image)
    size = size_of(truth)
    then = judge(scoring, truth, pair.image.order)
    row, miss = pair.row, pair.miss
    if row is not None and (row["height"], row["width"]) != size:
        miss = f"its size is {row['width']} x {row['height']} in the table, and {size[1]} x {size[0]} in the ground truth"
    segments: Segments = [] if row is None or miss else row["segments"]
    try:
        stats, confusion, true, score = then(segments)
    except ValueError as error:
        raise MasklakeError(f"{row and row['image_uri']}: its row is damaged, leave it out by --where: {error}") from error
    worst = () if miss or row is None or np.isnan(score) else (Judged(score, pair.image.order, pair.image.name, row["image_uri"]),)
    return Tally(
        1,
        stats,
        confusion,
        true,
        Counter(segment["label"] for segment in segments),
        _lowest([(segment["label"], segment["label_id"]) for segment in segments]),
        (Miss(pair.image.order, pair.image.name, miss),) if miss else (),
        worst if scoring.worst else (),
        scoring.worst,
    )


_Found = tuple[Stats, SemanticStats, Counter[int], float]


class _Then(Protocol):
    """Given the predicted segments, the statistics, the confusion, the true segments by class, and the image's score."""

    def __call__(self, segments: Segments) -> _Found: ...


def _panoptic(scoring: Scoring, found: Painted | Drawn, _order: int) -> _Then:
    truth = regions(found, scoring.classes)
    height, width = truth.ids.shape

    def then(segments: Segments) -> _Found:
        ids, labels = panoptic_ids(scoring, segments, (height, width))
        stats = panoptic.compare(ids, labels, truth.ids, truth.labels, crowd_ids=truth.crowds)
        maps = classes_of_ids(ids, labels), classes_of_ids(truth.ids, truth.labels)
        true = Counter(index for segment_id, index in truth.labels.items() if segment_id not in truth.crowds)
        return stats, semantic.compare(*maps, len(scoring.classes)), true, stats.pooled()

    return then


def _semantic(scoring: Scoring, found: Painted | Drawn, _order: int) -> _Then:
    truth = class_map(found, scoring.classes.of_category)
    height, width = truth.shape

    def then(segments: Segments) -> _Found:
        prediction = predicted_classes(segments, scoring.classes, (height, width))
        stats = semantic.compare(prediction, truth, len(scoring.classes))
        return stats, stats, Counter(), stats.result().miou  # the matrix says what is true

    return then


def _instance(scoring: Scoring, found: Painted | Drawn, order: int) -> _Then:
    truth = instances(found, scoring.classes)
    height, width = size_of(found)

    def then(segments: Segments) -> _Found:
        detections = detections_of(scoring, segments, (height, width))
        stats = instance.compare(detections, truth, order, scoring.max_detections)
        confusion = SemanticStats(instance.confusion(detections, truth, len(scoring.classes)))
        return stats, confusion, Counter(each.class_id for each in truth if not each.crowd), stats.pooled()

    return then


def panoptic_ids(scoring: Scoring, segments: Segments, size: tuple[int, int]) -> tuple[NDArray[np.int32], dict[int, int]]:
    """The id map of a row's segments, int32 [H, W], and the class of each; segments that truth has no class for are void.

    Raises:
        ValueError: segments overlap, or share an id.
    """
    kept = [(segment, index) for segment in segments if (index := scoring.classes.of_label(segment["label"])) is not None]
    ids, present = panoptic.segment_ids([segment for segment, _ in kept], *size)
    return ids, {segment["segment_id"]: index for segment, index in kept if segment["segment_id"] in present}


def detections_of(scoring: Scoring, segments: Segments, size: tuple[int, int]) -> list[instance.Detection]:
    """A row's segments as detections; those that truth has no class for are left out."""
    return [
        instance.Detection(index, {"size": list(size), "counts": segment["counts"]}, float(segment["score"]))
        for segment in segments
        if (index := scoring.classes.of_label(segment["label"])) is not None
    ]


def predicted_classes(segments: Segments, classes: Classes, size: tuple[int, int]) -> NDArray[np.int32]:
    """The class of every pixel of a row, int32 [H, W]; `NONE` where it has no segment, or one that truth has no class for."""
    labels = {segment["segment_id"]: classes.of_label(segment["label"]) for segment in segments}
    return classes_of_ids(id_map(segments, *size), {segment_id: index for segment_id, index in labels.items() if index is not None})
