"""PQ against numbers worked out by hand, a slow second implementation from sets of pixels, and COCO's own sample annotations."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from masklake.demo.scenes import LABELS, THING_LABEL_IDS, render, sample_scene
from masklake.quality.panoptic import ClassStats, PanopticStats, Quality, compare, segment_ids
from tests.shared import shared_folder

SKY, CAT, DOG = 7, 17, 18


def row_map(*runs: tuple[int, int]) -> NDArray[np.int32]:
    """An id map of one row: (id, pixels), one after another."""
    return np.concatenate([np.full(length, segment_id, np.int32) for segment_id, length in runs])[None, :]


def one_class(stats: PanopticStats, label_id: int) -> ClassStats:
    return stats.per_class.get(label_id, ClassStats())


def matches(stats: PanopticStats) -> dict[int, tuple[int, int, int]]:
    """(TP, FP, FN) by label id."""
    return {label_id: (one.tp, one.fp, one.fn) for label_id, one in stats.per_class.items()}


class TestCompare:
    def test_a_perfect_prediction_matches_everything_whatever_the_ids(self) -> None:
        truth, prediction = row_map((1, 30), (2, 10), (0, 10)), row_map((9, 30), (4, 10), (0, 10))
        stats = compare(prediction, {9: SKY, 4: CAT}, truth, {1: SKY, 2: CAT})
        assert stats.per_class == {SKY: ClassStats(1.0, 1, 0, 0), CAT: ClassStats(1.0, 1, 0, 0)}

    def test_worked_by_hand(self) -> None:
        # Cat 1: 40 true pixels, 50 predicted, 35 shared -> IoU 35/55. Cat 2 is missed. A cat is invented on the sky.
        # Sky: 50 true pixels, 20 of them predicted as sky -> IoU 20/50: too little, so one missed and one invented.
        truth = row_map((1, 40), (3, 50), (2, 10))
        prediction = row_map((0, 5), (1, 50), (2, 15), (3, 20), (0, 10))
        stats = compare(prediction, {1: CAT, 2: CAT, 3: SKY}, truth, {1: CAT, 2: CAT, 3: SKY})
        assert stats.per_class == {CAT: ClassStats(35 / 55, 1, 1, 1), SKY: ClassStats(0.0, 0, 1, 1)}
        result = stats.result(thing_ids={CAT, DOG})
        assert result.things.pq == pytest.approx(35 / 55 / 2)
        assert result.things.sq == pytest.approx(35 / 55)
        assert (result.things.rq, result.things.classes) == (0.5, 1)
        assert result.stuff == Quality(0.0, 0.0, 0.0, 1)
        assert result.pq == pytest.approx(35 / 55 / 4)
        assert result.sq == pytest.approx(35 / 55 / 2)
        assert result.rq == 0.25
        assert list(result.per_class) == [SKY, CAT]

    def test_an_iou_of_exactly_one_half_is_no_match(self) -> None:
        truth, half, more = row_map((1, 100)), row_map((1, 50), (0, 50)), row_map((1, 51), (0, 49))
        assert compare(half, {1: CAT}, truth, {1: CAT}).per_class == {CAT: ClassStats(0.0, 0, 1, 1)}
        assert compare(more, {1: CAT}, truth, {1: CAT}).per_class == {CAT: ClassStats(0.51, 1, 0, 0)}

    def test_the_wrong_class_is_missed_in_one_class_and_invented_in_the_other(self) -> None:
        stats = compare(row_map((1, 10)), {1: DOG}, row_map((1, 10)), {1: CAT})
        assert stats.per_class == {CAT: ClassStats(fn=1), DOG: ClassStats(fp=1)}

    def test_predicted_pixels_on_void_truth_leave_the_union(self) -> None:
        # 60 shared; 100 predicted, 40 of them on void; 60 true: IoU 1, not 60/100.
        stats = compare(row_map((1, 100)), {1: CAT}, row_map((1, 60), (0, 40)), {1: CAT})
        assert stats.per_class == {CAT: ClassStats(1.0, 1, 0, 0)}

    def test_predicted_void_on_a_true_segment_stays_in_the_union(self) -> None:
        stats = compare(row_map((1, 60), (0, 40)), {1: CAT}, row_map((1, 100)), {1: CAT})
        assert stats.per_class == {CAT: ClassStats(0.6, 1, 0, 0)}

    @pytest.mark.parametrize(("on_void", "false_positives"), [(50, 1), (51, 0)])
    def test_a_prediction_mostly_on_void_is_no_false_positive(self, on_void: int, false_positives: int) -> None:
        truth = row_map((0, on_void), (1, 1000 - on_void))
        stats = compare(row_map((1, 100), (2, 900)), {1: CAT, 2: SKY}, truth, {1: SKY})
        assert one_class(stats, CAT) == ClassStats(fp=false_positives)

    @pytest.mark.parametrize(("label_id", "false_positives"), [(CAT, 0), (DOG, 1)])
    def test_a_prediction_mostly_on_a_crowd_of_its_own_class_is_no_false_positive(self, label_id: int, false_positives: int) -> None:
        stats = compare(row_map((1, 100)), {1: label_id}, row_map((1, 30), (2, 60), (0, 10)), {1: SKY, 2: CAT}, crowd_ids={2})
        assert one_class(stats, label_id) == ClassStats(fp=false_positives)

    def test_void_and_crowd_count_together(self) -> None:
        truth = row_map((1, 40), (2, 30), (0, 30))
        assert one_class(compare(row_map((1, 100)), {1: CAT}, truth, {1: SKY, 2: CAT}, crowd_ids={2}), CAT) == ClassStats()

    def test_a_crowd_is_never_matched_or_missed(self) -> None:
        assert compare(row_map((1, 10)), {1: CAT}, row_map((1, 10)), {1: CAT}, crowd_ids={1}).per_class == {}
        assert compare(row_map((0, 10)), {}, row_map((1, 10)), {1: CAT}, crowd_ids={1}).per_class == {}

    def test_void_may_have_another_id(self) -> None:
        stats = compare(row_map((0, 60), (255, 40)), {0: CAT}, row_map((0, 60), (255, 40)), {0: CAT}, void=255)
        assert stats.per_class == {CAT: ClassStats(1.0, 1, 0, 0)}

    def test_ids_may_be_as_large_as_cocos(self) -> None:
        large = 255 * 256**2 + 255 * 256 + 255
        stats = compare(row_map((large, 6)), {large: CAT}, row_map((large - 1, 6)).astype(np.uint32), {large - 1: CAT})
        assert stats.per_class == {CAT: ClassStats(1.0, 1, 0, 0)}

    @pytest.mark.parametrize(
        ("prediction", "labels", "message"),
        [
            (row_map((1, 9)), {1: CAT}, "of one size"),
            (row_map((1, 5), (2, 5)), {1: CAT}, r"prediction: segments \[2\] are in the id map but have no label"),
            (row_map((1, 10)), {1: CAT, 3: CAT}, r"prediction: segments \[3\] have a label but no pixels"),
            (row_map((0, 10)), {0: CAT}, "the void id 0 has a label"),
            (row_map((-1, 10)), {-1: CAT}, "0 or more"),
        ],
    )
    def test_maps_that_contradict_their_labels_are_refused(
        self, prediction: NDArray[np.int32], labels: dict[int, int], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            compare(prediction, labels, row_map((1, 10)), {1: CAT})


class TestStatistics:
    def test_adding_up_images_in_any_order_gives_the_same(self) -> None:
        parts = [_random_case(seed) for seed in range(6)]
        stats = [compare(*part) for part in parts]
        forwards, backwards = sum(stats, PanopticStats()), sum(reversed(stats), PanopticStats())
        assert forwards.result({1, 2}).pq == pytest.approx(backwards.result({1, 2}).pq, abs=1e-12)
        assert {k: (s.tp, s.fp, s.fn) for k, s in forwards.per_class.items()} == {
            k: (s.tp, s.fp, s.fn) for k, s in backwards.per_class.items()
        }

    def test_classes_weigh_the_same_and_images_do_not(self) -> None:
        # 3 of 4 cats found perfectly: PQ 3 / 3.5; the one dog found with IoU 0.6: PQ 0.6.
        stats = PanopticStats({CAT: ClassStats(3.0, 3, 0, 1)}) + PanopticStats({DOG: ClassStats(0.6, 1, 0, 0)})
        assert stats.result({CAT, DOG}).pq == pytest.approx((3 / 3.5 + 0.6) / 2)

    def test_classes_that_never_occurred_do_not_count(self) -> None:
        result = PanopticStats({CAT: ClassStats(1.0, 1, 0, 0), DOG: ClassStats()}).result({CAT, DOG})
        assert (result.pq, result.things.classes, list(result.per_class)) == (1.0, 1, [CAT])
        assert math.isnan(result.stuff.pq)
        assert result.stuff.classes == 0
        assert math.isnan(PanopticStats().result({CAT}).pq)


class TestAgainstASecondImplementation:
    @pytest.mark.parametrize("seed", range(25))
    def test_random_maps_with_void_and_crowds(self, seed: int) -> None:
        case = _random_case(seed)
        expected = _slow(*case)
        got = compare(*case)
        assert matches(got) == {k: v[1:] for k, v in expected.items()}
        for label_id, (iou, *_) in expected.items():
            assert one_class(got, label_id).iou == pytest.approx(iou)

    def test_the_random_maps_hold_every_kind_of_case(self) -> None:
        totals = sum((compare(*_random_case(seed)) for seed in range(25)), PanopticStats())
        assert all(min(stats.tp, stats.fp, stats.fn) > 5 for stats in totals.per_class.values())


class TestSegmentIds:
    def test_a_scene_encoded_as_run_lengths_comes_back(self) -> None:
        rendered = render(sample_scene(3), 48, 64)
        segments = [_segment(rendered.ids == i, i, label_id) for i, label_id in enumerate(rendered.label_ids, 1)]
        ids, labels = segment_ids(segments, 48, 64)
        np.testing.assert_array_equal(ids, rendered.ids)
        assert labels == dict(enumerate(rendered.label_ids, 1))
        result = compare(ids, labels, rendered.ids, labels).result(THING_LABEL_IDS)
        assert (result.pq, result.sq, result.rq) == (1.0, 1.0, 1.0)
        assert set(result.per_class) <= set(LABELS)

    def test_no_segments_are_void_everywhere(self) -> None:
        ids, labels = segment_ids([], 2, 3)
        assert ids.tolist() == [[0, 0, 0], [0, 0, 0]]
        assert labels == {}

    def test_overlapping_masks_have_no_id_map(self) -> None:
        everywhere = np.ones((4, 4), bool)
        with pytest.raises(ValueError, match="segment 2 overlaps"):
            segment_ids([_segment(everywhere, 1, CAT), _segment(everywhere, 2, CAT)], 4, 4)
        with pytest.raises(ValueError, match="segment id 1 occurs twice"):
            segment_ids([_segment(everywhere, 1, CAT), _segment(everywhere, 1, CAT)], 4, 4)


@pytest.mark.shared_data
class TestOnCocoAnnotations:
    """The sample of cocodataset/panopticapi: two photographs, 50 segments, among them three crowds."""

    def test_the_truth_against_itself_is_perfect(self) -> None:
        images, thing_ids = _coco_sample()
        total = sum(
            (compare(*_without_crowds(ids, labels, crowds), ids, labels, 0, crowds) for ids, labels, crowds in images), PanopticStats()
        )
        result = total.result(thing_ids)
        assert (result.pq, result.sq, result.rq) == (1.0, 1.0, 1.0)
        assert sum(stats.tp for stats in total.per_class.values()) == 50 - 3
        assert result.things.classes + result.stuff.classes == len(result.per_class)
        assert min(result.things.classes, result.stuff.classes) > 3

    def test_a_shifted_prediction_agrees_with_the_slow_implementation(self) -> None:
        images, _ = _coco_sample()
        for ids, labels, crowds in images:
            quarter = ids[::4, ::4]
            shifted = np.roll(quarter, 2, axis=1)
            seen = {i: labels[i] for i in np.unique(quarter).tolist() if i}
            got, expected = compare(shifted, seen, quarter, seen, 0, crowds), _slow(shifted, seen, quarter, seen, 0, crowds)
            assert matches(got) == {k: v[1:] for k, v in expected.items()}
            assert sum(s.iou for s in got.per_class.values()) == pytest.approx(sum(v[0] for v in expected.values()))
            assert sum(s.fn for s in got.per_class.values()) > 0


Case = tuple[NDArray[np.int32], dict[int, int], NDArray[np.int32], dict[int, int], int, set[int]]


def _random_case(seed: int) -> Case:
    """A blocky truth with void and crowds, and a prediction that is the truth moved by a pixel or two and relabelled here and there."""
    rng = np.random.default_rng(seed)
    truth = np.kron(rng.integers(0, 12, (5, 6)), np.ones((4, 5), int)).astype(np.int32)
    prediction = np.roll(truth, rng.integers(0, 3, 2), axis=(0, 1))
    prediction[rng.random(prediction.shape) < 0.05] = 0
    truth_labels = {int(i): int(i) % 3 for i in np.unique(truth) if i}
    prediction_labels = {int(i): int(i) % 3 if rng.random() < 0.8 else int(rng.integers(3)) for i in np.unique(prediction) if i}
    return prediction, prediction_labels, truth, truth_labels, 0, {i for i in truth_labels if i in (3, 7)}


def _slow(
    prediction_ids: NDArray[np.int32],
    prediction_labels: dict[int, int],
    truth_ids: NDArray[np.int32],
    truth_labels: dict[int, int],
    void: int,
    crowd_ids: set[int],
) -> dict[int, tuple[float, int, int, int]]:
    """The paper's definition on sets of pixels, class by class: every pair of segments is tried. Label id -> (sum of IoU, TP, FP, FN)."""
    truth = {i: set(np.flatnonzero(truth_ids == i).tolist()) for i in truth_labels}
    nowhere = set(np.flatnonzero(truth_ids == void).tolist())
    predicted = {i: set(np.flatnonzero(prediction_ids == i).tolist()) for i in prediction_labels}
    found = {}
    for label_id in set(truth_labels.values()) | set(prediction_labels.values()):
        wanted = [truth[i] for i, label in truth_labels.items() if label == label_id and i not in crowd_ids]
        offered = [predicted[i] for i, label in prediction_labels.items() if label == label_id]
        crowd = set().union(*(truth[i] for i, label in truth_labels.items() if label == label_id and i in crowd_ids))
        ious = {(i, j): len(p & t) / len((p - nowhere) | t) for i, p in enumerate(offered) for j, t in enumerate(wanted)}
        matches = {pair: iou for pair, iou in ious.items() if iou > 0.5}
        matched = {i for i, _ in matches}
        invented = [p for i, p in enumerate(offered) if i not in matched and len(p & (nowhere | crowd)) <= len(p) / 2]
        figures = (sum(matches.values()), len(matches), len(invented), len(wanted) - len(matches))
        if any(figures):
            found[label_id] = figures
    return found


def _segment(mask: NDArray[np.bool_], segment_id: int, label_id: int) -> dict[str, Any]:
    counts = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    return {"segment_id": segment_id, "label_id": label_id, "counts": counts}


def _coco_sample() -> tuple[list[tuple[NDArray[np.int32], dict[int, int], set[int]]], set[int]]:
    """(id map, label ids, crowds) of each image, and the thing classes; ids are coded in the PNG's colours (R + 256 G + 65536 B)."""
    folder = shared_folder("data", "coco-panoptic-sample")
    truth = json.loads((folder / "panoptic_examples.json").read_text(encoding="utf-8"))
    images = []
    for annotation in truth["annotations"]:
        rgb = np.asarray(Image.open(folder / "panoptic_examples" / annotation["file_name"]).convert("RGB")).astype(np.int32)
        segments = annotation["segments_info"]
        labels = {segment["id"]: segment["category_id"] for segment in segments}
        images.append((rgb @ np.array([1, 256, 65536], np.int32), labels, {segment["id"] for segment in segments if segment["iscrowd"]}))
    return images, {category["id"] for category in truth["categories"] if category["isthing"]}


def _without_crowds(ids: NDArray[np.int32], labels: dict[int, int], crowds: set[int]) -> tuple[NDArray[np.int32], dict[int, int]]:
    return np.where(np.isin(ids, list(crowds)), 0, ids), {i: label for i, label in labels.items() if i not in crowds}
