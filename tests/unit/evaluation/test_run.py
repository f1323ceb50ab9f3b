"""What is scored, what counts as missed, what is listed, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from masklake import cluster
from masklake.errors import ErrorCode, ImageFailure, MasklakeError, Refused
from masklake.evaluation import run
from tests.answers import Segment, rectangle
from tests.evaluations import LAKE, commit, evaluate, label_maps, named, segments_of
from tests.exports import build, export

SKY, ROAD, CAR, VOID = 0, 1, 2, 255
NAMES = ("sky", "road", "car")
TRUTH = np.array([[SKY, SKY, SKY, SKY], [ROAD, ROAD, CAR, VOID]])
SIZE = (2, 4)


def semantic(values: NDArray[Any] | list[list[int]], names: tuple[str, ...] = NAMES) -> list[Segment]:
    """A semantic answer whose pixels have these labels."""
    ids = np.asarray(values)
    return segments_of(ids, {each: (names[each], False) for each in np.unique(ids).tolist() if each != VOID})


@pytest.fixture
def truth(tmp_path: Path) -> str:
    return label_maps(tmp_path / "truth", {"a.png": TRUTH, "b.png": TRUTH}, NAMES)


def test_a_semantic_table_worked_by_hand(tmp_path: Path, truth: str) -> None:
    wrong = [[SKY, SKY, ROAD, ROAD], [ROAD, ROAD, CAR, CAR]]
    table = commit(tmp_path / "t", "semantic", {LAKE + "a.jpg": (semantic(TRUTH), SIZE), LAKE + "b.jpg": (semantic(wrong), SIZE)})
    found = evaluate(table, truth)
    # Sky: 6 of 8 pixels; road: 4 right, 2 of sky taken for it; car: both, and the one on unknown ground does not count.
    assert [each["iou"] for each in found["classes"]] == pytest.approx([6 / 8, 4 / 6, 1])
    assert found["scores"]["miou"] == pytest.approx((6 / 8 + 4 / 6 + 1) / 3)
    assert found["scores"]["pixel_accuracy"] == pytest.approx(12 / 14)
    assert found["confusion"] == {"unit": "pixels", "matrix": [[6, 2, 0, 0], [0, 4, 0, 0], [0, 0, 2, 0]]}
    assert [each["image"] for each in found["worst"]] == ["b", "a"]
    assert found["unmatched"] == {"truth": [], "table": [], "not_judged": []}


def test_a_value_of_255_that_the_labels_name_is_a_class(tmp_path: Path) -> None:
    """400 of 1,200 pixels are lesion, and the model says background everywhere: (800 / 1,200 + 0) / 2."""
    lesion = np.zeros((30, 40), int)
    lesion[:10] = 255
    truth = label_maps(tmp_path / "truth", {"a.png": lesion}, [])
    (tmp_path / "truth" / "labels.json").write_text('{"0": "background", "255": "lesion"}')
    answer = [named(1, np.ones((30, 40), bool), "background", False)]
    found = evaluate(commit(tmp_path / "t", "semantic", {LAKE + "a.jpg": (answer, (30, 40))}), truth)
    assert found["scores"]["miou"] == pytest.approx(1 / 3)
    assert found["confusion"]["matrix"] == [[800, 0, 0], [400, 0, 0]]


@pytest.mark.slow
def test_a_bound_on_detections_that_cuts_is_said(tmp_path: Path) -> None:
    squares = [rectangle(30, 41, slice(top, top + 3), slice(left, left + 3)) for top in range(0, 30, 4) for left in range(0, 40, 4)]
    dogs = [named(number, each, "dog", score=1 - number / 100) for number, each in enumerate(squares, 1)]
    table = commit(tmp_path / "t", "instance", {LAKE + "a.jpg": (dogs, (30, 41))})
    export(table, tmp_path / "out", "coco-instances")
    said: list[str] = []
    found = evaluate(table, tmp_path / "out", said, max_detections=40)
    assert found["scores"]["ap"] == pytest.approx(51 / 101)  # 40 of 80 are found
    assert any("1 image has more than 40 detections of a class" in line for line in said)
    assert evaluate(table, tmp_path / "out")["scores"]["ap"] == pytest.approx(1)


def test_what_has_no_answer_is_missed_and_named(tmp_path: Path) -> None:
    truth = label_maps(tmp_path / "truth", {f"{name}.png": TRUTH for name in "abcd"}, NAMES)
    failure = ImageFailure(ErrorCode.TRUNCATED, "it ends early")
    turned = [named(1, np.ones((4, 2), bool), "sky", False)]
    given = {"a": (semantic(TRUTH), SIZE), "b": (failure, SIZE), "c": (turned, (4, 2)), "elsewhere": (semantic(TRUTH), SIZE)}
    table = commit(tmp_path / "t", "semantic", {f"{LAKE}{name}.jpg": each for name, each in given.items()})  # type: ignore[misc]
    said: list[str] = []
    found = evaluate(table, truth, said)
    assert found["images"] == {"truth": 4, "scored": 1, "missed": 3, "table_only": 1, "matched_by_file_name_alone": 0}
    assert found["missed"] == [
        {"image": "b", "reason": "truncated: it ends early"},
        {"image": "c", "reason": "its size is 2 x 4 in the table, and 4 x 2 in the ground truth"},
        {"image": "d", "reason": "the table has no row of it"},
    ]
    assert found["scores"]["miou"] == 0.25
    assert [each["image"] for each in found["worst"]] == ["a"]
    assert any("3 of 4 images count as missed" in line and "b (truncated: it ends early)" in line for line in said)


def test_names_that_do_not_match_are_listed_and_count(tmp_path: Path, truth: str) -> None:
    table = commit(tmp_path / "t", "semantic", {LAKE + "a.jpg": (semantic(TRUTH, ("SKY", "street", "auto")), SIZE)})
    said: list[str] = []
    found = evaluate(table, truth, said, where=None)
    assert found["unmatched"]["truth"] == [
        {"label": "road", "truth": ["road"], "true": 4},
        {"label": "car", "truth": ["car"], "true": 2},
    ]
    assert [each["label"] for each in found["unmatched"]["table"]] == ["street", "auto"]
    assert [each["iou"] for each in found["classes"]] == [0.5, 0, 0]
    assert any("2 classes of the ground truth are the label of no segment" in line for line in said)
    assert any("2 labels of the table are no classes of the ground truth" in line and "street (1 segment)" in line for line in said)

    (tmp_path / "map.yaml").write_text("road: street\ncar: null\n")
    found = evaluate(table, truth, categories=str(tmp_path / "map.yaml"))
    assert [(each["label"], each["iou"]) for each in found["classes"]] == [("sky", 0.5), ("street", 0.5)]
    assert found["unmatched"] == {"truth": [], "table": [{"label": "auto", "segments": 1}], "not_judged": ["car"]}


def test_several_names_of_truth_may_be_one_label(tmp_path: Path, truth: str) -> None:
    table = commit(tmp_path / "t", "semantic", {LAKE + "a.jpg": (semantic(np.minimum(TRUTH, 1), ("sky", "ground")), SIZE)})
    (tmp_path / "map.yaml").write_text("road: ground\ncar: ground\n")
    found = evaluate(table, truth, categories=str(tmp_path / "map.yaml"), where="image_uri LIKE '%a.jpg'")
    assert [(each["label"], each["truth"]) for each in found["classes"]] == [("sky", ["sky"]), ("ground", ["road", "car"])]
    assert found["confusion"]["matrix"] == [[4, 0, 4], [0, 3, 3]]  # b is missed


@pytest.mark.slow
def test_the_newest_answer_that_is_chosen_counts(tmp_path: Path, truth: str) -> None:
    for minute, values in enumerate((np.full(SIZE, SKY), TRUTH)):
        given = {f"{LAKE}{name}.jpg": (semantic(values), SIZE) for name in "ab"}
        commit(tmp_path / "t", "semantic", given, f"run-{minute}", minute)
    assert evaluate(tmp_path / "t", truth)["scores"]["miou"] == 1
    assert evaluate(tmp_path / "t", truth, where="run_id = 'run-0'")["scores"]["pixel_accuracy"] == pytest.approx(4 / 7)
    failure = ImageFailure(ErrorCode.TRUNCATED, "it ends early")
    commit(tmp_path / "t", "semantic", {LAKE + "a.jpg": (failure, SIZE)}, "run-2", 2)
    assert evaluate(tmp_path / "t", truth)["scores"]["miou"] == 1  # the older answer stands, as for readers that ask for ok rows


@pytest.mark.slow
@pytest.mark.parametrize(("task", "wanted", "folder"), [("instance", "coco-instances", ""), ("panoptic", "coco-panoptic", "panoptic.json")])
def test_an_export_is_a_truth_against_which_its_table_is_perfect(tmp_path: Path, task: str, wanted: str, folder: str) -> None:
    table = build(str(tmp_path / "masks"))
    export(table, tmp_path / "out", wanted)
    found = evaluate(table, tmp_path / "out" / folder, task=task)
    assert found["images"]["scored"] == 5
    assert found["scores"]["pq" if task == "panoptic" else "ap"] == pytest.approx(1)


@pytest.mark.slow
def test_exported_label_maps_are_a_truth(tmp_path: Path) -> None:
    table = build(str(tmp_path / "masks"))
    export(table, tmp_path / "out", "label-maps")
    found = evaluate(table, tmp_path / "out")
    assert (found["images"]["scored"], found["scores"]["miou"]) == (5, 1)
    export(table, tmp_path / "panoptic", "coco-panoptic", task="semantic")
    assert evaluate(table, tmp_path / "panoptic", task="semantic")["scores"]["miou"] == 1


def test_a_fault_of_a_task_travels_as_it_is() -> None:
    def fails(_: int) -> int:
        raise Refused("--truth a.png: no")

    answer = cluster._as_values(fails, 1)
    assert isinstance(answer, Refused)
    assert str(answer) == "--truth a.png: no"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "panoptic"}, "--task panoptic: ground truth in label-maps judges --task semantic"),
        ({"where": "colour = 1"}, "--where colour = 1: is not a condition"),
        ({"model": "other"}, "no row with status ok fits --task semantic"),
        ({"format": "coco-panoptic"}, "--format coco-panoptic: .* looks like label-maps"),
        ({"worst": -1}, r"--worst -1 \(given\): input should be greater than or equal to 0"),
        ({"ignore_index": -1}, r"--ignore-index -1 \(given\): input should be greater than or equal to 0"),
        ({"labels": "/no/such/labels.json"}, "--labels"),
        ({"categories": "/no/such/map.yaml"}, "--categories"),
        ({"ignore_index": 7}, "has pixels of value 255"),
    ],
)
def test_a_wrong_setting_is_refused(tmp_path: Path, truth: str, settings: dict[str, Any], message: str) -> None:
    table = commit(tmp_path / "t", "semantic", {LAKE + "a.jpg": (semantic(TRUTH), SIZE)})
    with pytest.raises(Refused, match=message):
        evaluate(table, truth, output=str(tmp_path / "out"), **settings)
    assert not (tmp_path / "out").exists()


def test_a_truth_of_other_images_is_refused(tmp_path: Path, truth: str) -> None:
    table = commit(tmp_path / "t", "semantic", {LAKE + "z.jpg": (semantic(TRUTH), SIZE)})
    with pytest.raises(
        Refused, match=r"no image of the ground truth is in the table: it has 'a', for example, and the table s3://lake/images/z\.jpg"
    ):
        evaluate(table, truth)
    with pytest.raises(Refused, match="overlaps the table's folder"):
        evaluate(table, truth, output=f"{table}/out")
    with pytest.raises(Refused, match="--table"):
        evaluate(tmp_path / "absent", truth)


@pytest.mark.slow
def test_a_damaged_row_is_one_sentence(tmp_path: Path) -> None:
    overlapping = [named(number, rectangle(30, 41, slice(0, 9), slice(0, 9)), "dog") for number in (1, 2)]
    table = build(str(tmp_path / "masks"))
    export(table, tmp_path / "out", "coco-panoptic")
    commit(tmp_path / "again", "panoptic", {f"{LAKE}dt=2026-11-21/a.jpg": (overlapping, (30, 41))})
    with pytest.raises(MasklakeError, match=r"a\.jpg: its row is damaged, leave it out by --where: segment 2 overlaps"):
        evaluate(tmp_path / "again", tmp_path / "out")


@pytest.mark.slow
def test_the_output_holds_the_report_and_a_page(tmp_path: Path, truth: str) -> None:
    hostile = "</script><b>car"
    answer = semantic(TRUTH, ("sky", "road", hostile))
    table = commit(tmp_path / "t", "semantic", {LAKE + "a.jpg": (answer, SIZE), LAKE + "b.jpg": ([], SIZE)})
    found = evaluate(table, truth, output=str(tmp_path / "out"))
    written = json.loads((tmp_path / "out" / run.JSON).read_text())
    assert written == json.loads(json.dumps(found))
    page = (tmp_path / "out" / run.PAGE).read_text()
    assert hostile not in page
    assert "&lt;/script&gt;&lt;b&gt;car" in page
    assert "<script" not in page
    assert "The image cannot be read any more." in page  # there is no lake
    assert page.count('<article class="pair ') == 2
    assert [each["score"] for each in written["worst"]] == pytest.approx([0, 2 / 3])
    fewer = evaluate(table, truth, output=str(tmp_path / "out"), worst=0)
    assert fewer["worst"] == []
    assert "Worst images" not in (tmp_path / "out" / run.PAGE).read_text()


def test_a_detection_of_a_class_that_truth_lacks_is_no_false_positive(tmp_path: Path) -> None:
    mask = rectangle(30, 41, slice(0, 20), slice(0, 20))
    dog = named(1, mask, "dog", score=0.5)
    commit(tmp_path / "truth", "instance", {LAKE + "a.jpg": ([dog], (30, 41))})
    export(str(tmp_path / "truth"), tmp_path / "out", "coco-instances")
    seal = replace(named(2, mask, "seal"), score=0.9)
    commit(tmp_path / "t", "instance", {LAKE + "a.jpg": ([seal, dog], (30, 41))})
    found = evaluate(tmp_path / "t", tmp_path / "out")
    assert found["scores"]["ap"] == pytest.approx(1)
    assert found["unmatched"]["table"] == [{"label": "seal", "segments": 1}]
