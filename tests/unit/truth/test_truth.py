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
from masklake.truth import label_names
from masklake.truth.classes import Classes, judged_classes
from masklake.truth.formats import Format, Truth
from masklake.truth.open import open_truth
from masklake.truth.regions import class_map, instances, regions

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


def classes_of(truth: Truth, mapping: dict[str, str | None] | None = None, **settings: bool) -> Classes:
    return judged_classes(truth.categories, mapping or {}, **settings)


class TestPanoptic:
    def test_ids_are_colours_and_void_is_black(self, tmp_path: Path) -> None:
        truth = open_truth(write_panoptic(tmp_path, [segment(300, 5), segment(70000, 5, 1), segment(9, 6)]))
        assert (truth.format, truth.images[0].name, truth.images[0].size) == (Format.PANOPTIC, "a.jpg", (3, 4))
        found = regions(truth.images[0], classes_of(truth))
        np.testing.assert_array_equal(found.ids, IDS)
        assert found.labels == {300: 0, 70000: 0, 9: 1}
        assert found.crowds == {70000}
        labels = class_map(truth.images[0], truth.format, classes_of(truth), None)
        assert labels.tolist() == [[NONE, 0, 0, 0], [NONE, 0, 1, 0], [1, 1, 1, 0]]

    def test_stuff_that_becomes_one_class_becomes_one_segment_and_what_is_not_judged_void(self, tmp_path: Path) -> None:
        truth = open_truth(write_panoptic(tmp_path, [segment(300, 8), segment(70000, 5), segment(9, 6)]))
        found = regions(truth.images[0], classes_of(truth, {"cloud": "Sky", "dog": None}))
        assert len(found.labels) == 1
        np.testing.assert_array_equal(found.ids > 0, (IDS == 300) | (IDS == 9))
        assert len(np.unique(found.ids)) == 2

    def test_things_that_become_one_class_stay_apart(self, tmp_path: Path) -> None:
        truth = open_truth(write_panoptic(tmp_path, [segment(300, 5), segment(70000, 5), segment(9, 5)]))
        assert regions(truth.images[0], classes_of(truth, {"dog": "animal"})).labels == {300: 0, 70000: 0, 9: 0}

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
            regions(truth.images[0], classes_of(truth))


class TestInstances:
    def test_all_kinds_of_masks_are_read_as_pycocotools_reads_them(self, tmp_path: Path) -> None:
        square = np.zeros((6, 8), np.uint8)
        square[1:4, 2:6] = 1
        encoded = coco_mask.encode(np.asfortranarray(square))
        compressed = {"size": [6, 8], "counts": encoded["counts"].decode()}
        numbers = {"size": [6, 8], "counts": [13, 3, 3, 3, 3, 3, 3, 3, 14]}
        polygon = [[2, 1, 6, 1, 6, 4, 2, 4]]
        truth = open_truth(self._write(tmp_path, [(compressed, 0), (numbers, 1), (polygon, 0)]))
        found = instances(truth.images[0], classes_of(truth))
        for each in found:
            np.testing.assert_array_equal(coco_mask.decode(each.mask), square)
        assert [each.crowd for each in found] == [False, True, False]
        assert [each.area for each in found] == [12, 12, 11.5]  # as the file says, else the mask's

    def test_as_a_class_map_smaller_ones_lie_on_top_and_the_rest_is_not_judged(self, tmp_path: Path) -> None:
        truth = open_truth(self._write(tmp_path, [([[0, 0, 4, 0, 4, 6, 0, 6]], 0), ([[2, 2, 6, 2, 6, 4, 2, 4]], 0)], [5, 6]))
        expected = [[0, 0, 0, 0, NONE], [0, 0, 1, 1, 1]]
        found = class_map(truth.images[0], truth.format, classes_of(truth), None)
        assert [found[0, :5].tolist(), found[2, :5].tolist()] == expected
        named = classes_of(truth, {"background": "background", "sky": None}, background=True)
        found = class_map(truth.images[0], truth.format, named, None)
        background = named.of_label("background")
        assert [found[0, :5].tolist(), found[2, :5].tolist()] == [[0, 0, 0, 0, background], [0, 0, NONE, NONE, NONE]]

    def test_a_wrong_file_is_refused_in_words(self, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_text("[1]")
        with pytest.raises(Refused, match="has no list of images"):
            open_truth(str(tmp_path / "a.json"))
        (tmp_path / "a.json").write_text('{"images": [], "annotations": [7], "categories": []}')
        with pytest.raises(Refused, match="has no list of annotations"):
            open_truth(str(tmp_path / "a.json"))
        (tmp_path / "a.json").write_text('{"images": [{"id": 1}], "annotations": [], "categories": []}')
        with pytest.raises(Refused, match="is not as COCO's format coco-instances demands: KeyError 'file_name'"):
            open_truth(str(tmp_path / "a.json"))
        (tmp_path / "a.json").write_text("{")
        with pytest.raises(Refused, match="is no JSON"):
            open_truth(str(tmp_path / "a.json"))
        with pytest.raises(Refused, match="category 77, which is not"):
            open_truth(self._write(tmp_path, [([[0, 0, 4, 0, 4, 6]], 0)], [77]))
        with pytest.raises(Refused, match=r"--truth-format coco-panoptic: .* looks like coco-instances"):
            open_truth(self._write(tmp_path, [([[0, 0, 4, 0, 4, 6]], 0)]), Format.PANOPTIC)
        truth = open_truth(self._write(tmp_path, [({"counts": None}, 0)]))
        with pytest.raises(Refused, match=r"the mask of annotation 1 .* is none of COCO's kinds"):
            instances(truth.images[0], classes_of(truth))

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
        assert (truth.format, truth.images[0].name, truth.ignore_index) == (Format.LABEL_MAPS, "day/a", 255)
        assert class_map(truth.images[0], truth.format, classes_of(truth), truth.ignore_index).tolist() == [[0, 1, NONE]]
        other = open_truth(str(tmp_path), ignore_index=2)
        assert [category.name for category in other.categories] == ["sky"]
        with pytest.raises(Refused, match=r"has pixels of value 255, which has no name and is not the ignore index \(2\)"):
            class_map(other.images[0], other.format, classes_of(other), other.ignore_index)

    def test_palettes_and_16_bits_are_values_and_colours_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "labels.txt").write_text("0 sky\n700 road\n")
        self._write(tmp_path, np.array([[0, 700]], np.uint16))
        truth = open_truth(str(tmp_path))
        assert class_map(truth.images[0], truth.format, classes_of(truth), 255).tolist() == [[0, 1]]
        palette = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("P")
        palette.putpalette([9, 9, 9] * 256)
        palette.save(tmp_path / "day" / "a.png")
        assert class_map(truth.images[0], truth.format, classes_of(truth), 255).tolist() == [[0, NONE]]
        self._write(tmp_path, np.zeros((2, 2, 3), np.uint8))
        with pytest.raises(Refused, match="is in colour"):
            class_map(truth.images[0], truth.format, classes_of(truth), 255)
        (tmp_path / "day" / "a.png").write_bytes(b"no picture")
        with pytest.raises(Refused, match="cannot be read as a PNG"):
            class_map(truth.images[0], truth.format, classes_of(truth), 255)

    def test_names_are_needed(self, tmp_path: Path) -> None:
        self._write(tmp_path, np.zeros((1, 1), np.uint8))
        with pytest.raises(Refused, match="give a file that says which id has which name by --labels"):
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
            ("a.txt", "0: sky\n1, plain road\n", ({0: "sky", 1: "plain road"}, None)),
        ],
    )
    def test_files_of_names(self, tmp_path: Path, name: str, text: str, expected: object) -> None:
        (tmp_path / name).write_text(text)
        assert label_names.read(str(tmp_path / name)) == expected

    @pytest.mark.parametrize(
        ("name", "text"),
        [("a.json", "{}"), ("a.json", "3"), ("a.csv", "a,b\n1,2\n"), ("a.txt", "0 sky\nroad\n"), ("a.txt", "0 sky\n0 road"), ("a.txt", "")],
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
    with pytest.raises(Refused, match="there are no PNG files"):
        open_truth(str(tmp_path))
