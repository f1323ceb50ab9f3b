"""AP of a table against COCO's own annotations (polygons, run lengths, crowds), beside pycocotools on the same files."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from masklake.table.rows import Answer
from tests.answers import Segment
from tests.evaluations import LAKE, commit, evaluate, named
from tests.exports import export
from tests.shared import shared_folder


@pytest.mark.shared_data
@pytest.mark.slow
def test_the_figures_of_an_exports_file_are_those_of_pycocotools(tmp_path: Path) -> None:
    found = json.loads((shared_folder("data", "coco-free") / "instances.json").read_text())
    crowded = {annotation["image_id"] for annotation in found["annotations"] if annotation["iscrowd"]}
    found["images"] = sorted(found["images"], key=lambda image: (image["id"] not in crowded, image["id"]))[:30]
    kept = {image["id"] for image in found["images"]}
    found["annotations"] = [annotation for annotation in found["annotations"] if annotation["image_id"] in kept]
    (tmp_path / "truth.json").write_text(json.dumps(found))
    with redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / "truth.json"))

    given = {LAKE + image["file_name"]: (_moved(truth, image), (image["height"], image["width"])) for image in found["images"][:-1]}
    commit(tmp_path / "masks", "instance", given)
    export(str(tmp_path / "masks"), tmp_path / "export", "coco-instances")
    result = evaluate(tmp_path / "masks", tmp_path / "truth.json")

    written = json.loads((tmp_path / "export" / "instances.json").read_text())
    names = {category["name"]: category["id"] for category in found["categories"]}
    recoded = {category["id"]: names[category["name"]] for category in written["categories"]}
    ids = {image["file_name"]: image["id"] for image in found["images"]}
    renumbered = {image["id"]: ids[image["file_name"]] for image in written["images"]}
    detections = [
        {name: each[name] for name in ("segmentation", "score")}
        | {"image_id": renumbered[each["image_id"]], "category_id": recoded[each["category_id"]]}
        for each in sorted(written["annotations"], key=lambda each: each["id"])
    ]
    with redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(detections), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    scores = result["scores"]
    got = [scores[name] for name in ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")]
    assert got == pytest.approx(evaluation.stats[:6].tolist(), abs=1e-12)
    assert scores["ar"] == pytest.approx(evaluation.stats[8], abs=1e-12)
    assert 0.1 < scores["ap"] < 0.9
    assert result["images"] == {"truth": 30, "scored": 29, "missed": 1, "table_only": 0, "matched_by_file_name_alone": 0}


def _moved(truth: COCO, image: dict[str, Any]) -> Answer:
    """The image's annotations, crowds among them, moved by some pixels; some are relabelled. No two scores are equal."""
    random = np.random.default_rng(image["id"])
    segments: list[Segment] = []
    for annotation in truth.loadAnns(truth.getAnnIds(imgIds=image["id"])):
        mask = np.roll(truth.annToMask(annotation).astype(bool), random.integers(-3, 4, 2), axis=(0, 1))
        category_id = annotation["category_id"] if random.random() < 0.9 else int(random.choice(list(truth.cats)))
        if mask.any():
            # Scores of the export have six digits: these are told apart by them.
            score = round(float(np.float32(random.random())), 5)
            segments.append(named(len(segments) + 1, mask, truth.cats[category_id]["name"], score=score))
    return segments
