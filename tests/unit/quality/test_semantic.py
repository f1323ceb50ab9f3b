"""mIoU and its relatives against confusion matrices worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from masklake.quality.semantic import NONE, SemanticStats, compare

SKY, ROAD, CAR = range(3)


def test_a_matrix_worked_by_hand() -> None:
    truth = np.array([[SKY, SKY, SKY, SKY], [ROAD, ROAD, ROAD, NONE], [CAR, CAR, NONE, NONE]])
    prediction = np.array([[SKY, SKY, SKY, ROAD], [ROAD, ROAD, CAR, CAR], [CAR, NONE, SKY, NONE]])
    stats = compare(prediction, truth, 3)
    assert stats.confusion.tolist() == [[3, 1, 0, 0], [0, 2, 1, 0], [0, 0, 1, 1]]
    result = stats.result()
    # Sky: 3 right of 4 true and 3 predicted; road: 2 of 3 and 3; car: 1 of 2 and 2. Unknown truth does not count.
    assert result.iou == pytest.approx((3 / 4, 2 / 4, 1 / 3))
    assert result.miou == pytest.approx((3 / 4 + 2 / 4 + 1 / 3) / 3)
    assert result.frequency_weighted_iou == pytest.approx((4 * 3 / 4 + 3 * 2 / 4 + 2 * 1 / 3) / 9)
    assert result.pixel_accuracy == pytest.approx(6 / 9)
    assert result.accuracy == pytest.approx((3 / 4, 2 / 3, 1 / 2))
    assert result.mean_accuracy == pytest.approx((3 / 4 + 2 / 3 + 1 / 2) / 3)


def test_a_class_that_never_occurred_does_not_count_and_one_that_was_invented_does() -> None:
    result = compare(np.array([[SKY, SKY, CAR, CAR]]), np.array([[SKY, SKY, SKY, SKY]]), 3).result()
    assert result.iou[SKY] == 0.5
    assert math.isnan(result.iou[ROAD])
    assert result.iou[CAR] == 0.0
    assert result.miou == 0.25
    assert math.isnan(compare(np.array([[SKY]]), np.array([[NONE]]), 3).result().miou)


def test_parts_add_up_in_any_order() -> None:
    random = np.random.default_rng(1)
    images = [(random.integers(-1, 3, (9, 8)), random.integers(-1, 3, (9, 8))) for _ in range(10)]
    stats = [compare(prediction, truth, 3) for prediction, truth in images]
    whole = compare(np.concatenate([p for p, _ in images]), np.concatenate([t for _, t in images]), 3)
    for order in (stats, stats[::-1]):
        total = sum(order[1:], order[0])
        assert isinstance(total, SemanticStats)
        np.testing.assert_array_equal(total.confusion, whole.confusion)
        assert total.result() == whole.result()


def test_maps_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="of one size"):
        compare(np.zeros((2, 3), int), np.zeros((3, 2), int), 3)
    with pytest.raises(ValueError, match="prediction: holds classes 0 to 3, and there are 3"):
        compare(np.array([[0, 3]]), np.array([[0, 1]]), 3)
