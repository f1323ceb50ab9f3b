"""Small data sets in the layouts that people have, made from one scene whose truth is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HEIGHT, WIDTH = 8, 12
NOTHING, ROAD, CAR_A, CAR_B, CROWD = range(5)


def scene() -> NDArray[np.int64]:
    """Two cars on a road, a group of cars, and a corner of which nothing is known: the part of each pixel."""
    parts = np.full((HEIGHT, WIDTH), ROAD)
    parts[1:4, 1:5] = CAR_A
    parts[1:4, 6:9] = CAR_B
    parts[6:8, 0:3] = CROWD
    parts[0:2, 10:12] = NOTHING
    return parts


def codes(of: dict[int, int]) -> NDArray[np.int64]:
    """The scene with a code for each part."""
    parts = scene()
    found = np.zeros_like(parts)
    for part, code in of.items():
        found[parts == part] = code
    return found


def write(path: Path, pixels: NDArray[Any], mode: str = "uint8", palette: list[int] | None = None) -> None:
    """A picture; with a palette, of its indices."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels.astype(mode))
    if palette is not None:
        picture = picture.convert("L").convert("P")
        picture = Image.fromarray(pixels.astype(np.uint8), "P")
        picture.putpalette(palette)
    picture.save(path)


def photograph(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)).save(path)


def cityscapes(root: Path) -> Path:
    """gtFine and leftImg8bit; returns the folder of the split."""
    name = "frankfurt_000000_000294"
    ids = codes({NOTHING: 1, ROAD: 7, CAR_A: 26000, CAR_B: 26001, CROWD: 26})
    folder = root / "gtFine" / "val" / "frankfurt"
    write(folder / f"{name}_gtFine_instanceIds.png", ids, "uint16")
    write(folder / f"{name}_gtFine_labelIds.png", np.where(ids >= 1000, ids // 1000, ids))
    write(folder / f"{name}_gtFine_labelTrainIds.png", codes({NOTHING: 255, ROAD: 0, CAR_A: 13, CAR_B: 13, CROWD: 13}))
    write(folder / f"{name}_gtFine_color.png", np.zeros((HEIGHT, WIDTH, 3)))
    (folder / f"{name}_gtFine_polygons.json").write_text("{}")
    photograph(root / "leftImg8bit" / "val" / "frankfurt" / f"{name}_leftImg8bit.png")
    return root / "gtFine" / "val"


_ADE = (
    "wall|building, edifice|sky|floor, flooring|tree|ceiling|road, route|bed|windowpane, window|grass|cabinet|"
    "sidewalk, pavement|person|earth, ground|door|table|mountain|plant|curtain|chair|car, auto, automobile|water|painting|"
    "sofa, couch, lounge|shelf|house|sea|mirror|rug|field|armchair|seat|fence|desk|rock|wardrobe|lamp|bathtub, tub|"
    "railing, rail|cushion|base|box|column|signboard|chest of drawers|counter|sand|sink|skyscraper|fireplace|refrigerator|"
    "grandstand|path|stairs|runway|case|pool table|pillow|screen door|stairway|river|bridge|bookcase|blind|coffee table|"
    "toilet|flower|book|hill|bench|countertop|stove|palm|kitchen island|computer|swivel chair|boat|bar|arcade machine|hovel|"
    "bus|towel|light|truck|tower|chandelier|awning|streetlight, street lamp|booth|television receiver, tv|airplane, plane|"
    "dirt track|apparel, clothes|pole|land|bannister|escalator|ottoman|bottle|buffet|poster|stage|van|ship|fountain|"
    "conveyer belt|canopy|washer|plaything|swimming pool, pool|stool|barrel|basket|waterfall, falls|tent|bag|"
    "minibike, motorbike|cradle|oven|ball|food|step|tank|trade name|microwave|pot|animal|bicycle|lake|dishwasher|screen|"
    "blanket|sculpture|hood|sconce|vase|traffic light|tray|ashcan, trash can|fan|pier|crt screen|plate|monitor|"
    "bulletin board|shower|radiator|glass, drinking glass|clock|flag"
)
ADE_NAMES = _ADE.split("|")


def ade20k(root: Path) -> Path:
    """ADEChallengeData2016 with the instances of 2017; returns its root. Road is 7, car 21, which is the 9th of the 100 things."""
    lines = [f"{place}\t0.1\t1\t1\t{name}" for place, name in enumerate(ADE_NAMES, 1)]
    root.mkdir(parents=True)
    (root / "objectInfo150.txt").write_text("\n".join(["Idx\tRatio\tTrain\tVal\tName", *lines]))
    (root / "sceneCategories.txt").write_text("ADE_val_00000001 street\n")
    write(root / "annotations" / "validation" / "ADE_val_00000001.png", codes({NOTHING: 0, ROAD: 7, CAR_A: 21, CAR_B: 21, CROWD: 21}))
    things = np.stack([codes({CAR_A: 9, CAR_B: 9}), codes({CAR_A: 1, CAR_B: 2}), codes({})], axis=-1)
    write(root / "annotations_instance" / "validation" / "ADE_val_00000001.png", things)
    photograph(root / "images" / "validation" / "ADE_val_00000001.jpg")
    return root


VOC_PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128, 128, 0, 128, 0, 128, 128, 128, 128, 128, *[0] * 741, 224, 224, 192]


def voc(root: Path) -> Path:
    """VOC2012: palette pictures of classes (car is 7) and objects, with borders of 255; and a photograph without masks."""
    for folder, of in (
        ("SegmentationClass", {NOTHING: 255, CAR_A: 7, CAR_B: 7, CROWD: 0}),
        ("SegmentationObject", {NOTHING: 255, CAR_A: 1, CAR_B: 2, CROWD: 0}),
    ):
        write(root / folder / "2007_000032.png", codes(of), palette=VOC_PALETTE)
    for name in ("2007_000032", "2008_000001"):
        photograph(root / "JPEGImages" / f"{name}.jpg")
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("2007_000032\n")
    (root / "Annotations").mkdir()
    (root / "Annotations" / "2007_000032.xml").write_text("<annotation/>")
    return root


def cvat_masks(root: Path) -> Path:
    """CVAT's "Segmentation mask 1.1": the same layout, in colours that labelmap.txt names."""
    colours = {NOTHING: (0, 0, 0), ROAD: (0, 0, 0), CAR_A: (250, 50, 83), CAR_B: (250, 50, 83), CROWD: (0, 0, 0)}
    objects = {CAR_A: (128, 0, 0), CAR_B: (0, 128, 0)}
    for folder, of in (("SegmentationClass", colours), ("SegmentationObject", objects)):
        pixels = np.stack([codes({part: colour[channel] for part, colour in of.items()}) for channel in range(3)], axis=-1)
        write(root / folder / "street" / "a.png", pixels)
    (root / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nbackground:0,0,0::\ncar:250,50,83::\n")
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "default.txt").write_text("street/a\n")
    photograph(root / "JPEGImages" / "street" / "a.jpg")
    return root


VISTAS_LABELS = [
    {"name": "construction--flat--road", "readable": "Road", "instances": False, "evaluate": True, "color": [128, 64, 128]},
    {"name": "object--vehicle--car", "readable": "Car", "instances": True, "evaluate": True, "color": [0, 0, 142]},
    {"name": "void--unlabeled", "readable": "Unlabeled", "instances": False, "evaluate": False, "color": [0, 0, 0]},
]


def vistas(root: Path, version: str = "v2.0") -> Path:
    """Mapillary Vistas 2.0, or, with an empty version, 1.x; returns its root."""
    name, split = "_0Bv1hQ", root / "validation"
    ids = codes({NOTHING: 2 * 256, ROAD: 0, CAR_A: 256, CAR_B: 256 + 1, CROWD: 0})
    write(split / version / "instances" / f"{name}.png", ids, "uint16")
    write(split / version / "labels" / f"{name}.png", ids // 256, palette=[128, 64, 128, 0, 0, 142, 0, 0, 0])
    photograph(split / "images" / f"{name}.jpg")
    (root / f"config{'_' * bool(version)}{version}.json").write_text(json.dumps({"labels": VISTAS_LABELS, "version": "1.1"}))
    return root


def yolo(root: Path) -> Path:
    """Ultralytics' layout: images/val and labels/val, data.yaml; and an image without objects."""
    boxes = ((0, 1, 1, 5, 4), (0, 6, 1, 9, 4))
    lines = [
        f"{label} " + " ".join(f"{x / WIDTH:.6f} {y / HEIGHT:.6f}" for x, y in ((left, top), (right, top), (right, bottom), (left, bottom)))
        for label, left, top, right, bottom in boxes
    ]
    (root / "labels" / "val").mkdir(parents=True)
    (root / "labels" / "val" / "a.txt").write_text("\n".join(lines) + "\n")
    (root / "data.yaml").write_text("path: .\ntrain: images/train\nval: images/val\nnames:\n  0: car\n  1: person\n")
    for name in ("a", "empty"):
        photograph(root / "images" / "val" / f"{name}.png")
    return root


def label_studio(root: Path) -> Path:
    """Label Studio's COCO export: result.json and images/, ids from 0 on, a rectangle without a mask."""
    polygon = {
        "id": 0,
        "image_id": 0,
        "category_id": 0,
        "segmentation": [[1.0, 1.0, 5.0, 1.0, 5.0, 4.0, 1.0, 4.0]],
        "ignore": 0,
        "iscrowd": 0,
    }
    rectangle = {"id": 1, "image_id": 0, "category_id": 0, "segmentation": [], "bbox": [6, 1, 3, 3], "ignore": 0, "iscrowd": 0, "area": 9}
    content = {
        "images": [{"width": WIDTH, "height": HEIGHT, "id": 0, "file_name": "images\\3f2a9c1b-a.png"}],
        "categories": [{"id": 0, "name": "car"}],
        "annotations": [{**polygon, "bbox": [1, 1, 4, 3], "area": 12.0}, rectangle],
        "info": {"year": 2026, "version": "1.0", "contributor": "Label Studio"},
    }
    photograph(root / "images" / "3f2a9c1b-a.png")
    (root / "result.json").write_text(json.dumps(content))
    return root


def cvat_coco(root: Path) -> Path:
    """CVAT's "COCO 1.0": annotations/instances_default.json; a brush mask is run lengths in numbers, and called a crowd."""
    mask = (codes({CAR_B: 1}) == 1).T.reshape(-1)
    edges = np.flatnonzero(np.diff(mask.astype(int), prepend=0))
    counts = np.diff([0, *edges, mask.size]).tolist()
    polygon = {"segmentation": [[1.0, 1.0, 5.0, 1.0, 5.0, 4.0, 1.0, 4.0]], "area": 12.0, "bbox": [1, 1, 4, 3], "iscrowd": 0}
    brush = {"segmentation": {"counts": counts, "size": [HEIGHT, WIDTH]}, "area": 9.0, "bbox": [6, 1, 3, 3], "iscrowd": 1}
    content = {
        "licenses": [{"name": "", "id": 0, "url": ""}],
        "info": {"contributor": "", "date_created": "", "description": "", "url": "", "version": "", "year": ""},
        "categories": [{"id": 1, "name": "car", "supercategory": ""}],
        "images": [{"id": 1, "width": WIDTH, "height": HEIGHT, "file_name": "street/a.png", "coco_url": "", "date_captured": 0}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": 1, **each, "attributes": {"occluded": False}}
            for number, each in enumerate((polygon, brush), 1)
        ],
    }
    (root / "annotations").mkdir(parents=True)
    (root / "annotations" / "instances_default.json").write_text(json.dumps(content))
    photograph(root / "images" / "street" / "a.png")
    return root
