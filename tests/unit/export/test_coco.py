"""COCO's formats, read by pycocotools and by the rules of panopticapi."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools.coco import COCO

from masklake import reading
from masklake.errors import MasklakeError, Refused
from masklake.export.coco import id_picture
from tests.answers import rectangle
from tests.exports import HEIGHT, LABELS, NAMES, ROOT, WIDTH, answers, commit, export, files, labelled, newest


@pytest.mark.parametrize("task", ["instance", "panoptic", "semantic"])
def test_pycocotools_finds_every_mask_of_the_table(table: str, tmp_path: Path, task: str) -> None:
    summary = export(table, tmp_path, "coco-instances", task=task)
    coco, rows = COCO(str(tmp_path / "instances.json")), newest(table, task)
    images = coco.loadImgs(coco.getImgIds())
    assert {image["file_name"] for image in images} == set(rows) == set(NAMES)
    for image in images:
        row = rows[image["file_name"]]
        found = sorted(coco.loadAnns(coco.getAnnIds([image["id"]])), key=lambda annotation: int(annotation["id"]))
        assert np.array_equal([coco.annToMask(annotation) for annotation in found], reading.masks(row))
        for annotation, segment in zip(found, row["segments"], strict=True):
            assert annotation["id"] == image["id"] * 100_000 + segment["segment_id"]
            assert [annotation[name] for name in ("area", "bbox", "iscrowd")] == [segment["area"], segment["bbox"], 0]
            assert annotation["score"] == pytest.approx(segment["score"], abs=1e-6)
            assert coco.loadCats(annotation["category_id"])[0]["name"] == segment["label"]
    assert summary["segments"] == len(coco.anns) == sum(len(row["segments"]) for row in rows.values())


def test_ids_are_positions_and_labels_plus_one(table: str, tmp_path: Path) -> None:
    export(table, tmp_path, "coco-instances", task="panoptic")
    document = json.loads((tmp_path / "instances.json").read_text())
    assert [image["id"] for image in document["images"]] == [1, 2, 3, 4, 5]
    assert [image["file_name"] for image in document["images"]] == sorted(NAMES)
    assert [image["coco_url"] for image in document["images"]] == [ROOT + name for name in sorted(NAMES)]
    assert {image["height"] for image in document["images"]} == {HEIGHT}
    assert document["categories"] == [
        {"id": label_id + 1, "name": label, "isthing": int(isthing), "supercategory": "thing" if isthing else "stuff"}
        for label_id, (label, isthing) in LABELS.items()
    ]


def test_filters_leave_out_segments_and_keep_images(table: str, tmp_path: Path) -> None:
    rows = newest(table, "instance")
    every = [segment for row in rows.values() for segment in row["segments"]]
    bound = sorted(segment["score"] for segment in every if segment["label"] == "person")[4]  # the segment with this very score stays
    export(table, tmp_path, "coco-instances", label=("person",), min_score=bound)
    document = json.loads((tmp_path / "instances.json").read_text())
    expected = sorted(segment["area"] for segment in every if segment["label"] == "person" and segment["score"] >= bound)
    assert sorted(annotation["area"] for annotation in document["annotations"]) == expected
    assert len(document["images"]) == len(NAMES)
    assert [category["name"] for category in document["categories"]] == ["person"]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["panoptic", "semantic"])
def test_panoptic_pictures_hold_what_panopticapi_asks_for(table: str, tmp_path: Path, task: str) -> None:
    export(table, tmp_path, "coco-panoptic", task=task)
    document, rows = json.loads((tmp_path / "panoptic.json").read_text()), newest(table, task)
    categories = {category["id"]: category for category in document["categories"]}
    names = {image["id"]: image["file_name"] for image in document["images"]}
    assert len(document["annotations"]) == len(NAMES)
    for annotation in document["annotations"]:
        picture = Image.open(tmp_path / "panoptic" / annotation["file_name"])
        ids = rgb2id(np.array(picture, dtype=np.uint32))
        panopticapi_accepts(annotation, ids, categories)
        row = rows[names[annotation["image_id"]]]
        expected, labels = reading.id_map(row)
        assert np.array_equal(ids, expected)
        assert {info["id"]: info["category_id"] - 1 for info in annotation["segments_info"]} == labels
        assert [(info["area"], info["bbox"]) for info in annotation["segments_info"]] == [
            (segment["area"], segment["bbox"]) for segment in row["segments"]
        ]


def rgb2id(color: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """panopticapi/utils.py"""
    return color[:, :, 0] + 256 * color[:, :, 1] + 256 * 256 * color[:, :, 2]


def panopticapi_accepts(annotation: dict[str, Any], ids: NDArray[np.uint32], categories: dict[int, Any]) -> None:
    """The checks of panopticapi/evaluation.py on a prediction, and that areas are right."""
    segments = {info["id"]: info for info in annotation["segments_info"]}
    unseen = {info["id"] for info in annotation["segments_info"]}
    assert len(unseen) == len(annotation["segments_info"])
    for label, count in zip(*np.unique(ids, return_counts=True), strict=True):
        if label not in segments:
            assert label == 0, "a segment is presented in PNG and not presented in JSON"
            continue
        assert segments[label]["area"] == count
        unseen.remove(label)
        assert segments[label]["category_id"] in categories
    assert not unseen, "segments are presented in JSON and not presented in PNG"


def test_ids_beyond_a_byte_are_colours() -> None:
    shape = rectangle(2, 2, slice(0, 1), slice(0, 1))
    row = {"image_uri": "x", "width": 2, "height": 2, "segments": [vars(labelled(70_000, shape, 0))]}
    assert id_picture(row).tolist() == [[[70_000 % 256, 70_000 // 256 % 256, 1], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]]


def test_pictures_have_the_images_stem_unless_two_images_share_it(table: str, tmp_path: Path) -> None:
    export(table, tmp_path, "coco-panoptic")
    names = ("dt=2026-11-21/a", "dt=2026-11-21/b.jpg", "dt=2026-11-21/b.png", "dt=2026-11-22/c.tar", "dt=2026-11-22/d")
    assert files(tmp_path) == {"_export.json", "panoptic.json", *(f"panoptic/{name}.png" for name in names)}


def test_a_stem_that_is_another_images_name_is_not_taken(tmp_path: Path) -> None:
    names = ["x/b.jpg", "x/b.png", "x/b.jpg.webp", "x/.hidden"]
    commit(str(tmp_path / "masks"), "run-1", {name: answers(name) for name in names})
    export(str(tmp_path / "masks"), tmp_path / "out", "coco-panoptic")
    pictures = {f"panoptic/{name}.png" for name in ("b.jpg", "b.png", "b.jpg.webp", ".hidden")}
    assert files(tmp_path / "out") == {"_export.json", "panoptic.json", *pictures}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x/../../../above.jpg", "x//twice.jpg"])
def test_a_key_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    commit(str(tmp_path / "masks"), "run-1", {name: answers("a"), "y.jpg": answers("b")})
    assert export(str(tmp_path / "masks"), tmp_path / "out", "coco-instances")["rows"] == 2
    with pytest.raises(Refused, match="no file can be named after this image"):
        export(str(tmp_path / "masks"), tmp_path / "out", "coco-panoptic", overwrite=True)
    assert files(tmp_path / "out") == {"_export.json", "instances.json"}  # the earlier export, untouched


def test_overlapping_masks_are_no_panoptic_answer(tmp_path: Path) -> None:
    commit(str(tmp_path / "masks"), "run-1", {"a.jpg": {"panoptic": answers("a")["instance"]}})
    with pytest.raises(MasklakeError, match=r"a\.jpg: segment \d has \d+ pixels in the table and shows \d+"):
        export(str(tmp_path / "masks"), tmp_path / "out", "coco-panoptic")
    assert not files(tmp_path / "out")


def test_an_image_without_segments_is_void(tmp_path: Path) -> None:
    commit(str(tmp_path / "masks"), "run-1", {"a.jpg": {"panoptic": []}})
    export(str(tmp_path / "masks"), tmp_path / "out", "coco-panoptic")
    document = json.loads((tmp_path / "out" / "panoptic.json").read_text())
    assert document["annotations"] == [{"image_id": 1, "file_name": "a.png", "segments_info": []}]
    assert not np.asarray(Image.open(tmp_path / "out" / "panoptic" / "a.png")).any()
    assert np.asarray(Image.open(tmp_path / "out" / "panoptic" / "a.png")).shape == (HEIGHT, WIDTH, 3)
