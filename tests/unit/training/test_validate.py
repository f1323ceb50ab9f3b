"""The scores of a validation, by numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from masklake.inference.segments import Segment
from masklake.training.curves import svg
from masklake.training.examples import Sample
from masklake.training.validate import Scores, better, compare_objects, compare_pixels

TRUTH = np.array([[0, 0, 1, 1], [0, 0, 1, 9]])
ANSWER = np.array([[0, 1, 1, 1], [0, 0, 9, 1]])


def of(ids: np.ndarray, label: int) -> Segment:
    mask = ids == label
    counts = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    return Segment(label + 1, label, str(label), False, 1.0, int(mask.sum()), (0, 0, 1, 1), counts)


def sample() -> Sample:
    masks = np.stack([TRUTH == 0, TRUTH == 1])
    return Sample(np.zeros((2, 4, 3), np.uint8), masks, np.array([0, 1]), np.zeros(2, bool))


def test_the_confusion_counts_pixels_with_truth_and_those_without_an_answer() -> None:
    counts = compare_pixels([of(ANSWER, 0), of(ANSWER, 1)], sample(), 2)
    assert counts.confusion.tolist() == [[3, 1, 0], [0, 2, 1]]
    assert counts.result().miou == pytest.approx((3 / 4 + 2 / 4) / 2)


def test_statistics_of_images_add_up() -> None:
    counts = compare_pixels([of(ANSWER, 0), of(ANSWER, 1)], sample(), 2)
    total = sum([Scores(pixels=counts), Scores(), Scores(pixels=counts)], Scores())
    assert total.result(frozenset()) == {"miou": pytest.approx(0.625)}


def test_an_instance_answer_is_judged_by_its_things_and_scores() -> None:
    """Label 1 is a thing and found at an IoU of 2/4, which is enough at the first of COCO's ten thresholds alone; label 0 is no thing.
    Another answer of a higher score, where nothing is, halves the precision at that threshold.
    """
    near = of(np.array([[9, 9, 1, 1], [9, 9, 9, 1]]), 1)
    one = compare_objects([near], sample(), frozenset({1}), 0)
    assert Scores(objects=one).result(frozenset({1})) == {"ap": pytest.approx(0.1)}
    wrong = of(np.array([[1, 9, 9, 9], [9, 9, 9, 9]]), 1)
    two = compare_objects([wrong, replace(near, score=0.5)], sample(), frozenset({1}), 1)
    assert Scores(objects=two).result(frozenset({1})) == {"ap": pytest.approx(0.05)}
    # Of both images together, by falling score: right, wrong, right. Up to half of the recall the precision is 1, beyond it 2/3.
    together = (Scores(objects=one) + Scores(objects=two)).result(frozenset({1}))["ap"]
    assert together == pytest.approx((51 + 50 * 2 / 3) / 101 / 10)


def test_the_best_is_the_highest_score_that_is_a_number() -> None:
    assert better({"pq": 0.1}, None, "pq")
    assert better({"pq": 0.2, "miou": 0}, {"pq": 0.1, "miou": 1}, "pq")
    assert not better({"pq": 0.1}, {"pq": 0.1}, "pq")
    assert not better({"pq": float("nan")}, None, "pq")


def test_curves_are_drawn_of_losses_and_scores() -> None:
    picture = svg([{"step": 1, "loss": 4.0}, {"step": 2, "loss": 2.0}, {"step": 2, "validation": {"pq": 0.25}}])
    assert picture.count("<polyline") == 2
    assert ">pq 0.250</text>" in picture
    assert 'points="420.0,30.0 780.0,150.0"' in picture  # half of the way, and the highest loss; the end, and half of it
