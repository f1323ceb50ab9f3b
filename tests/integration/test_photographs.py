"""Real weights on real photographs: DeepLabV3-MobileNetV2 (VOC labels) over 123 COCO photos, judged against COCO's own annotations."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from pipeline import reading
from tests.lakes import segment, summary
from tests.shared import shared_folder

# COCO's name -> VOC's, of the classes that both have under different names.
_VOC_NAME = {
    "airplane": "aeroplane",
    "motorcycle": "motorbike",
    "potted plant": "pottedplant",
    "couch": "sofa",
    "dining table": "diningtable",
    "tv": "tvmonitor",
}


@pytest.mark.shared_data
@pytest.mark.timeout(600)
def test_123_photographs_get_semantic_masks_that_agree_with_their_annotations(tmp_path: Path) -> None:
    photos = shared_folder("data", "coco-free")
    weights = shared_folder("models", "deeplabv3-mobilenetv2-voc")
    table = str(tmp_path / "masks")
    done = segment("--input", str(photos / "images"), "--output", table, "--model", str(weights), "--tasks", "semantic", seconds=550)
    assert done.returncode == 0, done.stderr
    assert summary(done)["images"] == summary(done)["ok"] == 123

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
    iou = {label: shared_pixels[label] / pixels for label, pixels in either_pixels.items() if label in known and pixels > 100_000}
    assert len(iou) >= 8, json.dumps(iou)
    assert float(np.mean(list(iou.values()))) > 0.6, json.dumps(iou)


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
