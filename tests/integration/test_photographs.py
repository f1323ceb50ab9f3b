"""Real weights on real photographs: DeepLabV3-MobileNetV2 (VOC labels) over COCO photos, judged against COCO's own annotations."""

from __future__ import annotations

import json
import shutil
from collections import Counter, defaultdict
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from masklake import reading
from tests.evaluations import evaluate
from tests.lakes import segment, summary
from tests.shared import shared_folder

PHOTOS = 20

# COCO's name -> VOC's, of the classes that both have.
_VOC_NAME = {
    "airplane": "aeroplane",
    "bicycle": "bicycle",
    "bird": "bird",
    "boat": "boat",
    "bottle": "bottle",
    "bus": "bus",
    "car": "car",
    "cat": "cat",
    "chair": "chair",
    "couch": "sofa",
    "cow": "cow",
    "dining table": "diningtable",
    "dog": "dog",
    "horse": "horse",
    "motorcycle": "motorbike",
    "person": "person",
    "potted plant": "pottedplant",
    "sheep": "sheep",
    "train": "train",
    "tv": "tvmonitor",
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those photographs that show most of one of VOC's classes, of each class in turn, in `images`, with their annotations, in
    `instances.json`: all of them take three minutes of a core.
    """
    shared, folder = shared_folder("data", "coco-free"), tmp_path_factory.mktemp("photos")
    content = json.loads((shared / "instances.json").read_text())
    wanted = {category["id"] for category in content["categories"] if category["name"] in _VOC_NAME}
    shown: dict[int, Counter[int]] = defaultdict(Counter)  # of each class, the pixels of each photograph
    for each in content["annotations"]:
        if each["category_id"] in wanted:
            shown[each["category_id"]][each["image_id"]] += each["area"]
    ranked = [[image for image, _ in shown[category].most_common()] for category in sorted(shown)]
    chosen = set(list(dict.fromkeys(image for best in zip_longest(*ranked) for image in best if image is not None))[:PHOTOS])
    content["images"] = sorted((image for image in content["images"] if image["id"] in chosen), key=lambda image: image["file_name"])
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] in chosen]
    (folder / "instances.json").write_text(json.dumps(content))
    (folder / "images").mkdir()
    for image in content["images"]:
        name = image["file_name"].rsplit("/", 1)[-1]
        shutil.copy(shared / "images" / name, folder / "images" / name)
    assert len(chosen) == PHOTOS
    return folder


@pytest.fixture(scope="module")
def table(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The photographs' semantic masks."""
    weights = shared_folder("models", "deeplabv3-mobilenetv2-voc")
    table = str(tmp_path_factory.mktemp("lake") / "masks")
    done = segment("--input", str(photos / "images"), "--output", table, "--model", str(weights), "--tasks", "semantic", seconds=550)
    assert done.returncode == 0, done.stderr
    assert summary(done)["images"] == summary(done)["ok"] == PHOTOS
    return table


@pytest.mark.shared_data
@pytest.mark.timeout(600)
def test_photographs_get_semantic_masks_that_agree_with_their_annotations(table: str, photos: Path) -> None:
    weights = shared_folder("models", "deeplabv3-mobilenetv2-voc")
    annotations = COCO(photos / "instances.json")
    by_name = {image["file_name"].rsplit("/", 1)[-1]: image for image in annotations.dataset["images"]}
    shared_pixels: dict[str, int] = defaultdict(int)
    either_pixels: dict[str, int] = defaultdict(int)
    for row in reading.open_table(table).newest(task="semantic"):
        image = by_name[row["image_uri"].rsplit("/", 1)[-1]]
        assert (row["height"], row["width"]) == (image["height"], image["width"])
        assert sum(s["area"] for s in row["segments"]) == row["height"] * row["width"], "a semantic answer covers every pixel once"
        found = {s["label"]: m for s, m in zip(row["segments"], reading.masks(row), strict=True)}
        for label, truth in _truth(annotations, image["id"]).items():
            mask = found.get(label, np.zeros_like(truth))
            shared_pixels[label] += int((mask & truth).sum())
            either_pixels[label] += int((mask | truth).sum())
    known = set(json.loads((weights / "config.json").read_text())["id2label"].values())
    # Classes with some photos' worth of pixels; the checkpoint's authors report a mean IoU of 0.75 on VOC itself.
    iou = {label: shared_pixels[label] / pixels for label, pixels in either_pixels.items() if label in known and pixels > 50_000}
    assert len(iou) >= 8, json.dumps(iou)
    assert float(np.mean(list(iou.values()))) > 0.6, json.dumps(iou)


@pytest.mark.shared_data
@pytest.mark.timeout(600)
def test_the_evaluation_of_the_photographs_agrees_with_a_count_of_all_pixels(table: str, photos: Path, tmp_path: Path) -> None:
    mapping = tmp_path / "voc.yaml"
    mapping.write_text(json.dumps({**_VOC_NAME, "background": "background", "*": "background"}))  # JSON is YAML
    found = evaluate(table, photos / "instances.json", task="semantic", categories=str(mapping), output=str(tmp_path / "out"))
    assert found["images"] == {"truth": PHOTOS, "scored": PHOTOS, "missed": 0, "table_only": 0, "matched_by_file_name_alone": 0}
    unseen = {each["label"] for each in found["unmatched"]["truth"]}
    assert [each["true"] for each in found["unmatched"]["truth"]] == [0] * len(unseen)  # classes of which these photographs have none
    assert found["unmatched"]["table"] == found["unmatched"]["not_judged"] == []
    got = {each["label"]: each for each in found["classes"] if each["label"] not in unseen}
    assert set(got) == {*_VOC_NAME.values(), "background"} - unseen

    annotations = COCO(photos / "instances.json")
    by_name = {image["file_name"].rsplit("/", 1)[-1]: image for image in annotations.dataset["images"]}
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for row in reading.open_table(table).newest(task="semantic"):
        true = _painted(annotations, by_name[row["image_uri"].rsplit("/", 1)[-1]])
        masks = {s["label"]: m for s, m in zip(row["segments"], reading.masks(row), strict=True)}
        for label in {*masks, *np.unique(true).tolist()} - unseen:
            predicted, wanted = masks.get(label, np.zeros(true.shape, bool)), true == label
            counts[label][0] += int((predicted & wanted).sum())
            counts[label][1] += int((predicted | wanted).sum())
    assert {label: each["iou"] for label, each in got.items()} == pytest.approx({label: a / b for label, (a, b) in counts.items()})
    assert found["scores"]["miou"] == pytest.approx(np.mean([a / b for a, b in counts.values()]))
    assert found["scores"]["miou"] > 0.5
    page = (tmp_path / "out" / "evaluation.html").read_text()
    assert page.count("data:image/webp") == 48  # of each image itself, its ground truth, its prediction and their difference
    assert "cannot be read" not in page


def _painted(annotations: COCO, image: dict[str, Any]) -> NDArray[Any]:
    """VOC label of each pixel: of annotations that overlap the smaller on the larger, and all on crowds."""
    painted = np.full((image["height"], image["width"]), "background", object)
    found = annotations.loadAnns(annotations.getAnnIds(imgIds=image["id"]))
    for annotation in sorted(found, key=lambda each: (-each["iscrowd"], -each["area"])):
        name = _VOC_NAME.get(annotations.cats[annotation["category_id"]]["name"], "background")
        painted[annotations.annToMask(annotation).astype(bool)] = name
    return painted.astype(str)


def _truth(annotations: COCO, image_id: int) -> dict[str, NDArray[np.bool_]]:
    """VOC label -> bool [H, W]: the union of the photo's annotations of that class."""
    found: dict[str, NDArray[np.bool_]] = {}
    for annotation in annotations.loadAnns(annotations.getAnnIds(imgIds=image_id)):
        name = annotations.cats[annotation["category_id"]]["name"]
        label = _VOC_NAME.get(name, name)
        mask = coco_mask.decode(annotations.annToRLE(annotation)).astype(bool)
        found[label] = found[label] | mask if label in found else mask
    return found


def test_the_annotations_of_a_class_are_united() -> None:
    square = {"segmentation": [[0, 0, 4, 0, 4, 4, 0, 4]], "iscrowd": 0, "image_id": 1, "category_id": 1}
    coco = COCO()
    coco.dataset = {
        "images": [{"id": 1, "height": 8, "width": 8}],
        "categories": [{"id": 1, "name": "couch"}],
        "annotations": [{**square, "id": 1}, {**square, "id": 2, "segmentation": [[4, 4, 8, 4, 8, 8, 4, 8]]}],
    }
    coco.createIndex()
    truth = _truth(coco, 1)
    assert list(truth) == ["sofa"]
    assert truth["sofa"].sum() == 32
