"""PQ against the official evaluation's algorithm, with void, crowds and predictions that match nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from masklake.quality.panoptic import PanopticStats, compare
from tests.unit.quality.literal import Annotation, pq_average, pq_compute

CLASSES, THINGS = 6, {0, 1, 2}


@pytest.mark.parametrize("seed", range(20))
def test_the_figures_are_those_of_panopticapi(seed: int) -> None:
    images = [_image(np.random.default_rng([seed, number])) for number in range(8)]
    expected = pq_compute(images)
    got = sum((compare(*_ours(truth, prediction)) for truth, prediction in images), PanopticStats())
    assert {k: (s.tp, s.fp, s.fn) for k, s in got.per_class.items()} == {k: (s.tp, s.fp, s.fn) for k, s in expected.items()}
    result = got.result(THINGS)
    assert (result.pq, result.sq, result.rq) == pytest.approx(pq_average(expected, THINGS)[:3], abs=1e-12)
    for part, isthing in ((result.things, True), (result.stuff, False)):
        assert (part.pq, part.sq, part.rq, part.classes) == pytest.approx(pq_average(expected, THINGS, isthing), abs=1e-12)


def test_the_images_hold_every_kind_of_case() -> None:
    images = [_image(np.random.default_rng([seed, number])) for seed in range(20) for number in range(8)]
    assert sum(info["iscrowd"] for (_, infos), _ in images for info in infos) > 100
    without = [((ids, [{**info, "iscrowd": 0} for info in infos]), prediction) for (ids, infos), prediction in images]
    assert pq_compute(images) != pq_compute(without)
    totals = pq_compute(images).values()
    assert min(min(stat.tp, stat.fp, stat.fn) for stat in totals) > 20


def test_figures_are_the_same_to_the_last_bit_whatever_the_partitioning() -> None:
    stats = [compare(*_ours(*_image(np.random.default_rng([9, number])))) for number in range(60)]
    whole = sum(stats, PanopticStats()).result(THINGS)
    for size in (1, 7, 30):
        groups = [sum(stats[first : first + size], PanopticStats()) for first in range(0, 60, size)]
        assert sum(reversed(groups), PanopticStats()).result(THINGS) == whole


def _image(random: np.random.Generator) -> tuple[Annotation, Annotation]:
    """A blocky truth with void and at most one crowd a category, as COCO has; it moved and relabelled here and there."""
    ids = np.kron(random.integers(0, 14, (6, 7)), np.ones((5, 4), int)) * 70_001
    moved = np.roll(ids, random.integers(0, 3, 2), axis=(0, 1)) + 5
    moved[random.random(moved.shape) < 0.08] = 0
    infos, crowded = [], set()
    for segment_id in np.unique(ids[ids > 0]).tolist():
        category_id = int(random.integers(CLASSES))
        crowd = category_id in THINGS and category_id not in crowded and random.random() < 0.3
        crowded |= {category_id} if crowd else set()
        infos.append({"id": segment_id, "category_id": category_id, "area": int((ids == segment_id).sum()), "iscrowd": int(crowd)})
    same = {info["id"] + 5: info["category_id"] for info in infos}
    predicted = [
        {
            "id": segment_id,
            "category_id": same[segment_id] if segment_id in same and random.random() < 0.8 else int(random.integers(CLASSES)),
        }
        for segment_id in np.unique(moved[moved > 0]).tolist()
    ]
    return (ids, infos), (moved, predicted)


def _ours(truth: Annotation, prediction: Annotation) -> tuple[NDArray[Any], dict[int, int], NDArray[Any], dict[int, int], int, set[int]]:
    (ids, infos), (predicted, offered) = truth, prediction
    labels = {info["id"]: info["category_id"] for info in infos}
    return predicted, {o["id"]: o["category_id"] for o in offered}, ids, labels, 0, {i["id"] for i in infos if i["iscrowd"]}
