"""What other programs' own readers make of an export, each in an environment of its own, which none of the project's is.

`MASKLAKE_READERS` names a folder of virtual environments: geopandas, datumaro, label-studio (label-studio-sdk), fiftyone, and for
ultralytics a folder with its unpacked wheel and OpenCV, which runs with this environment's torch. A test whose reader is not there is
skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from masklake.storage import normalise
from masklake.table.append import Table
from masklake.table.rows import build_rows
from masklake.table.write import write_rows
from tests.answers import images, rectangle, segment, stamp
from tests.exports import export

HEIGHT, WIDTH = 120, 160
UP, ACROSS = np.indices((HEIGHT, WIDTH))
RING = (np.hypot(UP - 50, ACROSS - 60) < 40) & (np.hypot(UP - 50, ACROSS - 60) > 18)
TWO_PARTS = rectangle(HEIGHT, WIDTH, slice(95, 118), slice(5, 60)) | rectangle(HEIGHT, WIDTH, slice(100, 118), slice(90, 150))
DISC = np.hypot(UP - 50, ACROSS - 60) < 15
SHAPES = {"label 3": RING, "label 4": TWO_PARTS, "label 5": DISC}


def reader(name: str, program: str, *arguments: str) -> Any:
    """The JSON that a program prints as its last line, run in that environment."""
    root = os.environ.get("MASKLAKE_READERS")
    folder = Path(root or "nowhere") / name
    if not folder.is_dir():
        pytest.skip(f"needs {name} in an environment of its own: MASKLAKE_READERS={root}, a folder of environments")
    python = folder / "bin" / "python"
    paths = {"PYTHONPATH": str(folder)} if not python.exists() else {"PYTHONPATH": ""}
    done = subprocess.run(
        [str(python) if python.exists() else sys.executable, "-c", program, *arguments],
        env={**os.environ, **paths, "YOLO_CONFIG_DIR": arguments[0], "FIFTYONE_DO_NOT_TRACK": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with a ring, a disc in it, and an object of two parts."""
    folder = tmp_path_factory.mktemp("lake")
    (folder / "images").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT), (90, 90, 90)).save(folder / "images" / "a.png")
    asked = images([normalise(str(folder / "images" / "a.png"))], width=[WIDTH], height=[HEIGHT])
    answer = {"panoptic": [segment(number, mask, number + 2) for number, mask in enumerate(SHAPES.values(), 1)]}
    made = Table.open_or_create(str(folder / "masks"), ["task"])
    made.begin_run(normalise(str(folder)), "run-1")
    made.commit(write_rows(build_rows(asked, [answer], stamp(), ["task"]), made.uri, ["task"], "run-1"))
    made.finish_run()
    return str(folder / "masks")


def iou(one: np.ndarray[Any, Any], two: np.ndarray[Any, Any]) -> float:
    return float((one & two).sum() / (one | two).sum())


def test_shapely_and_geopandas_read_the_geojson(table: str, tmp_path: Path) -> None:
    export(table, tmp_path / "out", "geojson", task="panoptic", simplify=0)
    program = """
import json, sys, geopandas
frame = geopandas.read_file(sys.argv[1], engine="pyogrio")
print(json.dumps({"valid": bool(frame.is_valid.all()), "areas": dict(zip(frame.label, frame.area)),
                  "holes": {label: len(shape.interiors) for label, shape in zip(frame.label, frame.geometry)
                            if shape.geom_type == "Polygon"}}))
"""
    found = reader("geopandas", program, str(tmp_path / "out" / "geojson" / "a.geojson"))
    assert found["valid"]
    assert found["areas"] == {label: float(mask.sum()) for label, mask in SHAPES.items()}
    assert found["holes"] == {"label 3": 1, "label 5": 0}


def test_datumaro_reads_the_cvat_xml_and_the_voc_folders(table: str, tmp_path: Path) -> None:
    program = """
import json, sys, numpy
from datumaro.components.dataset import Dataset
from datumaro.components.annotation import AnnotationType
found = Dataset.import_from(sys.argv[1], sys.argv[2])
names = [each.name for each in found.categories()[AnnotationType.label]]
masks = [(names[each.label], numpy.asarray(each.image).astype(int).tolist()) for item in found for each in item.annotations
         if each.type is AnnotationType.mask]
print(json.dumps(masks))
"""
    for form in ("cvat", "voc"):
        export(table, tmp_path / form, form, task="panoptic", copy_images=True)
        found = reader("datumaro", program, str(tmp_path / form), form)
        assert sorted(label for label, _ in found) == sorted(SHAPES)
        for label, mask in found:
            assert np.array_equal(np.array(mask, bool), SHAPES[label])


def test_label_studios_converter_reads_its_tasks(table: str, tmp_path: Path) -> None:
    export(table, tmp_path / "out", "label-studio", task="panoptic", simplify=0)
    program = """
import json, pathlib, sys
from label_studio_sdk.converter import Converter
folder = pathlib.Path(sys.argv[1])
tasks = json.loads((folder / "tasks.json").read_text())
for task in tasks:  # as they are once somebody has accepted them
    task["annotations"] = [{**each, "id": 1, "completed_by": 1, "was_cancelled": False} for each in task.pop("predictions")]
(folder / "accepted").mkdir()
(folder / "accepted" / "tasks.json").write_text(json.dumps(tasks))
converter = Converter(config=str(folder / "labels.xml"), project_dir=None, download_resources=False)
converter.convert_to_coco(str(folder / "accepted"), str(folder / "coco"), is_dir=True)
print(json.dumps(json.loads((folder / "coco" / "result.json").read_text())))
"""
    found = reader("label-studio", program, str(tmp_path / "out"))
    names = {each["id"]: each["name"] for each in found["categories"]}
    assert len(found["annotations"]) == 3
    for each in found["annotations"]:
        drawn = coco_mask.decode(coco_mask.frPyObjects(each["segmentation"], HEIGHT, WIDTH))[..., 0].astype(bool)
        assert iou(drawn, SHAPES[names[each["category_id"]]]) > 0.99


def test_fiftyone_reads_the_masks(table: str, tmp_path: Path) -> None:
    export(table, tmp_path / "out", "fiftyone", task="panoptic", copy_images=True)
    program = """
import json, pathlib, sys
from fiftyone.core.labels import Detections  # a whole dataset goes through MongoDB
samples = json.loads((pathlib.Path(sys.argv[1]) / "samples.json").read_text())["samples"]
print(json.dumps([[sample["filepath"], [[each.label, each.bounding_box, each.confidence, each.mask.astype(int).tolist()]
                   for each in Detections.from_dict(sample["masklake"]).detections]] for sample in samples]))
"""
    ((path, detections),) = reader("fiftyone", program, str(tmp_path / "out"))
    assert (tmp_path / "out" / path).is_file()
    for label, (x, y, width, height), confidence, mask in detections:
        left, top = round(x * WIDTH), round(y * HEIGHT)
        drawn = np.zeros((HEIGHT, WIDTH), bool)
        drawn[top : top + round(height * HEIGHT), left : left + round(width * WIDTH)] = np.array(mask, bool)
        assert np.array_equal(drawn, SHAPES[label])
        assert confidence == 0.5


def test_ultralytics_loads_the_labels(table: str, tmp_path: Path) -> None:
    export(table, tmp_path / "out", "yolo-seg", task="panoptic", copy_images=True)
    program = """
import importlib.metadata, json, sys
known = importlib.metadata.version
importlib.metadata.version = lambda name: "0.0.0" if name == "torchvision" else known(name)  # asked for, and not needed for labels
from ultralytics.data.utils import polygon2mask, verify_image_label
folder = sys.argv[1]
_, rows, size, segments, _, missing, found, empty, corrupt, message = verify_image_label(
    (f"{folder}/images/a.png", f"{folder}/labels/a.txt", "", False, 3, 0, 0, False))
masks = [polygon2mask(size, [(segment * (size[1], size[0])).reshape(-1)]).tolist() for segment in segments]
print(json.dumps([[missing, found, empty, corrupt, message], [int(row[0]) for row in rows], masks]))
"""
    told, classes, drawn = reader("ultralytics", program, str(tmp_path / "out"))
    assert told == [0, 1, 0, 0, ""]
    assert sorted(classes) == [0, 1, 2]
    for number, mask in zip(classes, drawn, strict=True):
        # OpenCV's filling takes the pixels on the line and the cuts as well: half a pixel more all around
        assert iou(np.array(mask, bool), list(SHAPES.values())[number]) > 0.88
