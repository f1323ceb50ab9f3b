"""What the formats of other tools hold, read by whatever else reads them here; their own readers: test_readers.py."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import shapely
import yaml
from PIL import Image
from pycocotools import mask as coco_mask
from shapely.geometry import shape

from masklake.errors import Refused
from masklake.export.voc import colour
from masklake.reading import masks
from masklake.storage import normalise
from masklake.table.append import Table
from masklake.table.rows import build_rows
from masklake.table.write import write_rows
from tests.answers import images, rectangle, segment, stamp
from tests.exports import HEIGHT, LABELS, NAMES, ROOT, WIDTH, answers, commit, export, files, labelled, newest

STEMS = {"dt=2026-11-21/a": "dt=2026-11-21/a.jpg", "dt=2026-11-22/d": "dt=2026-11-22/d", "dt=2026-11-22/c.tar": "dt=2026-11-22/c.tar.jpg"}


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A table of three images, whose names differ by more than their endings."""
    table = str(tmp_path_factory.mktemp("lake") / "masks")
    commit(table, "run-1", {name: answers(name) for name in (NAMES[0], NAMES[3], NAMES[4])})
    return table


def test_geojson_has_the_masks_with_their_holes(apart: str, tmp_path: Path) -> None:
    summary = export(apart, tmp_path / "out", "geojson", task="panoptic", simplify=0)
    assert files(tmp_path / "out") == {"_export.json", *(f"geojson/{stem}.geojson" for stem in STEMS)}
    assert all(each["least"] == 1 for each in summary["polygon_iou"].values())
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    rows = newest(apart, "panoptic")
    for stem, name in STEMS.items():
        collection = json.loads((tmp_path / "out" / "geojson" / f"{stem}.geojson").read_text())
        assert collection["type"] == "FeatureCollection"
        for feature, mask, known in zip(collection["features"], masks(rows[name]), rows[name]["segments"], strict=True):
            assert np.array_equal(shapely.contains_xy(shape(feature["geometry"]), x, y), mask)
            assert feature["properties"]["classification"]["name"] == feature["properties"]["label"] == known["label"]


def test_yolos_lines_fill_the_masks_and_its_classes_have_no_holes(apart: str, tmp_path: Path) -> None:
    export(apart, tmp_path / "out", "yolo-seg", task="panoptic", simplify=0)
    names = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())["names"]
    assert list(names) == list(range(len(names)))
    assert list(names.values()) == [LABELS[label_id][0] for label_id in sorted(LABELS)]  # the last has label id 7
    rows = newest(apart, "panoptic")
    for stem, name in STEMS.items():
        lines = (tmp_path / "out" / "labels" / f"{stem}.txt").read_text().splitlines()
        for line, mask, known in zip(lines, masks(rows[name]), rows[name]["segments"], strict=True):
            number, *shares = line.split()
            assert names[int(number)] == known["label"]
            corners = np.array(shares, float) * np.tile((WIDTH, HEIGHT), len(shares) // 2)
            (drawn,) = coco_mask.decode(coco_mask.frPyObjects([corners.tolist()], HEIGHT, WIDTH)).transpose(2, 0, 1)
            assert np.array_equal(drawn, mask)


def test_names_that_would_share_a_file_are_refused(table: str, tmp_path: Path) -> None:
    for form in ("yolo-seg", "voc"):
        with pytest.raises(Refused, match=rf"--format {form}: {ROOT}dt=2026-11-21/b\.(jpg|png) and another image differ by their ending"):
            export(table, tmp_path / form, form, task="panoptic")


def test_cvats_runs_are_the_masks(apart: str, tmp_path: Path) -> None:
    export(apart, tmp_path / "out", "cvat", task="instance")
    root = ElementTree.parse(tmp_path / "out" / "annotations.xml").getroot()
    assert {label.text for label in root.iterfind("meta/task/labels/label/name")} == {"person", "dog"}
    rows = newest(apart, "instance")
    assert {image.attrib["name"] for image in root.iterfind("image")} == set(STEMS.values())
    for image in root.iterfind("image"):
        found = list(image.iterfind("mask"))
        known = rows[image.attrib["name"]]
        assert [int(mask.attrib["z_order"]) for mask in found] == list(range(len(known["segments"])))
        for mask, there, expected in zip(reversed(found), known["segments"], masks(known), strict=True):
            left, top, width, height = (int(mask.attrib[name]) for name in ("left", "top", "width", "height"))
            counts = [int(count) for count in mask.attrib["rle"].split(",")]
            drawn = np.zeros((HEIGHT, WIDTH), bool)
            pixels = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
            drawn[top : top + height, left : left + width] = pixels.reshape(height, width)
            assert np.array_equal(drawn, expected)
            assert mask.attrib["label"] == there["label"]


def test_voc_has_classes_objects_and_boxes_of_things(apart: str, tmp_path: Path) -> None:
    export(apart, tmp_path / "out", "voc", task="panoptic")
    lines = (tmp_path / "out" / "labelmap.txt").read_text().splitlines()
    assert lines[1:] == ["background:0,0,0::", "person:128,0,0::", "dog:0,128,0::", "sky:128,128,0::", "road:0,0,128::"]
    assert colour(255) == (224, 224, 192)  # VOC's void
    assert (tmp_path / "out" / "ImageSets" / "Segmentation" / "default.txt").read_text().split() == sorted(STEMS)
    rows = newest(apart, "panoptic")
    for stem, name in STEMS.items():
        classes = np.asarray(Image.open(tmp_path / "out" / "SegmentationClass" / f"{stem}.png"))
        objects = np.asarray(Image.open(tmp_path / "out" / "SegmentationObject" / f"{stem}.png"))
        root = ElementTree.parse(tmp_path / "out" / "Annotations" / f"{stem}.xml").getroot()
        things = [(mask, known) for mask, known in zip(masks(rows[name]), rows[name]["segments"], strict=True) if known["isthing"]]
        assert objects.max() == len(things) == len(root.findall("object"))
        for number, ((mask, known), box) in enumerate(zip(things, root.iterfind("object"), strict=True), 1):
            assert np.array_equal(objects == number, mask)
            assert set(classes[mask]) == {1 + list(LABELS).index(known["label_id"])}
            rows_, columns = np.nonzero(mask)
            limits = [columns.min() + 1, rows_.min() + 1, columns.max() + 1, rows_.max() + 1]
            assert [int(box.findtext(f"bndbox/{side}") or 0) for side in ("xmin", "ymin", "xmax", "ymax")] == limits


@pytest.mark.slow
def test_background_is_no_object_unless_it_is_asked_for(tmp_path: Path) -> None:
    table, whole = str(tmp_path / "masks"), rectangle(HEIGHT, WIDTH, slice(0, HEIGHT), slice(0, WIDTH))
    person = rectangle(HEIGHT, WIDTH, slice(2, 9), slice(2, 9))
    background = replace(labelled(2, whole & ~person, 20), label="background", isthing=False)
    commit(table, "run-1", {"a.jpg": {"semantic": [labelled(1, person, 0), background]}})
    for form in ("yolo-seg", "geojson", "cvat", "label-studio", "fiftyone"):
        assert export(table, tmp_path / form, form)["segments"] == 1
        assert export(table, tmp_path / f"{form} all", form, label=["person", "background"])["segments"] == 2
    for form in ("coco-instances", "voc"):
        assert export(table, tmp_path / form, form)["segments"] == 2
    assert (tmp_path / "voc" / "labelmap.txt").read_text().count("background") == 1


@pytest.mark.slow
def test_pictures_are_cut_and_painted_and_those_that_are_gone_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (6, 4), (9, 9, 9)).save(folder / "a.png")
    uris = [normalise(str(folder / name)) for name in ("a.png", "gone.png")]
    answer = {"panoptic": [segment(1, rectangle(4, 6, slice(0, 2), slice(1, 4)))]}
    made = Table.open_or_create(str(tmp_path / "masks"), ["task"])
    made.begin_run(normalise(str(folder)), "run-1")
    made.commit(write_rows(build_rows(images(uris), [answer] * 2, stamp(), ["task"]), made.uri, ["task"], "run-1"))
    made.finish_run()
    said: list[str] = []
    export(str(tmp_path / "masks"), tmp_path / "cut", "cutouts", said)
    export(str(tmp_path / "masks"), tmp_path / "painted", "overlays", said)
    export(str(tmp_path / "masks"), tmp_path / "copied", "cvat", said, copy_images=True)
    assert files(tmp_path / "cut") == {"_export.json", "cutouts/a/0001-label_3.png"}
    cut = np.asarray(Image.open(tmp_path / "cut" / "cutouts" / "a" / "0001-label_3.png"))
    assert (cut.shape, cut.max(axis=(0, 1)).tolist()) == ((2, 3, 4), [9, 9, 9, 255])
    assert files(tmp_path / "painted") == {"_export.json", "overlays/a.jpg"}
    assert files(tmp_path / "copied") == {"_export.json", "annotations.xml", "images/a.png"}
    assert sum("1 image that could not be read" in line and "gone.png" in line for line in said) == 3


def test_settings_that_a_format_has_no_use_for_are_refused(table: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="--simplify 1: cvat has no polygons"):
        export(table, tmp_path / "out", "cvat", simplify=1)
    with pytest.raises(Refused, match="--copy-images: geojson has no place for images"):
        export(table, tmp_path / "out", "geojson", copy_images=True)
