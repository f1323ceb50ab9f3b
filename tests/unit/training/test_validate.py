"""A validation gives the figures of an evaluation; which scores are the best."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from masklake.evaluation.scoring import Scoring
from masklake.schema import Task
from masklake.training import sources
from masklake.training.curves import svg
from masklake.training.examples import BadExample, load_image
from masklake.training.settings import SourceConfig
from masklake.training.validate import HeldOut, Scores, better, score
from masklake.truth.classes import classes_for
from masklake.truth.open import open_truth
from masklake.truth.settings import TruthConfig
from tests.evaluations import LAKE, commit, evaluate, label_maps, named, segments_of
from tests.unit.training import data_sets

TRUTH = np.array([[0, 0, 1, 1], [0, 0, 1, 255]])
ANSWER = np.array([[0, 1, 1, 1], [0, 0, 255, 1]])
NAMES = ("sky", "road")


def answer(ids: NDArray[Any]) -> list[Any]:
    return segments_of(ids, {each: (NAMES[each], False) for each in np.unique(ids).tolist() if each != 255})


def held_out(folder: str, size: tuple[int, int] = (2, 4)) -> tuple[Scoring, HeldOut]:
    truth = open_truth(TruthConfig(truth=folder))
    scoring = Scoring(Task.SEMANTIC, truth.coding, classes_for(truth, Task.SEMANTIC, {}), worst=0)
    return scoring, HeldOut(0, LAKE + "a.jpg", np.zeros((*size, 3), np.uint8), truth.images[0])


def test_a_validation_has_the_figure_of_an_evaluation(tmp_path: Path) -> None:
    """Of sky 3 of 4 pixels, none taken for it; of road 2 of 3, and one of sky taken for it: (3/4 + 2/4) / 2."""
    folder = label_maps(tmp_path / "truth", {"a.png": TRUTH}, NAMES)
    scoring, image = held_out(folder)
    stats = score(scoring, image, [_row(each) for each in answer(ANSWER)])
    assert Scores({"semantic": stats}).result() == {"miou": pytest.approx(0.625)}
    assert (Scores() + Scores({"semantic": stats}) + Scores({"semantic": stats})).result() == {"miou": pytest.approx(0.625)}
    table = commit(tmp_path / "masks", "semantic", {LAKE + "a.jpg": (answer(ANSWER), (2, 4))})
    assert evaluate(table, folder)["scores"]["miou"] == pytest.approx(0.625)


def _row(segment: Any) -> dict[str, Any]:
    return {name: getattr(segment, name) for name in ("segment_id", "label_id", "label", "isthing", "score", "area", "bbox", "counts")}


def test_a_truth_of_another_size_than_the_image_is_a_bad_example(tmp_path: Path) -> None:
    scoring, image = held_out(label_maps(tmp_path / "truth", {"a.png": TRUTH}, NAMES), (4, 4))
    with pytest.raises(BadExample, match=r"a\.jpg: its size is 4 x 4 in the table, and 4 x 2 in the ground truth"):
        score(scoring, image, [])


def test_an_instance_is_judged_by_its_score(tmp_path: Path) -> None:
    """Found at an IoU of 2/4, which is enough at the first of COCO's ten thresholds alone; a false one that scores higher halves that."""
    folder = label_maps(tmp_path / "truth", {"a.png": TRUTH}, NAMES)
    truth = open_truth(TruthConfig(truth=folder, thing_labels=("road",)))
    scoring = Scoring(Task.INSTANCE, truth.coding, classes_for(truth, Task.INSTANCE, {}), worst=0)
    image = HeldOut(0, LAKE + "a.jpg", np.zeros((2, 4, 3), np.uint8), truth.images[0])
    near = _row(named(1, np.array([[0, 0, 1, 1], [0, 0, 0, 1]], bool), "road", score=0.5))
    wrong = _row(named(2, np.array([[1, 0, 0, 0], [0, 0, 0, 0]], bool), "road", score=0.9))
    assert Scores({"instance": score(scoring, image, [near])}).result() == {"ap": pytest.approx(0.1)}
    assert Scores({"instance": score(scoring, image, [wrong, near])}).result() == {"ap": pytest.approx(0.05)}


def test_the_best_is_the_highest_score_that_is_a_number() -> None:
    assert better({"pq": 0.1}, None, "pq")
    assert better({"pq": 0.2, "miou": 0}, {"pq": 0.1, "miou": 1}, "pq")
    assert not better({"pq": 0.1, "miou": 1}, {"pq": 0.2, "miou": 0}, "pq")
    assert not better({"pq": float("nan")}, None, "pq")
    assert not better({"miou": 0.5}, None, "pq")


def test_of_equal_scores_the_next_one_decides_and_then_the_later() -> None:
    assert better({"pq": 0, "miou": 0.963, "ap": 0}, {"pq": 0, "miou": 0.669, "ap": 0}, "pq")
    assert not better({"pq": 0, "miou": 0.669, "ap": 1}, {"pq": 0, "miou": 0.963, "ap": 0}, "pq")
    assert better({"pq": 0, "miou": 0.5, "ap": 0.2}, {"pq": 0, "miou": 0.5, "ap": 0.1, "step": 10}, "pq")
    assert better({"pq": 0.1}, {"pq": 0.1}, "pq")
    assert better({"miou": 0.1, "ap": float("nan")}, {"miou": 0.1, "ap": float("nan")}, "miou")


def test_curves_are_drawn_of_losses_and_scores() -> None:
    picture = svg([{"step": 1, "loss": 4.0}, {"step": 2, "loss": 2.0}, {"step": 2, "validation": {"pq": 0.25}}])
    assert picture.count("<polyline") == 2
    assert ">pq 0.250</text>" in picture
    assert 'points="420.0,30.0 780.0,150.0"' in picture  # half of the way, and the highest loss; the end, and half of it


def test_names_of_lines_do_not_overlap_and_every_score_has_a_line() -> None:
    scores = {"pq": 0.899, "miou": 0.9, "ap": 0.901, "sq": 0.999, "rq": 1.0, "things": 0.0, "stuff": 0.001}
    picture = svg([{"step": 100, "loss": 49.8}, {"step": 240, "loss": 2.0, "validation": scores}])
    ends = re.findall(r'class="end" x="790" y="([\d.]+)">(\w+)', picture)
    assert {name for _, name in ends} == {"loss", *scores}
    places = sorted(float(place) for place, name in ends if name != "loss")
    assert min(after - before for before, after in itertools.pairwise(places)) >= 16
    assert places[0] >= 330
    assert places[-1] <= 575
    ticks = re.findall(r'text-anchor="end">([\d.]+)<', picture)
    assert ticks == ["0", "10", "20", "30", "40", "50", "0", "0.2", "0.4", "0.6", "0.8", "1"]
    assert re.findall(r'y="288" text-anchor="middle">([\d.]+)<', picture) == ["0", "50", "100", "150", "200"]
    assert "prefers-color-scheme:dark" in picture


def test_curves_of_a_run_that_diverged_or_logged_nothing_are_drawn() -> None:
    assert svg([]).count("<polyline") == 0
    assert "nan" not in svg([{"step": 1, "loss": float("nan")}, {"step": 2, "loss": 3.0}, {"step": 3, "validation": {"pq": float("nan")}}])


def test_a_held_out_image_without_objects_counts_as_in_an_evaluation(tmp_path: Path) -> None:
    """One object found at a score of 0.5, and where nothing is a detection of 0.9: the precision is 1/2 at every recall, and so is AP."""
    box = np.zeros((10, 10), bool)
    box[2:7, 3:9] = True
    images = [{"id": number, "file_name": name, "height": 10, "width": 10} for number, name in enumerate(("a.png", "b.png"), 1)]
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": [[3, 2, 9, 2, 9, 7, 3, 7]]}
    content = {"images": images, "annotations": [annotation], "categories": [{"id": 1, "name": "dog"}]}
    (tmp_path / "truth.json").write_text(json.dumps(content))
    for name in ("a.png", "b.png"):
        data_sets.image(tmp_path / "images" / name, 10, 10)
    settings = SourceConfig(truth=str(tmp_path / "truth.json"), images=str(tmp_path / "images"))
    settings = settings.model_copy(update={"validation_truth": settings.truth})
    _, data = sources.read(settings, semantic=False)
    answers = {"a.png": [named(1, box, "dog", score=0.5)], "b.png": [named(1, box, "dog", score=0.9)]}

    scoring = Scoring(Task.INSTANCE, data.truth.coding, classes_for(data.truth, Task.INSTANCE, {}), worst=0)
    total = Scores()
    for place, example in enumerate(data.examples):
        image = HeldOut(place, example.image, load_image(example.image).pixels, example.truth)
        total += Scores({"instance": score(scoring, image, [_row(each) for each in answers[Path(example.image).name]])})
    assert total.result() == {"ap": pytest.approx(0.5)}
    table = commit(tmp_path / "masks", "instance", {LAKE + name: (answer, (10, 10)) for name, answer in answers.items()})
    assert evaluate(table, tmp_path / "truth.json")["scores"]["ap"] == pytest.approx(0.5)
