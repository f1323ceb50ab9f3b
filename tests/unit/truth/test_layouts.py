"""Data sets as people have them: each layout is found out, and gives the scene that it was made from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from masklake.errors import Refused
from masklake.quality.semantic import NONE
from masklake.schema import Task
from masklake.training import sources
from masklake.training.settings import SourceConfig
from masklake.truth import map_folders
from masklake.truth import open as opening
from masklake.truth.classes import classes_for
from masklake.truth.formats import BadTruth, Truth
from masklake.truth.place import Place
from masklake.truth.regions import class_map, instances, regions
from masklake.truth.settings import TruthConfig
from tests.evaluations import LAKE, commit, evaluate, named
from tests.unit.truth import layouts
from tests.unit.truth.layouts import CAR_A, CAR_B, CROWD, NOTHING, ROAD, codes


def open_truth(uri: Path, **settings: Any) -> Truth:
    return opening.open_truth(TruthConfig(truth=str(uri), **settings))


def names_of(truth: Truth, task: Task = Task.SEMANTIC) -> NDArray[Any]:
    """The class of each pixel of the first image by name, empty where it is not judged."""
    classes = classes_for(truth, task, {})
    labels = np.array([*(each.label for each in classes.judged), ""], object)
    found = class_map(truth.coding.read(truth.images[0]), classes.of_category)
    return labels[np.where(found == NONE, len(classes.judged), found)]


def expected(of: dict[int, str]) -> NDArray[Any]:
    parts = np.full((layouts.HEIGHT, layouts.WIDTH), "", object)
    for part, name in of.items():
        parts[layouts.scene() == part] = name
    return parts


def objects(truth: Truth) -> list[tuple[int, bool]]:
    """Area and crowd of each instance of the first image."""
    found = instances(truth.coding.read(truth.images[0]), classes_for(truth, Task.INSTANCE, {}))
    return sorted((int(coco_mask.area(each.mask)), each.crowd) for each in found)


ALL = {ROAD: "road", CAR_A: "car", CAR_B: "car", CROWD: "car"}


class TestCityscapes:
    def test_instance_ids_are_panoptic_and_groups_are_crowds(self, tmp_path: Path) -> None:
        truth = open_truth(layouts.cityscapes(tmp_path / "cityscapes"))
        assert truth.format == "cityscapes"
        assert truth.coding.tasks == ("panoptic", "instance", "semantic")
        assert [each.name for each in truth.categories if each.isthing] == [
            *("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
        ]
        assert len(truth.categories) == 19
        assert (names_of(truth) == expected(ALL)).all()
        assert objects(truth) == [(6, True), (9, False), (12, False)]
        found = regions(truth.coding.read(truth.images[0]), classes_for(truth, Task.PANOPTIC, {}))
        assert len(found.labels) == 4
        assert len(found.crowds) == 1
        assert truth.images[0].name == "frankfurt/frankfurt_000000_000294_leftImg8bit"

    @pytest.mark.parametrize("kept", ["labelIds", "labelTrainIds"])
    def test_maps_of_labels_are_read_where_there_is_nothing_more(self, tmp_path: Path, kept: str) -> None:
        folder = layouts.cityscapes(tmp_path / "cityscapes")
        for path in folder.rglob("*.png"):
            if not path.name.endswith(f"{kept}.png"):
                path.unlink()
        truth = open_truth(folder / "frankfurt")
        assert truth.coding.tasks == ("semantic",)
        assert (names_of(truth) == expected(ALL)).all()

    def test_the_whole_folder_is_all_splits(self, tmp_path: Path) -> None:
        layouts.cityscapes(tmp_path / "cityscapes")
        truth = open_truth(tmp_path / "cityscapes")
        assert [image.name for image in truth.images] == ["val/frankfurt/frankfurt_000000_000294_leftImg8bit"]
        assert truth.images_at == f"file://{tmp_path}/cityscapes/leftImg8bit/"

    def test_cityscapes_own_conversion_to_coco_names_images_otherwise(self, tmp_path: Path) -> None:
        ids = codes({ROAD: 7, CAR_A: 26000, CAR_B: 26001, CROWD: 26})
        layouts.write(tmp_path / "panoptic_val" / "a_gtFine_panoptic.png", np.stack([ids % 256, ids // 256, ids * 0], -1))
        segments = [{"id": each, "category_id": 7 if each == 7 else 26, "iscrowd": int(each == 26)} for each in (7, 26, 26000, 26001)]
        content = {
            "images": [{"id": "a", "file_name": "a_gtFine_leftImg8bit.png", "height": layouts.HEIGHT, "width": layouts.WIDTH}],
            "annotations": [{"image_id": "a", "file_name": "a_gtFine_panoptic.png", "segments_info": segments}],
            "categories": [{"id": 7, "name": "road", "isthing": 0}, {"id": 26, "name": "car", "isthing": 1}],
        }
        (tmp_path / "panoptic_val.json").write_text(json.dumps(content))
        truth = open_truth(tmp_path / "panoptic_val.json")
        assert truth.images[0].name == "a_leftImg8bit.png"
        assert objects(truth) == [(6, True), (9, False), (12, False)]


class TestAde20k:
    def test_annotations_are_150_classes_with_all_their_names(self, tmp_path: Path) -> None:
        root = layouts.ade20k(tmp_path / "ADEChallengeData2016")
        for place in (root, root / "annotations" / "validation"):
            truth = open_truth(place)
            assert (truth.format, len(truth.categories), truth.coding.tasks) == ("ade20k", 150, ("semantic",))
            assert (names_of(truth) == expected(ALL)).all()
            assert (truth.images[0].name, truth.images_at) == ("validation/ADE_val_00000001", f"file://{root}/images/")
        assert truth.categories[8].aliases == ("window",)

    def test_instances_lie_over_the_stuff_of_the_annotations(self, tmp_path: Path) -> None:
        root = layouts.ade20k(tmp_path / "ADEChallengeData2016")
        truth = open_truth(root / "annotations_instance" / "validation")
        assert truth.coding.tasks == ("panoptic", "instance")
        assert len([each for each in truth.categories if each.isthing]) == 100
        assert objects(truth) == [(9, False), (12, False)]
        found = regions(truth.coding.read(truth.images[0]), classes_for(truth, Task.PANOPTIC, {}))
        road = codes({ROAD: 1}) == 1
        assert len(np.unique(found.ids[road])) == 1
        assert not found.ids[(codes({NOTHING: 1, CROWD: 1}) == 1)].any()  # the group is a thing's pixels, but no object's


class TestVoc:
    def test_classes_and_objects_with_their_borders(self, tmp_path: Path) -> None:
        root = layouts.voc(tmp_path / "VOCdevkit" / "VOC2012")
        rest = {ROAD: "background", CROWD: "background", CAR_A: "car", CAR_B: "car"}
        for place in (root, tmp_path / "VOCdevkit", root / "SegmentationClass", root / "ImageSets" / "Segmentation" / "val.txt"):
            truth = open_truth(place)
            assert (truth.format, len(truth.images), len(truth.categories)) == ("voc", 1, 21)
            assert truth.coding.tasks == ("semantic", "instance", "panoptic")
            assert (names_of(truth) == expected(rest)).all()
            assert objects(truth) == [(9, False), (12, False)]
            assert truth.images_at == f"file://{root}/JPEGImages/"
        (root / "ImageSets" / "Segmentation" / "val.txt").write_text("2007_000032\n2008_000001\n")
        with pytest.raises(Refused, match=r"1 of its 2 images has no picture in .*SegmentationClass/, such as 2008_000001"):
            open_truth(root / "ImageSets" / "Segmentation" / "val.txt")

    def test_classes_alone(self, tmp_path: Path) -> None:
        root = layouts.voc(tmp_path / "VOC2012")
        (root / "SegmentationObject" / "2007_000032.png").unlink()
        (root / "SegmentationObject").rmdir()
        assert open_truth(root).coding.tasks == ("semantic",)

    def test_cvats_segmentation_masks_are_of_the_same_layout(self, tmp_path: Path) -> None:
        truth = open_truth(layouts.cvat_masks(tmp_path / "task"))
        assert (truth.format, [each.name for each in truth.categories]) == ("voc", ["background", "car"])
        background = dict.fromkeys((NOTHING, ROAD, CROWD), "background")
        assert (names_of(truth) == expected({**background, CAR_A: "car", CAR_B: "car"})).all()
        assert objects(truth) == [(9, False), (12, False)]
        assert truth.images[0].name == "street/a"


class TestVistas:
    @pytest.mark.parametrize("version", ["", "v1.2", "v2.0"])
    def test_every_value_of_a_thing_is_an_object(self, tmp_path: Path, version: str) -> None:
        root = layouts.vistas(tmp_path / "mapillary", version)
        for place in (root, root / "validation", *([root / "validation" / version] if version else [])):
            truth = open_truth(place)
            assert (truth.format, [each.name for each in truth.categories]) == ("vistas", ["Road", "Car"])
            assert (names_of(truth) == expected({ROAD: "Road", CROWD: "Road", CAR_A: "Car", CAR_B: "Car"})).all()
            assert objects(truth) == [(9, False), (12, False)]

    def test_labels_alone(self, tmp_path: Path) -> None:
        root = layouts.vistas(tmp_path / "mapillary", "")
        (root / "validation" / "instances" / "_0Bv1hQ.png").unlink()
        (root / "validation" / "instances").rmdir()
        truth = open_truth(root)
        assert truth.coding.tasks == ("semantic",)
        assert (names_of(truth) == expected({ROAD: "Road", CROWD: "Road", CAR_A: "Car", CAR_B: "Car"})).all()


class TestYolo:
    def test_polygons_are_shares_of_the_image_and_an_image_without_a_file_has_no_objects(self, tmp_path: Path) -> None:
        root = layouts.yolo(tmp_path / "set")
        truth = open_truth(root / "labels" / "val")
        assert (truth.format, [each.name for each in truth.categories]) == ("yolo", ["car", "person"])
        assert [(image.name, len(image.pictures)) for image in truth.images] == [("a.png", 1), ("empty.png", 0)]
        assert objects(truth) == [(9, False), (12, False)]
        assert (names_of(truth) == expected({CAR_A: "car", CAR_B: "car"})).all()
        assert open_truth(root).images[0].name == "val/a.png"
        assert len(open_truth(root / "data.yaml").images) == 2
        assert open_truth(root / "labels" / "val", images=str(root / "images" / "val")).images == truth.images

    def test_names_of_label_studio_and_by_a_setting(self, tmp_path: Path) -> None:
        root = layouts.yolo(tmp_path / "set")
        (root / "data.yaml").rename(root / "other.txt")
        (root / "classes.txt").write_text("vehicle\nperson\n")
        assert open_truth(root / "labels" / "val").categories[0].name == "vehicle"
        (root / "classes.txt").unlink()
        (root / "other.txt").rename(tmp_path / "names.yaml")
        assert open_truth(root / "labels" / "val", labels=str(tmp_path / "names.yaml")).categories[0].name == "car"
        with pytest.raises(Refused, match=r"give a file that names the classes by --labels: there is no data\.yaml"):
            open_truth(root / "labels" / "val")

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("0 0.5 0.5 0.2 0.2", "line 1: is a box, as for detection, and no polygon"),
            ("7 0 0 1 0 1 1", "line 1: has class 7, which has no name"),
            ("0 0 0 1 0 1 1 1", "line 1: has 7 numbers, and a polygon has an x and a y for each point"),
        ],
    )
    def test_a_line_that_is_no_polygon_is_named(self, tmp_path: Path, line: str, message: str) -> None:
        root = layouts.yolo(tmp_path / "set")
        (root / "labels" / "val" / "a.txt").write_text(line)
        truth = open_truth(root / "labels" / "val")
        with pytest.raises(BadTruth, match=rf"a\.txt, {message}"):
            truth.coding.read(truth.images[0])
        with pytest.raises(Refused, match=rf"a\.txt, {message}.*; mend it, or give --bad-examples skip"):
            sources.read(SourceConfig(truth=str(root), validation_share=0), semantic=False)


COLOURS: dict[int, tuple[int, int, int]] = {ROAD: (128, 64, 128), CAR_A: (64, 0, 128), CAR_B: (64, 0, 128), CROWD: (64, 0, 128)}


class TestLabelColours:
    def _write(self, folder: Path, extra: tuple[int, int, int] = (0, 0, 0)) -> None:
        colours = {**COLOURS, NOTHING: extra}
        pixels = np.stack([codes({part: colour[channel] for part, colour in colours.items()}) for channel in range(3)], axis=-1)
        layouts.write(folder / "a.png", pixels)

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("class_dict.csv", "name,r,g,b\nroad, 128, 64, 128\ncar,64,0,128\nvoid,0,0,0\n"),
            ("label_colors.txt", "128 64 128\troad\n64 0 128\tcar\n0 0 0\t\tvoid\n"),
            ("labelmap.txt", "# label:color_rgb:parts:actions\nroad:128,64,128::\ncar:64,0,128::\nvoid:0,0,0::\n"),
            (
                "labels.json",
                '[{"name": "road", "color": [128, 64, 128]}, {"name": "car", "color": "#400080"}, {"name": "void", "color": "0,0,0"}]',
            ),
            ("labels.json", '{"road": [128, 64, 128], "car": [64, 0, 128], "void": [0, 0, 0]}'),
            ("labels.csv", 'id,name,colour\n0,road,"128,64,128"\n1,car,"64,0,128"\n2,void,"0,0,0"\n'),
        ],
    )
    def test_tables_of_colours_as_people_write_them(self, tmp_path: Path, name: str, text: str) -> None:
        self._write(tmp_path / "maps")
        (tmp_path / name).write_text(text)
        truth = open_truth(tmp_path / "maps")
        assert truth.format == "label-colours"
        assert (names_of(truth) == expected({**ALL, NOTHING: "void"})).all()
        assert len(classes_for(truth, Task.SEMANTIC, {"void": None}).judged) == 2

    def test_a_palette_of_these_colours_is_read_by_its_colours(self, tmp_path: Path) -> None:
        layouts.write(
            tmp_path / "maps" / "a.png", codes({ROAD: 1, CAR_A: 2, CAR_B: 2, CROWD: 2}), palette=[0, 0, 0, 128, 64, 128, 64, 0, 128]
        )
        (tmp_path / "class_dict.csv").write_text("name,r,g,b\nvoid,0,0,0\ncar,64,0,128\nroad,128,64,128\n")
        assert (names_of(open_truth(tmp_path / "maps")) == expected({**ALL, NOTHING: "void"})).all()

    def test_a_colour_without_a_name_is_named(self, tmp_path: Path) -> None:
        self._write(tmp_path / "maps", (1, 2, 3))
        (tmp_path / "labels.json").write_text('{"road": [128, 64, 128], "car": [64, 0, 128]}')
        with pytest.raises(BadTruth, match=r"a\.png: has pixels of colour \(1, 2, 3\), which has no name in --labels"):
            names_of(open_truth(tmp_path / "maps"))
        (tmp_path / "labels.json").write_text('{"0": "road"}')
        with pytest.raises(Refused, match="gives the names no colours"):
            open_truth(tmp_path / "maps", format="label-colours")


class TestInstanceIds:
    def test_red_is_the_class_and_green_the_object(self, tmp_path: Path) -> None:
        pixels = np.stack([codes({ROAD: 1, CAR_A: 2, CAR_B: 2, CROWD: 2}), codes({CAR_A: 1, CAR_B: 2}), codes({})], axis=-1)
        layouts.write(tmp_path / "ids" / "a.png", pixels)
        (tmp_path / "labels.json").write_text('{"1": "road", "2": "car"}')
        truth = open_truth(tmp_path / "ids", thing_labels="car")
        assert truth.format == "instance-ids"
        assert (names_of(truth) == expected(ALL)).all()
        assert objects(truth) == [(6, True), (9, False), (12, False)]
        assert len(regions(truth.coding.read(truth.images[0]), classes_for(truth, Task.PANOPTIC, {})).labels) == 4

    @pytest.mark.parametrize("divisor", [1000, 256])
    def test_class_times_a_number_plus_the_object(self, tmp_path: Path, divisor: int) -> None:
        ids = codes({ROAD: 1, CAR_A: 2 * divisor, CAR_B: 2 * divisor + 1, CROWD: 2})
        layouts.write(tmp_path / "ids" / "a.png", ids, "uint16")
        (tmp_path / "labels.csv").write_text("id,name,isthing\n1,road,0\n2,car,1\n")
        truth = open_truth(tmp_path / "ids", label_divisor=divisor)
        assert truth.format == "instance-ids"
        assert (names_of(truth) == expected(ALL)).all()
        assert objects(truth) == [(6, True), (9, False), (12, False)]

    def test_values_of_16_bits_that_are_all_named_are_labels(self, tmp_path: Path) -> None:
        layouts.write(tmp_path / "ids" / "a.png", codes({NOTHING: 2, ROAD: 1, CAR_A: 2000, CAR_B: 2000, CROWD: 2000}), "uint16")
        (tmp_path / "labels.json").write_text('{"1": "road", "2": "sky", "2000": "car"}')
        truth = open_truth(tmp_path / "ids")
        assert truth.format == "label-maps"
        assert open_truth(tmp_path / "ids", format="instance-ids").format == "instance-ids"  # taken at the user's word

    def test_a_class_without_a_name_is_named(self, tmp_path: Path) -> None:
        layouts.write(tmp_path / "ids" / "a.png", codes({ROAD: 1, CAR_A: 3000}), "uint16")
        (tmp_path / "labels.json").write_text('{"1": "road"}')
        truth = open_truth(tmp_path / "ids", format="instance-ids")
        with pytest.raises(BadTruth, match=r"has pixels of class 3 \(value 3000\), which has no name"):
            names_of(truth)


class TestSuffixes:
    @pytest.mark.parametrize(("suffix", "ending"), [("_mask", ".jpg"), ("-seg", ".png"), ("_gt", ".jpg")])
    def test_a_map_beside_its_image(self, tmp_path: Path, suffix: str, ending: str) -> None:
        for name in ("a", "b"):
            layouts.write(tmp_path / "set" / f"{name}{suffix}.png", codes({ROAD: 1}))
            layouts.photograph(tmp_path / "set" / f"{name}{ending}")
        (tmp_path / "set" / "labels.json").write_text('["car", "road"]')
        truth = open_truth(tmp_path / "set")
        assert [image.name for image in truth.images] == ["a", "b"]
        data, _ = sources.read(SourceConfig(truth=str(tmp_path / "set"), validation_share=0), semantic=True)
        assert [Path(example.image).name for example in data.examples] == [f"a{ending}", f"b{ending}"]

    def test_a_map_in_another_folder_is_its_own_name_or_that_without_the_suffix(self, tmp_path: Path) -> None:
        for name in ("x_left", "y_left"):
            layouts.write(tmp_path / "masks" / f"{name}.png", codes({ROAD: 1}))
            layouts.photograph(tmp_path / "images" / f"{name.removesuffix('_left')}.jpg")
        (tmp_path / "labels.json").write_text('["car", "road"]')
        settings = SourceConfig(truth=str(tmp_path / "masks"), images=str(tmp_path / "images"), validation_share=0)
        assert len(sources.read(settings, semantic=True)[0].examples) == 2
        layouts.photograph(tmp_path / "images" / "x_left.jpg")
        found = [Path(example.image).name for example in sources.read(settings, semantic=True)[0].examples]
        assert found == ["x_left.jpg", "y.jpg"]

    def test_a_suffix_that_is_asked_for(self, tmp_path: Path) -> None:
        for name in ("a_mask", "b_mask", "c"):
            layouts.write(tmp_path / f"{name}.png", codes({}))
        maps = map_folders.pictures(Place(str(tmp_path), "--truth"), "_mask")
        assert [image.name for image in maps.images()] == ["a", "b"]

    def test_images_and_masks_in_two_folders_of_one(self, tmp_path: Path) -> None:
        layouts.write(tmp_path / "set" / "masks" / "a.png", codes({ROAD: 1}))
        layouts.photograph(tmp_path / "set" / "images" / "a.png")
        (tmp_path / "set" / "labels.json").write_text('["car", "road"]')
        truth = open_truth(tmp_path / "set")
        assert (len(truth.images), truth.images_at) == (1, f"file://{tmp_path}/set/images/")


class TestCocoOfOthers:
    def test_label_studios_export(self, tmp_path: Path) -> None:
        root = layouts.label_studio(tmp_path / "project")
        truth = open_truth(root)
        assert (truth.format, truth.images[0].name, truth.images_at) == (
            "coco-instances",
            "images/3f2a9c1b-a.png",
            f"file://{root}/images/",
        )
        assert objects(truth) == [(12, False)]
        assert sum(truth.left_out.values()) == 1  # the rectangle
        data, _ = sources.read(SourceConfig(truth=str(root), validation_share=0), semantic=False)
        assert len(data.examples) == 1

    def test_cvats_export_calls_brush_masks_crowds(self, tmp_path: Path) -> None:
        root = layouts.cvat_coco(tmp_path / "task")
        assert objects(open_truth(root)) == [(9, True), (12, False)]
        assert objects(open_truth(root, crowds="objects")) == [(9, False), (12, False)]
        data, _ = sources.read(SourceConfig(truth=str(root), crowds="objects", validation_share=0), semantic=False)
        assert [len(example.shown) for example in data.examples] == [2]


MAKERS: dict[str, Callable[[Path], Path]] = {
    name: getattr(layouts, name) for name in ("cityscapes", "ade20k", "voc", "cvat_masks", "vistas", "yolo", "label_studio", "cvat_coco")
}


@pytest.mark.parametrize("name", MAKERS)
def test_every_layout_is_learned_from_with_its_images_found(tmp_path: Path, name: str) -> None:
    data, _ = sources.read(SourceConfig(truth=str(MAKERS[name](tmp_path / name)), validation_share=0), semantic=False)
    (example,) = data.examples
    sample = data.reader.load(example)
    assert sample.pixels.shape == (layouts.HEIGHT, layouts.WIDTH, 3)
    assert len(sample.masks) >= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "task", "score"), [("cityscapes", "panoptic", "pq"), ("yolo", "instance", "ap"), ("voc", "semantic", "miou")]
)
def test_an_answer_as_the_truth_scores_one(tmp_path: Path, name: str, task: str, score: str) -> None:
    """The answer is drawn from the scene, not read from the layout."""
    uri = MAKERS[name](tmp_path / name)
    truth = open_truth(uri)
    of = {"cityscapes": [(ROAD, "road"), (CAR_A, "car"), (CAR_B, "car"), (CROWD, "car")], "yolo": [(CAR_A, "car"), (CAR_B, "car")]}
    parts = of.get(name, [(CAR_A, "car"), (ROAD, "background")])
    masks = [(layouts.scene() == part, label) for part, label in parts]
    if name == "voc":
        masks = [(codes({CAR_A: 1, CAR_B: 1}) == 1, "car"), (codes({ROAD: 1, CROWD: 1}) == 1, "background")]
    answer = [named(number, mask, label, label == "car") for number, (mask, label) in enumerate(masks, 1)]
    image = truth.images[0]
    key = image.name + ("" if "." in image.name else ".jpg")
    table = commit(tmp_path / "masks", task, {LAKE + key: (answer, (layouts.HEIGHT, layouts.WIDTH))})
    found = evaluate(table, uri, task=task)
    assert found["scores"][score] == pytest.approx(1)
