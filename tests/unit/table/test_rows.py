from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from masklake.errors import ErrorCode, ImageFailure
from masklake.schema import table_schema
from masklake.table.rows import MAX_MESSAGE, Answer, bounded_text, build_rows
from tests.answers import images, rectangle, segment, stamp

LEFT, RIGHT = rectangle(4, 6, slice(0, 4), slice(0, 2)), rectangle(4, 6, slice(1, 3), slice(3, 6))


def test_one_row_per_image_and_task_in_the_order_of_images_and_tasks() -> None:
    answers: list[Mapping[str, Answer]] = [{"panoptic": [segment(1, LEFT)], "semantic": []}, {"semantic": [], "panoptic": []}]
    rows = build_rows(images(["a", "b"], ["panoptic", "semantic"]), answers, stamp(), ["task"])
    assert rows.schema == table_schema(["task"])
    rows.validate(full=True)
    assert list(zip(rows["image_uri"].to_pylist(), rows["task"].to_pylist(), rows["fingerprint"].to_pylist(), strict=True)) == [
        ("a", "panoptic", "f-panoptic"),
        ("a", "semantic", "f-semantic"),
        ("b", "panoptic", "f-panoptic"),
        ("b", "semantic", "f-semantic"),
    ]
    assert rows["run_id"].unique().to_pylist() == ["run-1"]


def test_segments_are_what_the_model_answered_and_decode_to_its_masks() -> None:
    answers: list[Mapping[str, Answer]] = [{"panoptic": []}, {"panoptic": [segment(1, RIGHT, 7), segment(2, LEFT, 2, isthing=False)]}]
    empty, full = build_rows(images(["a", "b"]), answers, stamp(), ["task"]).to_pylist()
    assert (empty["status"], empty["segments"]) == ("ok", [])
    first, second = full["segments"]
    counts = first.pop("counts")
    expected = {"segment_id": 1, "label_id": 7, "label": "label 7", "isthing": True, "score": 0.5, "area": 6, "bbox": [3, 1, 3, 2]}
    assert first == {**expected, "class_score": None}
    assert np.array_equal(coco_mask.decode({"size": [full["height"], full["width"]], "counts": counts}), RIGHT)
    assert (second["isthing"], second["area"], second["bbox"]) == (False, 8, [0, 0, 2, 4])


def test_a_failure_is_an_error_row_without_segments_for_that_task_alone() -> None:
    answers: list[Mapping[str, Answer]] = [{"panoptic": ImageFailure(ErrorCode.NOT_FINITE, "NaN"), "semantic": [segment(1, LEFT)]}]
    failed, ok = build_rows(images(["a"], ["panoptic", "semantic"]), answers, stamp(), ["task"]).to_pylist()
    assert (failed["status"], failed["error_code"], failed["error_message"], failed["segments"]) == ("error", "not_finite", "NaN", None)
    assert (ok["status"], ok["error_code"], ok["error_message"], len(ok["segments"])) == ("ok", None, None, 1)


def test_an_image_that_failed_before_the_model_is_an_error_row_for_each_of_its_tasks() -> None:
    broken = images(["a", "b"], ["panoptic", "semantic"], error_code=[None, "truncated"], error_message=[None, "half a file"])
    rows = build_rows(broken, [{"panoptic": [], "semantic": []}, {}], stamp(), ["task"])
    assert rows["status"].to_pylist() == ["ok", "ok", "error", "error"]
    assert rows["error_code"].to_pylist() == [None, None, "truncated", "truncated"]


def test_hive_keys_become_columns_and_an_absent_one_is_null() -> None:
    rows = build_rows(images(["a", "b"], dt=["2026-11-22", None]), [{"panoptic": []}] * 2, stamp(), ["task", "dt", "camera"])
    assert rows.schema == table_schema(["task", "dt", "camera"])
    assert rows["dt"].to_pylist() == ["2026-11-22", None]
    assert rows["camera"].to_pylist() == [None, None]


def test_no_images_are_no_rows() -> None:
    rows = build_rows(images(["a"]).slice(0, 0), [], stamp(), ["task"])
    assert (rows.num_rows, rows.schema) == (0, table_schema(["task"]))


def test_a_missing_answer_is_refused_not_written_as_empty() -> None:
    with pytest.raises(ValueError, match="no answer to semantic for a"):
        build_rows(images(["a"], ["panoptic", "semantic"]), [{"panoptic": []}], stamp(), ["task"])
    with pytest.raises(ValueError, match="2 images, but 1 answers"):
        build_rows(images(["a", "b"]), [{"panoptic": []}], stamp(), ["task"])


def test_error_text_is_bounded_and_valid() -> None:
    assert bounded_text("x" * 600) == "x" * (MAX_MESSAGE - 3) + "..."
    assert bounded_text("x" * MAX_MESSAGE) == "x" * MAX_MESSAGE
    assert bounded_text("caf\udce9.jpg") == "caf?.jpg"
