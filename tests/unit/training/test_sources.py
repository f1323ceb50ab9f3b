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
from masklake.training.examples import BadExample, Example, Runs, Sample, load
from masklake.training.settings import DataConfig
from tests import exports
from tests.shared import shared_folder
from tests.unit.training import data_sets

IDS = np.array([[1, 1, 300], [1, 70000, 300], [0, 70000, 300]])
SEGMENTS = [
    {"id": 1, "category_id": 17, "iscrowd": 0},
    {"id": 300, "category_id": 119, "iscrowd": 0},
    {"id": 70000, "category_id": 17, "iscrowd": 1},
]


def loaded(settings: DataConfig) -> list[Sample]:
    return [load(example) for example in sources.read(settings)[0].examples]


def runs_of(example: Example) -> Runs:
    assert isinstance(example.truth, Runs)
    return example.truth


def test_a_panoptic_png_gives_a_mask_for_each_segment_and_void_belongs_to_none(tmp_path: Path) -> None:
    data, _ = sources.read(data_sets.panoptic(tmp_path, IDS, SEGMENTS))
    assert data.labels == {0: "cat", 1: "sky"}  # car has no example
    assert data.thing_ids == {0}
    assert data.counts == {0: 1, 1: 1}
    assert data.skipped == {"crowd regions": 1, "classes without examples (car)": 1}
    (sample,) = [load(example) for example in data.examples]
    assert [np.argwhere(mask).tolist() for mask in sample.masks] == [
        [[0, 0], [0, 1], [1, 0]],
        [[0, 2], [1, 2], [2, 2]],
        [[1, 1], [2, 1]],
    ]
    assert sample.label_ids.tolist() == [0, 1, 0]
    assert sample.crowd.tolist() == [False, False, True]


def test_a_class_without_examples_is_kept_or_refused_where_that_is_asked(tmp_path: Path) -> None:
    settings = data_sets.panoptic(tmp_path, IDS, SEGMENTS)
    assert sources.read(settings.model_copy(update={"empty_classes": "keep"}))[0].labels == {0: "car", 1: "cat", 2: "sky"}
    with pytest.raises(Refused, match="no training example shows car"):
        sources.read(settings.model_copy(update={"empty_classes": "refuse"}))


def test_an_id_map_that_does_not_fit_its_json_or_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadExample, match=r"a\.png: the ids \[300\] are in the PNG but not among its segments"):
        loaded(data_sets.panoptic(tmp_path / "ids", IDS, [SEGMENTS[0], SEGMENTS[2]]))
    settings = data_sets.panoptic(tmp_path / "size", IDS, SEGMENTS)
    data_sets.ids_png(tmp_path / "size" / "panoptic" / "a.png", IDS[:2])
    with pytest.raises(BadExample, match=r"the image has \(height, width\) \(3, 3\), and .* \(2, 3\)"):
        loaded(settings)


def test_an_image_that_is_no_image_or_absent_is_named(tmp_path: Path) -> None:
    settings = data_sets.panoptic(tmp_path, IDS, SEGMENTS)
    picture = tmp_path / "images" / "a.png"
    picture.write_bytes(b"no image")
    with pytest.raises(BadExample, match=r"a\.png: begins like no known image format"):
        loaded(settings)
    picture.unlink()
    with pytest.raises(BadExample, match=r"images/a\.png"):
        loaded(settings)


def test_a_panoptic_json_with_an_unknown_category_or_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="the category 5, which is not among the categories"):
        sources.read(data_sets.panoptic(tmp_path, IDS, [{"id": 1, "category_id": 5}]))
    path = tmp_path / "panoptic.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "images": [], "annotations": [{**content["annotations"][0], "segments_info": SEGMENTS}]}))
    with pytest.raises(Refused, match="of the image 1, which is not among the images"):
        sources.read(data_sets.config(tmp_path, "coco-panoptic", path))


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
    data, _ = sources.read(settings)
    assert data.labels == {0: "car", 1: "cat"}
    assert data.thing_ids == {0, 1}
    assert data.skipped["empty masks"] == 2
    assert data.skipped["images without segments"] == 1
    (sample,) = [load(example) for example in data.examples]
    coco = COCO(str(tmp_path / "instances.json"))
    assert np.array_equal(sample.masks, [coco.annToMask(coco.anns[index]) for index in range(3)])
    assert sample.label_ids.tolist() == [1, 0, 0]
    assert sample.crowd.tolist() == [False, False, True]


def test_a_segmentation_of_another_size_than_its_image_is_refused(tmp_path: Path) -> None:
    wrong = {"category_id": 3, "segmentation": {"size": [4, 4], "counts": [8, 8]}}
    with pytest.raises(Refused, match=r"annotation 0 has the size \[4, 4\], and its image \[20, 30\]"):
        sources.read(data_sets.instances(tmp_path, (20, 30), [wrong]))


def test_a_label_map_gives_one_mask_for_each_label_and_ignored_values_belong_to_none(tmp_path: Path) -> None:
    values = np.array([[0, 0, 7], [9, 255, 7]], np.uint8)
    settings = data_sets.label_maps(tmp_path, {"a": values}, {"0": "road", "7": "car", "8": "tree", "9": "car"}, thing_labels=("car",))
    data, _ = sources.read(settings)
    assert data.labels == {0: "road", 1: "car"}
    assert data.thing_ids == {1}
    (sample,) = [load(example) for example in data.examples]
    assert sample.masks.astype(int).tolist() == [[[1, 1, 0], [0, 0, 0]], [[0, 0, 1], [1, 0, 1]]]


def test_a_label_map_with_an_unknown_value_is_refused(tmp_path: Path) -> None:
    settings = data_sets.label_maps(tmp_path, {"a": np.array([[0, 42]], np.uint8)}, ["road"])
    with pytest.raises(Refused, match=r"masks/a\.png: the values \[42\] have no label and are not ignored \(ignored: 255\)"):
        sources.read(settings)
    assert sources.read(settings.model_copy(update={"ignore_index": (42,)}))[0].counts == {0: 1}


def test_maps_and_images_without_their_partner_are_counted(tmp_path: Path) -> None:
    settings = data_sets.label_maps(tmp_path, {"a": np.zeros((2, 2), np.uint8), "b": np.full((2, 2), 255, np.uint8)}, ["road"])
    data_sets.image(tmp_path / "images" / "alone.png", 2, 2)
    data, _ = sources.read(settings)
    assert data.skipped == {"images without a label map": 1, "images without segments": 1}
    assert len(data.examples) == 1


@pytest.mark.parametrize("task", ["panoptic", "instance"])
def test_rows_of_a_table_are_learned_from_as_they_are_read(tmp_path: Path, task: str) -> None:
    uri = exports.build(str(tmp_path / "table"))
    settings = DataConfig(format="table", data=uri, task=Task(task), validation_share=0)
    data, _ = sources.read(settings)
    rows = {row["image_uri"]: row for row in reading.open_table(uri).newest(task=task, where="status = 'ok'") if row["segments"]}
    assert [example.image for example in data.examples] == sorted(rows)
    for example in data.examples:
        row, truth = rows[example.image], runs_of(example)
        assert [data.labels[label] for _, label, _ in truth.segments] == [each["label"] for each in row["segments"]]
        encoded = [{"size": [row["height"], row["width"]], "counts": counts} for counts, _, _ in truth.segments]
        assert np.array_equal(coco_mask.decode(encoded).transpose(2, 0, 1), reading.masks(row))
    assert {data.labels[index] for index in data.thing_ids} == {label for label, thing in exports.LABELS.values() if thing} & set(
        data.labels.values()
    )


def test_a_table_filtered_by_score_gives_only_what_scores_well(tmp_path: Path) -> None:
    uri = exports.build(str(tmp_path / "table"))
    settings = DataConfig(format="table", data=uri, task=Task.INSTANCE, min_score=0.5, validation_share=0)
    data, _ = sources.read(settings)
    rows = list(reading.open_table(uri).newest(task="instance", where="status = 'ok'"))
    good = sum(bool(segment["score"] >= 0.5) for row in rows for segment in row["segments"])
    assert 0 < good < sum(len(row["segments"]) for row in rows)
    assert sum(len(runs_of(example).segments) for example in data.examples) == good
    with pytest.raises(Refused, match="--where no_column > 3: is not a condition on the table's columns"):
        sources.read(settings.model_copy(update={"where": "no_column > 3"}))
    with pytest.raises(Refused, match="fits --where and --min-score"):
        sources.read(settings.model_copy(update={"min_score": 1.0}))


def test_an_image_is_held_out_whatever_else_is_there(tmp_path: Path) -> None:
    maps = {f"{index:03}": np.array([[index % 2]], np.uint8) for index in range(60)}
    settings = data_sets.label_maps(tmp_path, maps, ["road", "sky"]).model_copy(update={"validation_share": 0.3})
    training, held_out = sources.read(settings)
    assert 8 <= len(held_out.examples) <= 28
    (tmp_path / "masks" / "000.png").unlink()
    fewer, fewer_held = sources.read(settings)
    first = {example.image for example in training.examples}
    assert {example.image for example in fewer.examples} <= first
    assert not {example.image for example in fewer_held.examples} & first


def test_held_out_labels_are_matched_by_name_and_unknown_ones_are_counted(tmp_path: Path) -> None:
    training = data_sets.label_maps(tmp_path / "t", {"a": np.array([[1, 0]], np.uint8)}, ["road", "sky"])
    other = data_sets.label_maps(tmp_path / "v", {"a": np.array([[1, 0, 2]], np.uint8)}, ["sky", "road", "tree"])
    settings = training.model_copy(update={"validation_data": other.data, "validation_images": other.images})
    # both folders are read with one file of labels
    settings = settings.model_copy(update={"labels": other.labels})
    _, held_out = sources.read(settings)
    assert held_out.labels == {0: "sky", 1: "road"}
    assert held_out.skipped == {"held-out classes that the training has not (tree)": 1}
    (sample,) = [load(example) for example in held_out.examples]
    assert sample.masks.astype(int).tolist() == [[[0, 1, 0]], [[1, 0, 0]]]


@pytest.mark.shared_data
def test_cocos_own_panoptic_sample_is_read_as_its_json_says() -> None:
    folder = shared_folder("data", "coco-panoptic-sample")
    settings = DataConfig(
        format="coco-panoptic",
        data=str(folder / "panoptic_examples.json"),
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
    settings = DataConfig(
        format="label-maps",
        data=str(folder / "masks"),
        images=str(folder / "images"),
        labels=str(labels),
        ignore_index=(11,),
        validation_share=0,
    )
    data, _ = sources.read(settings)
    assert list(data.labels.values()) == names
    assert len(data.examples) == 101
    assert data.counts[3] == 101  # there is a road on every picture
