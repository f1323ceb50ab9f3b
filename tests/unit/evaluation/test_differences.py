"""Where an answer and truth differ, worked out by hand."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from masklake.evaluation import differences
from masklake.evaluation.differences import MISSED, WRONG, Difference, difference, painting_of
from masklake.evaluation.pictures import class_ids
from masklake.evaluation.scoring import Scoring
from masklake.schema import Task
from masklake.truth.classes import judged_classes
from masklake.truth.formats import Category, Coding, Drawing, Drawn, Painted, Region
from tests.evaluations import named

NAMES = ("sky", "road", "car", "background")
SKY, ROAD, CAR, BACKGROUND = range(4)
CLASSES = judged_classes([Category(number, name, name == "car") for number, name in enumerate(NAMES)], {})


def scoring(task: Task) -> Scoring:
    return Scoring(task, cast(Coding, None), CLASSES, 0)


def said(found: Difference) -> list[list[str]]:
    """Of every pixel, what is said of it; `.` where nothing is."""
    words = [".", *(("wrong: " if region.wrong else "missed: ") + region.text for region in found.regions)]
    return [[words[number] for number in row] for row in found.ids.tolist()]


def segments(*given: tuple[NDArray[np.bool_], str, float]) -> list[dict[str, Any]]:
    return [asdict(named(number, mask, label, label == "car", score)) for number, (mask, label, score) in enumerate(given, 1)]


def of_map(rows: list[list[int | None]]) -> list[dict[str, Any]]:
    """An answer that says these classes, and nothing for None."""
    present = sorted({each for row in rows for each in row if each is not None})
    return segments(*((np.array([[pixel == each for pixel in row] for row in rows]), NAMES[each], 0.9) for each in present))


def test_of_a_semantic_answer_pixels_of_another_class_are_wrong_and_those_of_none_missed() -> None:
    truth = Painted(np.array([[1, 1, 1, 1], [2, 2, 0, 3]], np.int32), (Region(SKY), Region(ROAD), Region(BACKGROUND)))
    answer = of_map([[SKY, ROAD, None, BACKGROUND], [ROAD, ROAD, CAR, CAR]])
    found = difference(scoring(Task.SEMANTIC), truth, answer)
    assert said(found) == [[".", "wrong: sky taken for road", "missed: sky missed", "missed: sky missed"], [".", ".", ".", "wrong: no car"]]
    assert (found.share(wrong=True), found.share(wrong=False)) == (2 / 8, 2 / 8)


def test_of_a_panoptic_answer_it_matters_which_segments_match() -> None:
    # Two cars of three and two pixels that are taken for one of five: it matches the first (IoU 3/5). The crowd, last, is not judged.
    truth = Painted(
        np.array([[1, 1, 1, 2, 2, 0], [3, 3, 3, 3, 4, 4]], np.int32), (Region(CAR), Region(CAR), Region(ROAD), Region(CAR, True))
    )
    answer = of_map([[CAR, CAR, CAR, CAR, CAR, SKY], [ROAD, ROAD, None, SKY, SKY, ROAD]])
    found = difference(scoring(Task.PANOPTIC), truth, answer)
    # Of the road, with 2 of 4 pixels, half is not enough for a match.
    assert said(found) == [
        [".", ".", ".", "wrong: car not matched", "wrong: car not matched", "."],
        ["wrong: road not matched", "wrong: road not matched", "missed: road missed", "wrong: road taken for sky", ".", "."],
    ]


def drawn(class_id: int, row: list[int], crowd: bool = False) -> Drawing:
    mask = coco_mask.encode(np.asfortranarray(np.array([row], np.uint8)))
    return Drawing(class_id, mask, float(sum(row)), crowd)


def one(row: list[int], label: str, score: float) -> tuple[NDArray[np.bool_], str, float]:
    return np.array([row], bool), label, score


def test_of_instances_that_found_each_other_the_pixels_count_and_of_others_all() -> None:
    truth = Drawn(
        (1, 14),
        (
            drawn(CAR, [1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            drawn(CAR, [0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0]),
            drawn(ROAD, [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0]),
            drawn(CAR, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1], crowd=True),
        ),
    )
    answer = segments(
        one([0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "car", 0.9),  # 2 of 4: found
        one([0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0], "sky", 0.8),
        one([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0], "car", 0.7),  # half of it on the crowd
        one([0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0], "car", 0.4),  # not confident: not looked at
    )
    found = difference(scoring(Task.INSTANCE), truth, answer)
    taken = "wrong: road taken for sky"
    assert said(found) == [
        [
            "missed: ",
            ".",
            ".",
            "wrong: ",
            ".",
            "missed: car missed",
            "missed: car missed",
            ".",
            taken,
            taken,
            ".",
            "wrong: no car",
            ".",
            ".",
        ]
    ]


@pytest.mark.parametrize("task", [Task.SEMANTIC, Task.PANOPTIC])
def test_truth_does_not_differ_from_itself(task: Task) -> None:
    truth = Painted(np.array([[1, 1], [2, 0]], np.int32), (Region(SKY), Region(CAR)))
    found = difference(scoring(task), truth, of_map([[SKY, SKY], [CAR, None]]))
    assert not found.ids.any()
    assert not painting_of(found, (2, 2)).layer.any()


def test_it_is_painted_in_two_colours_and_what_is_thin_is_not_named() -> None:
    ids = np.zeros((300, 400), np.int32)
    ids[:100], ids[200:, :3], ids[200:, 200:] = 1, 2, 3
    regions = [("sky missed", False), ("road taken for sky", True), ("no car", True)]
    painted = painting_of(Difference(ids, tuple(differences.Region(wrong, text) for text, wrong in regions)), (150, 200))
    assert tuple(painted.layer[25, 100, :3]) == MISSED
    assert tuple(painted.layer[125, 150, :3]) == WRONG
    assert (painted.layer[75, 100] == 0).all()
    assert {(name.text, name.colour) for name in painted.names} == {("sky missed", MISSED), ("no car", WRONG)}


def test_a_class_has_the_id_of_the_table_and_so_the_colour_of_the_gallery() -> None:
    # The table writes Sky; two models have the id 7; nothing has the label road.
    assert class_ids(CLASSES, {"Sky": 3, "car": 7, "background": 7, "boat": 9}) == [3, 11, 12, 7]
    assert class_ids(CLASSES, {}) == [0, 1, 2, 3]
