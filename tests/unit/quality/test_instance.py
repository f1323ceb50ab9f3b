"""AP against pycocotools run over everything at once."""

from __future__ import annotations

import io
import math
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from masklake.quality.instance import Detection, InstanceStats, TrueInstance, compare, confusion

SIZE = (160, 170)
Image = tuple[list[Detection], list[TrueInstance]]


def test_the_figures_are_those_of_cocoeval() -> None:
    images = _images(60)
    stats = [compare(prediction, truth, number) for number, (prediction, truth) in enumerate(images)]
    expected = _cocoeval(images)
    result = sum(stats, InstanceStats()).result()
    got = [result.ap, result.ap50, result.ap75, result.ap_small, result.ap_medium, result.ap_large]
    assert got == expected.stats[:6].tolist()
    assert result.ar == expected.stats[8]
    assert min(got) > 0.05
    assert max(got) < 0.95
    for index, class_id in enumerate(expected.params.catIds):
        precision = expected.eval["precision"][:, :, index, 0, -1]
        assert result.per_class[class_id] == precision[precision > -1].mean()


def test_the_figures_are_the_same_whatever_the_partitioning() -> None:
    stats = [compare(prediction, truth, number) for number, (prediction, truth) in enumerate(_images(40))]
    whole = sum(stats, InstanceStats()).result()
    for size in (1, 7, 20):
        groups = [sum(stats[first : first + size], InstanceStats()) for first in range(0, 40, size)]
        assert sum(reversed(groups), InstanceStats()).result() == whole


def test_worked_by_hand() -> None:
    # Two squares, one found well, one missed, and an invented detection that scores less: precision 1 up to recall 0.5, then 0.
    found, missed, invented = _square(10, 10, 20), _square(60, 60, 20), _square(100, 100, 20)
    truth = [TrueInstance(0, found, 400), TrueInstance(0, missed, 400)]
    stats = compare([Detection(0, found, 0.9), Detection(0, invented, 0.5)], truth, 0)
    result = stats.result()
    assert result.ap == pytest.approx(51 / 101)  # recalls 0, 0.01, ..., 0.5
    assert result.ap_small == result.ap
    assert math.isnan(result.ap_large)
    assert stats.pooled() == pytest.approx(2 / 3)  # the first alone: 2 x 1 / (1 + 2)
    assert confusion([Detection(1, found, 0.9), Detection(0, invented, 0.9), Detection(0, missed, 0.4)], truth, 2).tolist() == [
        [0, 1, 1],
        [0, 0, 0],
    ]


@pytest.mark.slow
def test_more_objects_than_detections_count() -> None:
    """150 objects, all found: with pycocotools' bound of 100 the recall ends at 0.667, and AP is 1 at 67 of 101 recalls."""
    squares = [_square(12 * (number // 13), 12 * (number % 13), 9) for number in range(150)]
    truth = [TrueInstance(0, each, 81) for each in squares]
    found = [Detection(0, each, 1 - number / 1000) for number, each in enumerate(squares)]
    bounded = compare(found, truth, 0)
    assert bounded.cut == 1
    assert bounded.result().ap == pytest.approx(67 / 101)
    assert bounded.result().ap == pytest.approx(0.663, abs=5e-4)
    assert bounded.result().ap == pytest.approx(_cocoeval([(found, truth)]).stats[0])
    whole = compare(found, truth, 0, max_detections=150)
    assert whole.cut == 0
    assert [whole.result().ap, whole.result().ar] == pytest.approx([1, 1])
    assert (compare(found, truth, 0) + compare(found[:100], truth, 1)).cut == 1


def test_what_lies_on_a_crowd_is_no_false_positive() -> None:
    crowd = TrueInstance(0, _square(0, 0, 90), 8100, crowd=True)
    one = _square(100, 100, 30)
    stats = compare([Detection(0, _square(5, 5, 20), 0.9), Detection(0, one, 0.8)], [crowd, TrueInstance(0, one, 900)], 0)
    assert stats.result().ap == pytest.approx(1)
    assert stats.pooled() == 1
    assert math.isnan(compare([Detection(0, _square(5, 5, 20), 0.9)], [crowd], 0).pooled())


def test_nothing_gives_no_figures() -> None:
    assert math.isnan(InstanceStats().result().ap)
    assert compare([], [], 0).matches == ()
    assert compare([], [TrueInstance(0, _square(1, 1, 9), 81)], 0).pooled() == 0


def _square(top: int, left: int, side: int) -> dict[str, Any]:
    mask = np.zeros(SIZE, np.uint8)
    mask[top : top + side, left : left + side] = 1
    return _encode(mask)


def _encode(mask: NDArray[np.uint8]) -> dict[str, Any]:
    encoded: dict[str, Any] = coco_mask.encode(np.asfortranarray(mask))
    return encoded


def _images(count: int) -> list[Image]:
    """Squares of all of COCO's sizes, some of them crowds; detections moved, doubled, relabelled, with scores that are often equal."""
    random = np.random.default_rng(3)
    images: list[Image] = []
    for _ in range(count):
        truth: list[TrueInstance] = []
        detections: list[Detection] = []
        for _ in range(int(random.integers(0, 7))):
            side, class_id = int(random.choice([12, 25, 50, 110])), int(random.integers(3))
            top, left = int(random.integers(0, SIZE[0] - side)), int(random.integers(0, SIZE[1] - side))
            truth.append(
                TrueInstance(class_id, _square(top, left, side), side * side * float(random.uniform(0.9, 1)), random.random() < 0.1)
            )
            for _ in range(int(random.integers(0, 3))):
                down, right = random.integers(0, max(2, side // 4), 2).tolist()
                mask = _square(top + down, left + right, side)
                label = class_id if random.random() < 0.8 else int(random.integers(3))
                detections.append(Detection(label, mask, round(float(random.random()), 1)))
        images.append((detections, truth))
    return images


def _cocoeval(images: list[Image]) -> COCOeval:
    truth = COCO()
    truth.dataset = {
        "images": [{"id": number, "height": SIZE[0], "width": SIZE[1]} for number in range(len(images))],
        "categories": [{"id": class_id} for class_id in range(3)],
        "annotations": [],
    }
    results = []
    for number, (detections, true) in enumerate(images):
        for each in true:
            truth.dataset["annotations"].append(
                {
                    "id": len(truth.dataset["annotations"]) + 1,
                    "image_id": number,
                    "category_id": each.class_id,
                    "segmentation": each.mask,
                    "area": each.area,
                    "iscrowd": int(each.crowd),
                }
            )
        results += [
            {"image_id": number, "category_id": each.class_id, "segmentation": each.mask, "score": each.score} for each in detections
        ]
    with redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation
