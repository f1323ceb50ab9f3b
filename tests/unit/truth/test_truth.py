"""Ground truth in its formats: what is read, what is refused, and what the arrays hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from masklake.errors import Refused
from masklake.quality.semantic import NONE
from masklake.schema import Task
from masklake.truth import label_names
from masklake.truth import open as opening
from masklake.truth.classes import Classes, classes_for, judged_classes
from masklake.truth.formats import Truth
from masklake.truth.regions import Regions, class_map, instances, regions
from masklake.truth.settings import Format, TruthConfig

IDS = np.array([[0, 300, 300, 70000], [0, 300, 9, 70000], [9, 9, 9, 70000]])
CATEGORIES = [{"id": 5, "name": "dog", "isthing": 1}, {"id": 6, "name": "sky", "isthing": 0}, {"id": 8, "name": "cloud", "isthing": 0}]


def write_panoptic(folder: Path, segments: list[dict[str, Any]], ids: NDArray[Any] = IDS) -> str:
    (folder / "truth").mkdir()
    Image.fromarray(np.stack((ids & 255, ids >> 8 & 255, ids >> 16), -1).astype(np.uint8)).save(folder / "truth" / "a.png")
    found = {
        "images": [{"id": 3, "file_name": "a.jpg", "height": ids.shape[0], "width": ids.shape[1]}],
        "annotations": [{"image_id": 3, "file_name": "a.png", "segments_info": segments}],
        "categories": CATEGORIES,
    }
    (folder / "truth.json").write_text(json.dumps(found))
    return str(folder / "truth.json")


def segment(segment_id: int, category_id: int, iscrowd: int = 0) -> dict[str, Any]:
    return {"id": segment_id, "category_id": category_id, "iscrowd": iscrowd}


def open_truth(uri: str, **settings: Any) -> Truth:
    return opening.open_truth(TruthConfig(truth=uri, **settings))


def regions_of(truth: Truth, classes: Classes | None = None) -> Regions:
    return regions(truth.coding.read(truth.images[0]), classes or classes_of(truth))


def labels_of(truth: Truth, classes: Classes | None = None) -> Any:
    """The class map of the first image."""
    return class_map(truth.coding.read(truth.images[0]), (classes or classes_of(truth)).of_category).tolist()


def classes_of(truth: Truth, mapping: dict[str, str | None] | None = None, background: bool = False) -> Classes:
    return judged_classes(truth.categories, mapping or {}, background=background)


class TestPanoptic:
    def test_ids_are_colours_and_void_is_black(self, tmp_path: Path) -> None:
        truth = open_truth(write_panoptic(tmp_path, [segment(300, 5), segment(70000, 5, 1), segment(9, 6)]))
        assert (truth.format, truth.images[0].name, truth.images[0].size) == (Format.PANOPTIC, "a.jpg", (3, 4))
        found = regions_of(truth)
        np.testing.assert_array_equal(found.ids, np.select([IDS == 300, IDS == 70000, IDS == 9], [1, 2, 3]))  # in the JSON's order
        assert found.labels == {1: 0, 2: 0, 3: 1}
        assert found.crowds == {2}
        assert labels_of(truth) == [[NONE, 0, 0, 0], [NONE, 0, 1, 0], [1, 1, 1, 0]]

    def test_stuff_that_becomes_one_class_becomes_one_segment_and_what_is_not_judged_void(self, tmp_path: Path) -> None:
        truth = open_truth(write_panoptic(tmp_path, [segment(300, 8), segment(70000, 5), segment(9, 6)]))
        found = regions_of(truth, classes_of(truth, {"cloud": "Sky", "dog": None}))
        assert len(found.labels) == 1
        np.testing.assert_array_equal(found.ids > 0, (IDS == 300) | (IDS == 9))
        assert len(np.unique(found.ids)) == 2

    def test_things_that_become_one_class_stay_apart(self, tmp_path: Path) -> None:
        truth = open_truth(write_panoptic(tmp_path, [segment(300, 5), segment(70000, 5), segment(9, 5)]))
        assert regions_of(truth, classes_of(truth, {"dog": "animal"})).labels == {1: 0, 2: 0, 3: 0}

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"id": 0}, "segment 0 of image 3: an id must be 1 to 16777215; black"),
            ({"id": None}, "segment at place 0 of image 3 has no id"),
            ({"category_id": None}, "segment 300 of image 3 has no category_id"),
            ({"category_id": 1}, "segment 300 of image 3 has category_id 1, which is not in categories"),
            ({"id": 9}, "has in image 3 segment 9 twice"),
        ],
    )
    def test_what_a_segment_lacks_is_named(self, tmp_path: Path, change: dict[str, Any], message: str) -> None:
        changed = {name: value for name, value in {**segment(300, 5), **change}.items() if value is not None}
        with pytest.raises(Refused, match=message):
            open_truth(write_panoptic(tmp_path, [changed, segment(70000, 5), segment(9, 6)]))

    @pytest.mark.parametrize("part", ["images", "annotations"])
    def test_a_name_that_leads_out_of_its_folder_is_refused(self, tmp_path: Path, part: str) -> None:
        uri = write_panoptic(tmp_path, [segment(300, 5), segment(70000, 5), segment(9, 6)])
        content = json.loads(Path(uri).read_text())
        content[part][0]["file_name"] = "x/../../secret.png"
        Path(uri).write_text(json.dumps(content))
        with pytest.raises(Refused, match=r"'x/../../secret.png', which leads out of its folder"):
            open_truth(uri)

    def test_the_pngs_may_lie_elsewhere_and_things_have_an_ap(self, tmp_path: Path) -> None:
        uri = write_panoptic(tmp_path, [segment(300, 5), segment(70000, 5, 1), segment(9, 6)])
        (tmp_path / "truth").rename(tmp_path / "pngs")
        truth = open_truth(uri, masks=str(tmp_path / "pngs"))
        found = instances(truth.coding.read(truth.images[0]), classes_for(truth, Task.INSTANCE, {}))
        assert [(each.area, each.crowd) for each in found] == [(3, False), (3, True)]
        np.testing.assert_array_equal(coco_mask.decode(found[0].mask), IDS == 300)

    @pytest.mark.parametrize(
        ("segments", "message"),
        [
            ([segment(300, 5), segment(9, 6)], "segment 70000 is in the PNG and not in the JSON"),
            ([segment(300, 5), segment(9, 6), segment(70000, 5), segment(4, 5)], "segment 4 is in the JSON and not in the PNG"),
        ],
    )
    def test_a_png_and_a_json_that_disagree_are_refused(self, tmp_path: Path, segments: list[dict[str, Any]], message: str) -> None:
        truth = open_truth(write_panoptic(tmp_path, segments))
        with pytest.raises(Refused, match=message):
            regions_of(truth)


class TestInstances:
    def test_all_kinds_of_masks_are_read_as_pycocotools_reads_them(self, tmp_path: Path) -> None:
        square = np.zeros((6, 8), np.uint8)
        square[1:4, 2:6] = 1
        encoded = coco_mask.encode(np.asfortranarray(square))
        compressed = {"size": [6, 8], "counts": encoded["counts"].decode()}
        numbers = {"size": [6, 8], "counts": [13, 3, 3, 3, 3, 3, 3, 3, 14]}
        polygon = [[2, 1, 6, 1, 6, 4, 2, 4]]
        truth = open_truth(self._write(tmp_path, [(compressed, 0), (numbers, 1), (polygon, 0)]))
        found = instances(truth.coding.read(truth.images[0]), classes_of(truth))
        for each in found:
            np.testing.assert_array_equal(coco_mask.decode(each.mask), square)
        assert [each.crowd for each in found] == [False, True, False]
        assert [each.area for each in found] == [12, 12, 11.5]  # as the file says, else the mask's

    def test_as_a_class_map_smaller_ones_lie_on_top_and_the_rest_is_not_judged(self, tmp_path: Path) -> None:
        truth = open_truth(self._write(tmp_path, [([[0, 0, 4, 0, 4, 6, 0, 6]], 0), ([[2, 2, 6, 2, 6, 4, 2, 4]], 0)], [5, 6]))
        expected = [[0, 0, 0, 0, NONE], [0, 0, 1, 1, 1]]
        found = labels_of(truth)
        assert [found[0][:5], found[2][:5]] == expected
        named = classes_of(truth, {"background": "background", "sky": None}, background=True)
        found = labels_of(truth, named)
        background = named.of_label("background")
        assert [found[0][:5], found[2][:5]] == [[0, 0, 0, 0, background], [0, 0, NONE, NONE, NONE]]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("[1]", "has no list of images"),
            ('{"images": [], "annotations": [7], "categories": []}', "has no list of annotations"),
            ("{", "is not JSON"),
        ],
    )
    def test_a_file_that_is_no_coco_json_is_refused(self, tmp_path: Path, text: str, message: str) -> None:
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(Refused, match=message):
            open_truth(str(tmp_path / "a.json"))

    @pytest.mark.parametrize(
        ("where", "change", "message"),
        [
            ("images", {"height": None}, "image 1 has no height"),
            ("images", {"width": "wide"}, "image 1 has width 'wide', which is not a whole number"),
            ("images", {"width": 0}, "image 1 has height 6 and width 0"),
            ("images", {"file_name": None}, "image 1 has no file_name"),
            ("images", {"id": None}, r"the image a\.jpg has no id"),
            ("annotations", {"category_id": None}, "annotation 1 has no category_id"),
            ("annotations", {"category_id": 77}, "annotation 1 has category_id 77, which is not in categories"),
            ("annotations", {"image_id": None}, "annotation 1 has no image_id"),
            ("annotations", {"image_id": 2}, "annotation 1 has image_id 2, which is not in images"),
            ("annotations", {"area": "large"}, "annotation 1 has area 'large', which is not a number"),
            ("annotations", {"segmentation": {"counts": None}}, "the mask of annotation 1 is not one of COCO's kinds"),
            ("annotations", {"segmentation": [[0, 0, 4, 0, 4, 6, 1]]}, "the mask of annotation 1 has a polygon that is not a list of x, y"),
            ("annotations", {"segmentation": {"size": [6, 8], "counts": [3, 4]}}, "has runs that do not add up to the 48 pixels"),
            ("annotations", {"segmentation": {"size": [8, 6], "counts": [48]}}, r"has the size \[8, 6\], and its image \[6, 8\]"),
            ("categories", {"id": None}, "category 'dog' has no id"),
            ("categories", {"name": None}, "category 5 has no name"),
            ("categories", {"name": "sky"}, "has category sky twice"),
        ],
    )
    def test_what_an_entry_lacks_is_named_by_file_entry_and_key(
        self, tmp_path: Path, where: str, change: dict[str, Any], message: str
    ) -> None:
        path = self._write(tmp_path, [([[0, 0, 4, 0, 4, 6]], 0)])
        found = json.loads(Path(path).read_text())
        found[where][0] = {name: value for name, value in {**found[where][0], **change}.items() if value is not None}
        Path(path).write_text(json.dumps(found))
        with pytest.raises(Refused, match=rf"--truth file://{path}: .*{message}"):
            open_truth(path)

    @pytest.mark.parametrize(
        "mask", [[], None, [[1, 1, 4, 4]], [[1, 1]], {"size": [6, 8], "counts": [48]}, {"size": [6, 8], "counts": "`1"}]
    )
    def test_an_annotation_without_a_mask_is_left_out_and_counted(self, tmp_path: Path, mask: Any) -> None:
        truth = open_truth(self._write(tmp_path, [(mask, 0), ([[0, 0, 4, 0, 4, 6]], 0)]))
        assert [each.id for each in truth.images[0].segments] == [2]
        assert list(truth.left_out.values()) == [1]

    def test_a_polygon_of_two_points_among_others_is_no_box(self, tmp_path: Path) -> None:
        """Of four numbers pycocotools makes a box, and then takes all polygons of the annotation for boxes."""
        square = [2, 1, 6, 1, 6, 4, 2, 4]
        truth = open_truth(self._write(tmp_path, [([[0, 0, 8, 6], square], 0), (square, 0)]))
        assert [each.area for each in instances(truth.coding.read(truth.images[0]), classes_of(truth))] == [12, 12]

    def test_another_format_than_the_one_asked_for_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(Refused, match=r"--format coco-panoptic: .* looks like coco-instances"):
            open_truth(self._write(tmp_path, [([[0, 0, 4, 0, 4, 6]], 0)]), format="coco-panoptic")
        with pytest.raises(Refused, match=r"--labels x\.json: is not for coco-instances, as which .*instances\.json is read"):
            open_truth(str(tmp_path / "instances.json"), labels="x.json")

    def _write(self, folder: Path, masks: list[tuple[Any, int]], categories: list[int] | None = None) -> str:
        annotations = [
            {"id": number, "image_id": 1, "category_id": (categories or [5] * 9)[number - 1], "segmentation": mask, "iscrowd": crowd}
            | ({"area": 11.5} if number == 3 else {})
            for number, (mask, crowd) in enumerate(masks, 1)
        ]
        image = {"id": 1, "file_name": "a.jpg", "height": 6, "width": 8}
        path = folder / "instances.json"
        path.write_text(json.dumps({"images": [image], "annotations": annotations, "categories": CATEGORIES}))
        return str(path)


class TestLabelMaps:
    def test_values_have_names_and_one_is_not_judged(self, tmp_path: Path) -> None:
        self._write(tmp_path, np.array([[0, 2, 255]], np.uint8))
        (tmp_path / "labels.csv").write_text("id,name,colour\n0,sky,blue\n2,road,grey\n")
        truth = open_truth(str(tmp_path))
        assert (truth.format, truth.images[0].name) == (Format.LABEL_MAPS, "day/a")
        assert labels_of(truth) == [[0, 1, NONE]]
        other = open_truth(str(tmp_path), ignore_index=2)
        assert [category.name for category in other.categories] == ["sky"]
        with pytest.raises(Refused, match=r"has pixels of value 255, which has no name and is not ignored \(ignored: 2\)"):
            labels_of(other)
        assert labels_of(open_truth(str(tmp_path), ignore_index="2,255")) == [[0, NONE, NONE]]

    def test_several_values_may_have_one_name(self, tmp_path: Path) -> None:
        self._write(tmp_path, np.array([[0, 2, 7]], np.uint8))
        (tmp_path / "labels.json").write_text('{"0": "car", "2": "road", "7": "car"}')
        truth = open_truth(str(tmp_path))
        assert [category.name for category in truth.categories] == ["car", "road"]
        assert labels_of(truth) == [[0, 1, 0]]
        assert regions_of(truth, classes_of(truth)).labels == {1: 0, 2: 1}

    def test_one_bit_is_0_and_1(self, tmp_path: Path) -> None:
        (tmp_path / "labels.json").write_text('["background", "lesion"]')
        (tmp_path / "day").mkdir()
        Image.fromarray(np.array([[False, True]])).save(tmp_path / "day" / "a.png")
        assert Image.open(tmp_path / "day" / "a.png").mode == "1"
        assert labels_of(open_truth(str(tmp_path))) == [[0, 1]]

    def test_a_value_that_the_user_named_is_a_class(self, tmp_path: Path) -> None:
        self._write(tmp_path, np.array([[0, 255]], np.uint8))
        (tmp_path / "labels.json").write_text('{"0": "background", "255": "lesion"}')
        assert labels_of(open_truth(str(tmp_path))) == [[0, 1]]
        assert labels_of(open_truth(str(tmp_path), ignore_index=255)) == [[0, NONE]]  # unless the user says otherwise

    def test_palettes_and_16_bits_are_values_and_colours_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "labels.txt").write_text("0 sky\n700 road\n")
        self._write(tmp_path, np.array([[0, 700]], np.uint16))
        truth = open_truth(str(tmp_path))
        assert labels_of(truth) == [[0, 1]]
        palette = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("P")
        palette.putpalette([9, 9, 9] * 256)
        palette.save(tmp_path / "day" / "a.png")
        assert labels_of(truth) == [[0, NONE]]
        self._write(tmp_path, np.array([[[0, 0, 0], [700 >> 8, 700 >> 8, 700 >> 8]]], np.uint8))
        (tmp_path / "labels.txt").write_text("0 sky\n2 road\n")
        assert labels_of(open_truth(str(tmp_path))) == [[0, 1]]  # three channels that are the same
        self._write(tmp_path, np.array([[[0, 1, 0]]], np.uint8))
        with pytest.raises(Refused, match="is in colour"):
            labels_of(truth)
        (tmp_path / "day" / "a.png").write_bytes(b"no picture")
        with pytest.raises(Refused, match="cannot be read as a picture of labels"):
            labels_of(truth)

    def test_names_are_needed(self, tmp_path: Path) -> None:
        self._write(tmp_path, np.zeros((1, 1), np.uint8))
        with pytest.raises(Refused, match="give a file that says which value has which name by --labels"):
            open_truth(str(tmp_path))

    @pytest.mark.parametrize(
        ("name", "text", "expected"),
        [
            ("a.json", '{"0": "sky", "4": "road"}', ({0: "sky", 4: "road"}, None)),
            ("a.json", '{"void": 9, "bits": 8, "labels": {"0": "sky"}}', ({0: "sky"}, 9)),
            ("a.json", '["sky", "road"]', ({0: "sky", 1: "road"}, None)),
            ("a.json", '[{"id": 7, "name": "sky"}]', ({7: "sky"}, None)),
            ("a.csv", "name,id\nsky,3\n", ({3: "sky"}, None)),
            ("a.txt", "# names\nsky\nplain road\n", ({0: "sky", 1: "plain road"}, None)),
            ("a.yaml", "0: sky\n4: road\n", ({0: "sky", 4: "road"}, None)),
            ("a.txt", "0: sky\n1, plain road\n", ({0: "sky", 1: "plain road"}, None)),
        ],
    )
    def test_files_of_names(self, tmp_path: Path, name: str, text: str, expected: object) -> None:
        (tmp_path / name).write_text(text)
        found = label_names.read(str(tmp_path / name))
        assert ({each.id: each.name for each in found.named}, found.void) == expected

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            *[("a.json", "{}"), ("a.json", "3"), ("a.csv", "a,b\n1,2\n"), ("a.txt", "0 sky\nroad\n"), ("a.txt", "0 sky\n0 road")],
            *[("a.txt", ""), ("a.yaml", "- [\n"), ("a.json", '{"void": 0, "labels": {"0": "sky"}}')],
        ],
    )
    def test_files_of_names_that_are_none(self, tmp_path: Path, name: str, text: str) -> None:
        (tmp_path / name).write_text(text)
        with pytest.raises(Refused, match="--labels"):
            label_names.read(str(tmp_path / name))

    def _write(self, folder: Path, pixels: NDArray[Any]) -> None:
        (folder / "day").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / "day" / "a.png")


def test_a_folder_with_several_jsons_asks_for_one(tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(Refused, match=r"holds a\.json and b\.json: name the file"):
        open_truth(str(tmp_path))


def test_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="--truth"):
        open_truth(str(tmp_path / "absent.json"))
    with pytest.raises(Refused, match="holds no ground truth that is known here"):
        open_truth(str(tmp_path))
