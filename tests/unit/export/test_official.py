"""An export with the ids of an official file: pycocotools and panopticapi's algorithm take it against that file as it is."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from masklake.errors import Refused
from tests.answers import Segment
from tests.evaluations import LAKE, commit, evaluate, named
from tests.exports import export
from tests.shared import shared_folder
from tests.unit.quality.literal import Annotation, pq_average, pq_compute

_CALLED = {"motorcycle": "motorbike", "airplane": "aeroplane", "couch": "sofa", "potted plant": "pottedplant", "tv": "tvmonitor"}


def moved(mask: NDArray[np.bool_], seed: int) -> NDArray[np.bool_]:
    return np.roll(mask, np.random.default_rng(seed).integers(-3, 4, 2), axis=(0, 1))


@pytest.mark.slow
@pytest.mark.shared_data
def test_pycocotools_takes_the_results_against_the_official_file(tmp_path: Path) -> None:
    """The table's labels are those of 80-class checkpoints, and one that the file does not have; one image is not in the file."""
    found = json.loads((shared_folder("data", "coco-free") / "instances.json").read_text())
    wanted = {each["id"] for each in found["categories"] if each["name"] in _CALLED}
    rare = {annotation["image_id"] for annotation in found["annotations"] if annotation["category_id"] in wanted}
    found["images"] = sorted(found["images"], key=lambda image: (image["id"] not in rare, image["id"]))[:15]
    kept = {image["id"] for image in found["images"]}
    found["annotations"] = [annotation for annotation in found["annotations"] if annotation["image_id"] in kept]
    official = tmp_path / "instances_val2017.json"
    official.write_text(json.dumps(found))
    with redirect_stdout(io.StringIO()):
        truth = COCO(str(official))
    given: dict[str, Any] = {}
    used: set[str] = set()
    for image in found["images"]:
        segments: list[Segment] = []
        for annotation in truth.loadAnns(truth.getAnnIds(imgIds=image["id"])):
            mask = moved(truth.annToMask(annotation).astype(bool), annotation["id"])
            label = truth.cats[annotation["category_id"]]["name"]
            score = round(float(np.random.default_rng(annotation["id"]).random()), 5)
            if mask.any():
                used.add(label)
                segments.append(named(len(segments) + 1, mask, _CALLED.get(label, label), score=score))
        whole = np.ones((image["height"], image["width"]), bool)
        segments.append(named(len(segments) + 1, whole, "spaceship", score=0.9))
        given[LAKE + "val2017/" + image["file_name"]] = (segments, (image["height"], image["width"]))
    given[LAKE + "val2017/other.jpg"] = ([], (10, 10))
    assert used & set(_CALLED)
    commit(tmp_path / "masks", "instance", given)
    said: list[str] = []
    export(str(tmp_path / "masks"), tmp_path / "out", "coco-results", said, categories_of=str(official))
    assert any("1 image is not in" in line for line in said)
    assert any("15 segments left out" in line and "spaceship (15)" in line for line in said)

    with redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(str(tmp_path / "out" / "results.json")), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    scores = evaluate(tmp_path / "masks", official)["scores"]
    assert [scores[name] for name in ("ap", "ap50", "ap75", "ap_small")] == pytest.approx(evaluation.stats[:4].tolist(), abs=1e-12)
    assert scores["ap"] > 0.1

    export(str(tmp_path / "masks"), tmp_path / "instances", "coco-instances", categories_of=str(official))
    written = json.loads((tmp_path / "instances" / "instances.json").read_text())
    assert {each["id"]: each["file_name"] for each in written["images"]} == {each["id"]: each["file_name"] for each in found["images"]}
    assert [(each["id"], each["name"]) for each in written["categories"]] == sorted(
        (each["id"], each["name"]) for each in found["categories"]
    )
    assert len({each["id"] for each in written["annotations"]}) == len(written["annotations"])


@pytest.mark.shared_data
def test_panopticapi_takes_the_export_against_the_official_file(tmp_path: Path) -> None:
    official = shared_folder("data", "coco-panoptic-sample") / "panoptic_examples.json"
    found = json.loads(official.read_text())
    names = {category["id"]: category["name"] for category in found["categories"]}
    given: dict[str, Any] = {}
    for annotation in found["annotations"]:
        ids = ids_of(official.with_suffix("") / annotation["file_name"])
        taken = np.zeros(ids.shape, bool)
        segments: list[Segment] = []
        for info in annotation["segments_info"]:
            mask = moved(ids == info["id"], info["id"]) & ~taken
            taken |= mask
            label = names[info["category_id"]].removesuffix("-merged").removesuffix("-other")
            if mask.any():
                segments.append(named(len(segments) + 1, mask, label))
        given[LAKE + annotation["file_name"].replace("png", "jpg")] = (segments, ids.shape)
    commit(tmp_path / "masks", "panoptic", given)
    export(str(tmp_path / "masks"), tmp_path / "out", "coco-panoptic", categories_of=str(official))
    predicted = {each["image_id"]: each for each in json.loads((tmp_path / "out" / "panoptic.json").read_text())["annotations"]}
    pairs: list[tuple[Annotation, Annotation]] = []
    for annotation in found["annotations"]:
        offered = predicted[annotation["image_id"]]
        assert {info["category_id"] for info in offered["segments_info"]} <= set(names)
        truth = ids_of(official.with_suffix("") / annotation["file_name"]), annotation["segments_info"]
        pairs.append((truth, (ids_of(tmp_path / "out" / "panoptic" / offered["file_name"]), offered["segments_info"])))
    things = {category["id"] for category in found["categories"] if category["isthing"]}
    assert evaluate(tmp_path / "masks", official)["scores"]["pq"] == pytest.approx(pq_average(pq_compute(pairs), things)[0], abs=1e-12)


def test_a_file_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    commit(tmp_path / "masks", "instance", {LAKE + "a.jpg": ([named(1, np.ones((4, 6), bool), "dog")], (4, 6))})
    image = {"id": 7, "file_name": "a.jpg", "height": 4, "width": 6}
    content: dict[str, Any] = {"images": [image], "annotations": [], "categories": [{"id": 18, "name": "dog"}]}
    file = tmp_path / "official.json"
    for change, message in (
        ({"file_name": "b.jpg"}, r"none of its images \(1\) is among those that are exported"),
        ({"height": 6, "width": 4}, "is 6 x 4, and 4 x 6 in .*: it is another image"),
        ({"height": None}, "image 7 has no height"),
    ):
        file.write_text(json.dumps({**content, "images": [{**image, **change}]}))
        with pytest.raises(Refused, match=message):
            export(str(tmp_path / "masks"), tmp_path / "out", "coco-results", categories_of=str(file))
    with pytest.raises(Refused, match=r"--categories-of .*: is for COCO's formats, and not for segments"):
        export(str(tmp_path / "masks"), tmp_path / "out", "segments", categories_of=str(file))


def ids_of(path: Path) -> NDArray[np.int32]:
    coded = np.asarray(Image.open(path).convert("RGB")).astype(np.int32)
    ids: NDArray[np.int32] = coded @ np.array([1, 256, 65536], np.int32)
    return ids
