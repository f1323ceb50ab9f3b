"""What is learned from: every format gives its masks, exactly; what cannot be learned from is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from masklake import reading
from masklake.errors import Refused
from masklake.schema import Task
from masklake.training import sources
from masklake.training.examples import BadExample, DataSet, Sample
from masklake.training.settings import SourceConfig
from masklake.truth.formats import Drawn
from tests import exports
from tests.evaluations import LAKE, commit, evaluate, segments_of
from tests.shared import shared_folder
from tests.unit.training import data_sets

IDS = np.array([[1, 1, 300], [1, 70000, 300], [0, 70000, 300]])
SEGMENTS = [
    {"id": 1, "category_id": 17, "iscrowd": 0},
    {"id": 300, "category_id": 119, "iscrowd": 0},
    {"id": 70000, "category_id": 17, "iscrowd": 1},
]


def read(settings: SourceConfig, semantic: bool = False) -> tuple[DataSet, DataSet]:
    return sources.read(settings, semantic)


def samples(data: DataSet) -> list[Sample]:
    return [data.reader.load(example) for example in data.examples]


def loaded(settings: SourceConfig) -> list[Sample]:
    return samples(read(settings)[0])


def test_a_panoptic_png_gives_a_mask_for_each_segment_and_void_belongs_to_none(tmp_path: Path) -> None:
    data, _ = read(data_sets.panoptic(tmp_path, IDS, SEGMENTS))
    assert data.labels == {0: "cat", 1: "sky"}  # car has no example
    assert data.thing_ids == {0}
    assert data.counts == {0: 1, 1: 1}
    assert data.skipped == {"crowd regions": 1, "classes without examples (car)": 1}
    (sample,) = samples(data)
    assert [np.argwhere(mask).tolist() for mask in sample.masks] == [
        [[0, 0], [0, 1], [1, 0]],
        [[0, 2], [1, 2], [2, 2]],
        [[1, 1], [2, 1]],
    ]
    assert sample.label_ids.tolist() == [0, 1, 0]
    assert sample.crowd.tolist() == [False, False, True]


def test_a_class_without_examples_is_kept_or_refused_where_that_is_asked(tmp_path: Path) -> None:
    settings = data_sets.panoptic(tmp_path, IDS, SEGMENTS)
    assert read(settings.model_copy(update={"empty_classes": "keep"}))[0].labels == {0: "car", 1: "cat", 2: "sky"}
    with pytest.raises(Refused, match="no training example shows car"):
        read(settings.model_copy(update={"empty_classes": "refuse"}))


def test_an_id_map_that_does_not_fit_its_json_or_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadExample, match=r"a\.png: segment 300 is in the PNG and not in the JSON"):
        loaded(data_sets.panoptic(tmp_path / "ids", IDS, [SEGMENTS[0], SEGMENTS[2]]))
    settings = data_sets.panoptic(tmp_path / "size", IDS, SEGMENTS)
    data_sets.ids_png(tmp_path / "size" / "panoptic" / "a.png", IDS[:2])
    with pytest.raises(BadExample, match=r"is of size \(2, 3\) \(height, width\), and the ground truth says \(3, 3\)"):
        loaded(settings)


def test_an_image_that_is_no_image_or_absent_is_named(tmp_path: Path) -> None:
    settings = data_sets.panoptic(tmp_path, IDS, SEGMENTS)
    picture = tmp_path / "images" / "a.png"
    picture.write_bytes(b"no image")
    with pytest.raises(BadExample, match=r"a\.png: is not in a known image format"):
        loaded(settings)
    picture.unlink()
    with pytest.raises(Refused, match=r"--images .*: there is no image below it"):
        loaded(settings)
    data_sets.image(tmp_path / "images" / "b.png", 3, 3)
    with pytest.raises(Refused, match=r"none of its images \(1\) is below .*images: it has 'a\.png', say"):
        loaded(settings)


def test_a_panoptic_json_with_an_unknown_category_or_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="segment 1 of image 1 has category_id 5, which is not in categories"):
        read(data_sets.panoptic(tmp_path, IDS, [{"id": 1, "category_id": 5}]))
    path = tmp_path / "panoptic.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "images": [], "annotations": [{**content["annotations"][0], "segments_info": SEGMENTS}]}))
    with pytest.raises(Refused, match="an annotation of image 1, which is not in images"):
        read(data_sets.config(tmp_path, "coco-panoptic", path))


def test_instances_in_every_notation_are_what_pycocotools_decodes_and_empty_ones_are_counted(tmp_path: Path) -> None:
    block = np.zeros((20, 30), np.uint8)
    block[2:9, 3:11] = 1
    compressed = coco_mask.encode(np.asfortranarray(block))
    annotations: list[dict[str, Any]] = [
        {"category_id": 17, "segmentation": [[1.5, 1.5, 12.5, 1.5, 12.5, 9.5, 1.5, 9.5], [15, 15, 20, 15, 18, 19]], "iscrowd": 0},
        {"category_id": 3, "segmentation": {"size": [20, 30], "counts": compressed["counts"].decode()}, "iscrowd": 0},
        {"category_id": 3, "segmentation": {"size": [20, 30], "counts": [100, 40, 460]}, "iscrowd": 1},
        {"category_id": 3, "segmentation": [], "iscrowd": 0},
        {"category_id": 3, "segmentation": {"size": [20, 30], "counts": [600]}, "iscrowd": 0},
    ]
    settings = data_sets.instances(tmp_path, (20, 30), annotations)
    data, _ = read(settings)
    assert data.labels == {0: "car", 1: "cat"}
    assert data.thing_ids == {0, 1}
    assert data.skipped == {
        "annotations without a mask (none, no polygon of three points, or no pixel)": 2,
        "crowd regions": 1,
        "images without objects": 1,
        "classes without examples (sky)": 1,
    }
    (sample,) = samples(data)
    coco = COCO(str(tmp_path / "instances.json"))
    assert np.array_equal(sample.masks, [coco.annToMask(coco.anns[index]) for index in (2, 0, 1)])  # crowds below, smaller ones on top
    assert sample.label_ids.tolist() == [0, 1, 0]
    assert sample.crowd.tolist() == [True, False, False]


def test_a_segmentation_of_another_size_than_its_image_is_refused(tmp_path: Path) -> None:
    wrong = {"category_id": 3, "segmentation": {"size": [4, 4], "counts": [8, 8]}}
    with pytest.raises(Refused, match=r"annotation 0 has the size \[4, 4\], and its image \[20, 30\]"):
        read(data_sets.instances(tmp_path, (20, 30), [wrong]))


def test_a_label_map_gives_one_mask_for_each_label_and_ignored_values_belong_to_none(tmp_path: Path) -> None:
    values = np.array([[0, 0, 7], [9, 255, 7]], np.uint8)
    settings = data_sets.label_maps(tmp_path, {"a": values}, {"0": "road", "7": "car", "8": "tree", "9": "car"}, thing_labels=("car",))
    data, _ = read(settings)
    assert data.labels == {0: "road", 1: "car"}
    assert data.thing_ids == {1}
    (sample,) = samples(data)
    assert sample.masks.astype(int).tolist() == [[[1, 1, 0], [0, 0, 0]], [[0, 0, 1], [1, 0, 1]]]


def test_a_value_of_255_that_the_labels_name_is_learned(tmp_path: Path) -> None:
    settings = data_sets.label_maps(tmp_path, {"a": np.array([[0, 255]], np.uint8)}, {"0": "background", "255": "lesion"})
    data, _ = read(settings)
    assert data.labels == {0: "background", 1: "lesion"}
    assert samples(data)[0].masks.astype(int).tolist() == [[[1, 0]], [[0, 1]]]


def test_a_class_alone_with_the_rest_ignored_is_refused(tmp_path: Path) -> None:
    """Whatever the rest is, the answer would be this class, everywhere."""
    settings = data_sets.label_maps(tmp_path / "maps", {"a": np.array([[1, 255]], np.uint8)}, {"1": "lesion"})
    with pytest.raises(Refused, match=r"'lesion' is the only class that is shown, and .* ignored: .*name the values of the other pixels"):
        read(settings)
    mask = {"category_id": 17, "segmentation": [[0, 0, 6, 0, 6, 4, 0, 4]], "iscrowd": 0}
    settings = data_sets.instances(tmp_path / "coco", (4, 9), [mask])
    assert read(settings)[0].labels == {0: "cat"}  # a model of objects has "no object" for the rest
    with pytest.raises(Refused, match=r"'cat' is the only class that is shown, .*`background: background`"):
        read(settings, semantic=True)
    (tmp_path / "names.yaml").write_text("cat: cat\nbackground: background\n")
    data, _ = read(settings.model_copy(update={"categories": str(tmp_path / "names.yaml")}), semantic=True)
    assert data.labels == {0: "cat", 1: "background"}
    first, empty = samples(data)
    assert first.masks.astype(int).sum(axis=(1, 2)).tolist() == [24, 12]
    assert (empty.label_ids.tolist(), int(empty.masks.sum())) == ([1], 36)


def test_overlapping_objects_are_one_class_map_however_they_are_listed(tmp_path: Path) -> None:
    """The smaller one lies on top, in training as in an evaluation; a crowd lies below, and is of its class."""
    large, small, crowd = ([[0, 0, 8, 0, 8, 4, 0, 4]], 3), ([[2, 1, 4, 1, 4, 3, 2, 3]], 17), ({"size": [4, 9], "counts": [0, 36]}, 17)
    expected = np.zeros((4, 9), int)
    expected[1:3, 2:4] = 1
    expected[:, 8] = 1
    for number, listed in enumerate(([large, small, crowd], [small, crowd, large])):
        folder = tmp_path / str(number)
        annotations = [{"category_id": each, "segmentation": mask, "iscrowd": int(isinstance(mask, dict))} for mask, each in listed]
        settings = data_sets.instances(folder, (4, 9), annotations)
        data, _ = read(settings, semantic=True)
        sample = samples(data)[0]
        assert [data.labels[label] for label in sample.label_ids] == ["car", "cat"]
        np.testing.assert_array_equal(sample.masks[1], expected == 1)
        np.testing.assert_array_equal(sample.masks[0], expected == 0)
        answer = segments_of(expected, {0: ("car", True), 1: ("cat", True)})
        table = commit(folder / "masks", "semantic", {LAKE + "a.png": (answer, (4, 9))})
        found = evaluate(table, settings.truth, task="semantic", format="coco-instances")
        assert [each["iou"] for each in found["classes"] if each["true"]] == [1, 1]


def test_images_without_objects_are_left_out_of_training_unless_asked_for_and_always_judged(tmp_path: Path) -> None:
    mask = {"category_id": 17, "segmentation": [[0, 0, 6, 0, 6, 4, 0, 4]], "iscrowd": 0}
    settings = data_sets.instances(tmp_path, (4, 9), [mask]).model_copy(update={"validation_truth": str(tmp_path / "instances.json")})
    training, held_out = read(settings)
    assert [len(data.examples) for data in (training, held_out)] == [1, 2]
    assert training.skipped["images without objects"] == 1
    training, held_out = read(settings.model_copy(update={"empty_images": "learn"}))
    assert [len(data.examples) for data in (training, held_out)] == [2, 2]
    assert [len(sample.masks) for sample in samples(training)] == [1, 0]


def test_images_with_more_objects_than_queries_are_counted(tmp_path: Path) -> None:
    masks = [{"category_id": 17, "segmentation": [[x, 0, x + 2, 0, x + 2, 4, x, 4]], "iscrowd": int(x == 6)} for x in (0, 2, 4, 6)]
    data, _ = read(data_sets.instances(tmp_path, (4, 9), masks))
    assert sources.more_than(data, 3) == (0, 3)
    assert sources.more_than(data, 2) == (1, 3)


def test_a_label_map_with_an_unknown_value_is_refused(tmp_path: Path) -> None:
    settings = data_sets.label_maps(tmp_path, {"a": np.array([[0, 1, 42]], np.uint8)}, ["road", "sky"])
    with pytest.raises(Refused, match=r"masks/a\.png: has pixels of value 42, which has no name and is not ignored \(ignored: 255\)"):
        read(settings)
    assert read(settings.model_copy(update={"ignore_index": (42,)}))[0].counts == {0: 1, 1: 1}


def test_maps_and_images_without_their_partner_are_counted(tmp_path: Path) -> None:
    settings = data_sets.label_maps(tmp_path, {"a": np.eye(2, dtype=np.uint8), "b": np.full((2, 2), 255, np.uint8)}, ["road", "sky"])
    data_sets.image(tmp_path / "images" / "alone.png", 2, 2)
    data, _ = read(settings)
    assert data.skipped == {"images without ground truth": 1, "images without objects": 1}
    assert len(data.examples) == 1


@pytest.mark.parametrize("task", ["panoptic", "instance"])
def test_rows_of_a_table_are_learned_from_as_they_are_read(tmp_path: Path, task: str) -> None:
    uri = exports.build(str(tmp_path / "table"))
    settings = SourceConfig(format="table", truth=uri, task=Task(task), validation_share=0)
    data, _ = read(settings)
    rows = {row["image_uri"]: row for row in reading.open_table(uri).newest(task=task, where="status = 'ok'") if row["segments"]}
    assert [example.image for example in data.examples] == sorted(rows)
    for example in data.examples:
        row = rows[example.image]
        found = data.reader.coding.read(example.truth)
        assert isinstance(found, Drawn)
        assert [data.labels[label] for label in example.shown] == [each["label"] for each in row["segments"]]
        decoded = coco_mask.decode([each.mask for each in found.objects])
        assert np.array_equal(decoded.transpose(2, 0, 1), reading.masks(row))
    assert {data.labels[index] for index in data.thing_ids} == {label for label, thing in exports.LABELS.values() if thing} & set(
        data.labels.values()
    )


@pytest.mark.slow
def test_a_table_filtered_by_score_gives_only_what_scores_well(tmp_path: Path) -> None:
    uri = exports.build(str(tmp_path / "table"))
    settings = SourceConfig(format="table", truth=uri, task=Task.INSTANCE, min_score=0.5, validation_share=0)
    data, _ = read(settings)
    rows = list(reading.open_table(uri).newest(task="instance", where="status = 'ok'"))
    good = sum(bool(segment["score"] >= 0.5) for row in rows for segment in row["segments"])
    assert 0 < good < sum(len(row["segments"]) for row in rows)
    assert sum(len(example.shown) for example in data.examples) == good
    with pytest.raises(Refused, match="--where no_column > 3: is not a condition on the table's columns"):
        read(settings.model_copy(update={"where": "no_column > 3"}))
    with pytest.raises(Refused, match="fits --where, --uris and --min-score"):
        read(settings.model_copy(update={"min_score": 1.0}))


def test_an_image_is_held_out_whatever_else_is_there(tmp_path: Path) -> None:
    maps = {f"{index:03}": np.array([[index % 2]], np.uint8) for index in range(60)}
    settings = data_sets.label_maps(tmp_path, maps, ["road", "sky"]).model_copy(update={"validation_share": 0.3})
    training, held_out = read(settings)
    assert 3 <= len(held_out.examples) <= 40  # the hash is of a path that is another each time; all but one in a million are within
    (tmp_path / "masks" / "000.png").unlink()
    fewer, fewer_held = read(settings)
    first = {example.image for example in training.examples}
    assert {example.image for example in fewer.examples} <= first
    assert not {example.image for example in fewer_held.examples} & first


@pytest.mark.parametrize(("share", "held"), [(0.0, 0), (1e-9, 1)])
def test_of_few_images_one_is_held_out_unless_none_is_asked_for(tmp_path: Path, share: float, held: int) -> None:
    maps = {f"{index:03}": np.array([[index % 2]], np.uint8) for index in range(10)}
    training, held_out = read(data_sets.label_maps(tmp_path, maps, ["road", "sky"], validation_share=share))
    assert (len(training.examples), len(held_out.examples)) == (10 - held, held)
    assert not {example.image for example in training.examples} & {example.image for example in held_out.examples}


def test_held_out_labels_are_matched_by_name_and_unknown_ones_are_counted(tmp_path: Path) -> None:
    training = data_sets.label_maps(tmp_path / "t", {"a": np.array([[1, 0]], np.uint8)}, ["road", "sky"])
    other = data_sets.label_maps(tmp_path / "v", {"a": np.array([[1, 0, 2]], np.uint8)}, ["sky", "road", "tree"])
    settings = training.model_copy(update={"validation_truth": other.truth, "validation_images": other.images})
    # both folders are read with one file of labels
    settings = settings.model_copy(update={"labels": other.labels})
    learned, held_out = read(settings)
    assert learned.labels == {0: "sky", 1: "road"}
    assert held_out.labels == {0: "sky", 1: "road", 2: "tree"}  # as its truth has them: it is judged by them
    assert sources.unknown_classes(learned, held_out) == ["tree"]


@pytest.mark.shared_data
def test_cocos_own_panoptic_sample_is_read_as_its_json_says() -> None:
    folder = shared_folder("data", "coco-panoptic-sample")
    settings = SourceConfig(
        format="coco-panoptic",
        truth=str(folder / "panoptic_examples.json"),
        images=str(folder / "input_images"),
        validation_share=0,
    )
    content = json.loads((folder / "panoptic_examples.json").read_text())
    for sample, annotation in zip(loaded(settings), content["annotations"], strict=True):
        assert [int(mask.sum()) for mask in sample.masks] == [each["area"] for each in annotation["segments_info"]]


@pytest.mark.shared_data
def test_camvid_is_read_with_its_eleven_classes() -> None:
    folder = shared_folder("data", "camvid", "val")
    names = ["Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist"]
    labels = Path(__file__).parents[3] / "jobs" / "settings" / "finetune" / "camvid-labels.json"
    settings = SourceConfig(
        format="label-maps",
        truth=str(folder / "masks"),
        images=str(folder / "images"),
        labels=str(labels),
        ignore_index=(11,),
        validation_share=0,
    )
    data, _ = read(settings)
    assert list(data.labels.values()) == names
    assert len(data.examples) == 101
    assert data.counts[3] == 101  # there is a road on every picture
