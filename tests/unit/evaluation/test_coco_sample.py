"""The sample of cocodataset/panopticapi as a table: its own truth against itself, and damaged in ways whose cost is worked out by hand."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from masklake.evaluation.report import Report
from tests.answers import Segment
from tests.evaluations import LAKE, commit, evaluate, named
from tests.exports import export
from tests.shared import shared_folder
from tests.unit.quality.literal import Annotation, pq_average, pq_compute

pytestmark = pytest.mark.shared_data


@dataclass(frozen=True)
class Sample:
    """Of one image: its ids, the labels of those that are not crowds, and which pixels are void or crowd."""

    ids: NDArray[np.int32]
    labels: dict[int, str]
    crowds: set[int]

    def segments(self) -> list[Segment]:
        return [named(number, self.ids == each, label) for number, (each, label) in enumerate(self.labels.items(), 1)]


@pytest.fixture(scope="module")
def sample() -> dict[str, Sample]:
    truth = json.loads(_truth().read_text())
    names = {category["id"]: category["name"] for category in truth["categories"]}
    found = {}
    for annotation in truth["annotations"]:
        infos = annotation["segments_info"]
        found[annotation["file_name"].replace("png", "jpg")] = Sample(
            _ids(_truth().with_suffix("") / annotation["file_name"]),
            {info["id"]: names[info["category_id"]] for info in infos if not info["iscrowd"]},
            {info["id"] for info in infos if info["iscrowd"]},
        )
    return found


def score(sample: dict[str, Sample], folder: Path, changed: dict[str, list[Segment]] | None = None) -> Report:
    given = {LAKE + name: ((changed or {}).get(name) or each.segments(), each.ids.shape) for name, each in sample.items()}
    commit(folder / "masks", "panoptic", given)
    return evaluate(folder / "masks", _truth())


def test_the_truth_against_itself_is_perfect(sample: dict[str, Sample], tmp_path: Path) -> None:
    found = score(sample, tmp_path)
    scores = found["scores"]
    assert [scores["pq"], scores["sq"], scores["rq"], scores["things"]["pq"], scores["stuff"]["pq"]] == [1] * 5
    assert scores["classes"] == len({label for each in sample.values() for label in each.labels.values()})
    assert found["images"] == {"truth": 2, "scored": 2, "missed": 0, "table_only": 0, "matched_by_file_name_alone": 0}
    assert found["unmatched"]["table"] == []


def test_a_dropped_segment_is_one_miss_of_its_class(sample: dict[str, Sample], tmp_path: Path) -> None:
    name, label, of_class, classes = _frequent(sample)
    kept = sample[name].segments()
    kept.remove(next(each for each in kept if each.label == label))
    found = score(sample, tmp_path, {name: kept})
    expected = (of_class - 1) / (of_class - 1 + 0.5)
    assert _pq(found, label) == pytest.approx(expected)
    assert found["scores"]["pq"] == pytest.approx((classes - 1 + expected) / classes)
    assert found["scores"]["sq"] == 1


def test_a_swapped_class_is_a_miss_here_and_an_invention_there(sample: dict[str, Sample], tmp_path: Path) -> None:
    name, label, of_class, classes = _frequent(sample)
    segments = sample[name].segments()
    other = next(each.label for each in segments if each.label != label)
    of_other = Counter(each for one in sample.values() for each in one.labels.values())[other]
    index = next(index for index, each in enumerate(segments) if each.label == label)
    segments[index] = replace(segments[index], label=other)
    found = score(sample, tmp_path, {name: segments})
    missed, invented = (of_class - 1) / (of_class - 1 + 0.5), of_other / (of_other + 0.5)
    assert _pq(found, label) == pytest.approx(missed)
    assert _pq(found, other) == pytest.approx(invented)
    assert found["scores"]["pq"] == pytest.approx((classes - 2 + missed + invented) / classes)


def test_a_shifted_mask_costs_its_iou(sample: dict[str, Sample], tmp_path: Path) -> None:
    name, label, of_class, classes = _frequent(sample)
    one = sample[name]
    areas = {each: int((one.ids == each).sum()) for each, found in one.labels.items() if found == label}
    largest = max(areas, key=lambda each: areas[each])
    free = (one.ids == largest) | ~np.isin(one.ids, list(one.labels))  # where no other segment is
    moved = np.roll(one.ids == largest, 3, axis=1) & free
    segments = one.segments()
    index = list(one.labels).index(largest)
    segments[index] = named(segments[index].segment_id, moved, label)
    known = moved & (one.ids != 0)
    true = one.ids == largest
    iou = (known & true).sum() / (known | true).sum()
    assert 0.5 < iou < 0.99
    found = score(sample, tmp_path, {name: segments})
    assert _pq(found, label) == pytest.approx((of_class - 1 + iou) / of_class)
    assert found["scores"]["pq"] == pytest.approx((classes - 1 + (of_class - 1 + iou) / of_class) / classes)
    assert found["scores"]["rq"] == 1


def test_a_lost_image_is_missed_with_all_that_is_in_it(sample: dict[str, Sample], tmp_path: Path) -> None:
    first, second = sample
    commit(tmp_path / "masks", "panoptic", {LAKE + first: (sample[first].segments(), sample[first].ids.shape)})
    found = evaluate(tmp_path / "masks", _truth())
    here, there = (Counter(sample[name].labels.values()) for name in (first, second))
    expected = [here[label] / (here[label] + 0.5 * there[label]) for label in here | there]
    assert found["scores"]["pq"] == pytest.approx(np.mean(expected))
    assert found["missed"] == [{"image": second, "reason": "the table has no row of it"}]


def test_the_figures_of_an_exports_files_are_those_of_panopticapi(sample: dict[str, Sample], tmp_path: Path) -> None:
    """Everything wrong at once: the table is exported as COCO panoptic, and panopticapi's algorithm is run on these files."""
    random = np.random.default_rng(5)
    changed = {}
    for name, one in sample.items():
        ids = np.roll(one.ids, (4, 6), axis=(0, 1))  # crowds and void are predicted as well, as whatever
        labels = list(one.labels.values())
        wrong = {each: labels[int(random.integers(len(labels)))] for each in np.unique(ids[ids > 0]).tolist() if random.random() < 0.2}
        given = {**dict.fromkeys(one.crowds, "person"), **one.labels, **wrong}
        changed[name] = [named(number, ids == each, label) for number, (each, label) in enumerate(given.items(), 1)]
    found = score(sample, tmp_path, changed)
    export(str(tmp_path / "masks"), tmp_path / "export", "coco-panoptic")
    truth, predicted = json.loads(_truth().read_text()), json.loads((tmp_path / "export" / "panoptic.json").read_text())
    named_ids = {category["name"]: category["id"] for category in truth["categories"]}
    recoded = {category["id"]: named_ids[category["name"]] for category in predicted["categories"]}
    offered = {each["file_name"]: each for each in predicted["annotations"]}
    pairs: list[tuple[Annotation, Annotation]] = []
    for annotation in truth["annotations"]:
        infos = [{**each, "category_id": recoded[each["category_id"]]} for each in offered[annotation["file_name"]]["segments_info"]]
        prediction = _ids(tmp_path / "export" / "panoptic" / annotation["file_name"]), infos
        pairs.append(((_ids(_truth().with_suffix("") / annotation["file_name"]), annotation["segments_info"]), prediction))
    stats = pq_compute(pairs)
    things = {category["id"] for category in truth["categories"] if category["isthing"]}
    scores = found["scores"]
    assert (scores["pq"], scores["sq"], scores["rq"]) == pytest.approx(pq_average(stats, things)[:3], abs=1e-12)
    assert scores["things"]["pq"] == pytest.approx(pq_average(stats, things, True)[0], abs=1e-12)
    assert scores["stuff"]["pq"] == pytest.approx(pq_average(stats, things, False)[0], abs=1e-12)
    assert 0.1 < scores["pq"] < 0.9


def _truth() -> Path:
    return shared_folder("data", "coco-panoptic-sample") / "panoptic_examples.json"


def _ids(path: Path) -> NDArray[np.int32]:
    coded = np.asarray(Image.open(path).convert("RGB")).astype(np.int32)
    ids: NDArray[np.int32] = coded @ np.array([1, 256, 65536], np.int32)
    return ids


def _frequent(sample: dict[str, Sample]) -> tuple[str, str, int, int]:
    """An image, a class of several segments in it, how many there are of the class in all images, and how many classes there are."""
    counts = Counter(label for each in sample.values() for label in each.labels.values())
    name = next(iter(sample))
    label, _ = Counter(sample[name].labels.values()).most_common(1)[0]
    assert counts[label] > 1
    return name, label, counts[label], len(counts)


def _pq(found: Report, label: str) -> float:
    (each,) = (each for each in found["classes"] if each["label"] == label)
    return float(each["pq"])
