"""What a model's classes are called: by the checkpoint, by the dataset that its name tells, or by the user."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from masklake.errors import Refused
from masklake.inference import checkpoint
from masklake.inference.families import ALL_TASKS
from masklake.inference.options import Options

SEMANTIC = Options(tasks=("semantic",))


def eomt(tmp_path: Path, classes: int, **config: Any) -> Path:
    """As EoMT's conversion script writes it: `num_labels` alone, which transformers writes as LABEL_0, LABEL_1, ... or not at all."""
    folder = tmp_path / "folder"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "eomt", "image_size": 640, "num_labels": classes, **config}))
    size = {"shortest_edge": 640, "longest_edge": 640}
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "EomtImageProcessorFast", "size": size}))
    save_file({"class_predictor.weight": torch.zeros(classes + 1, 4)}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("name", "classes", "first", "last", "things"),
    [
        ("tue-mps/coco_panoptic_eomt_large_640", 133, "person", "rug-merged", 80),
        ("tue-mps/coco_instance_eomt_large_640", 80, "person", "toothbrush", 80),
        ("tue-mps/ade20k_panoptic_eomt_large_640", 150, "wall", "flag", 100),
        ("tue-mps/cityscapes_semantic_eomt_large_1024", 19, "road", "bicycle", 8),
        ("me/cityscapes-instance", 8, "person", "bicycle", 8),
        ("me/mapillary-vistas-panoptic", 65, "Bird", "Ego Vehicle", 37),
    ],
)
@pytest.mark.parametrize("written", [False, True])
def test_a_checkpoint_without_labels_has_those_of_its_dataset(
    tmp_path: Path, name: str, classes: int, first: str, last: str, things: int, written: bool
) -> None:
    labels = {"id2label": {str(index): f"LABEL_{index}" for index in range(classes)}} if written else {}
    described = checkpoint.describe(eomt(tmp_path, classes, **labels), Options(tasks=()), name)
    assert (described.labels[0], described.labels[classes - 1], len(described.thing_ids)) == (first, last, things)
    assert any(note.startswith(f"the checkpoint names no labels: the {classes} of ") for note in described.notes)


def test_their_names_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    """Another file of labels gives other rows."""
    folder = eomt(tmp_path, 2)
    settings = [
        checkpoint.describe(folder, Options(tasks=("semantic",), labels=labels)).answer_settings("semantic")
        for labels in ({0: "sky", 1: "sea"}, {0: "sky", 1: "lake"})
    ]
    assert settings[0] != settings[1]


@pytest.mark.parametrize(("name", "classes"), [("mine", 133), ("tue-mps/coco_panoptic_eomt_large_640", 7)])
def test_where_nothing_tells_the_user_is_asked(tmp_path: Path, name: str, classes: int) -> None:
    folder = eomt(tmp_path, classes)
    with pytest.raises(Refused, match=rf"^{name} names none of its {classes} classes .* give --labels FILE"):
        checkpoint.describe(folder, SEMANTIC, name)
    described = checkpoint.describe(folder, Options(tasks=("semantic",), labels={0: "sky", 2: "sea"}), name)
    assert [described.labels[index] for index in range(4)] == ["sky", "LABEL_1", "sea", "LABEL_3"]
    assert "labels are those of --labels" in described.notes


def test_labels_beyond_the_models_classes_and_beside_its_own_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"--labels names the id 3, but the classes of m are 0 to 2"):
        checkpoint.describe(eomt(tmp_path, 3), Options(tasks=("semantic",), labels={3: "sea"}), "m")
    named = eomt(tmp_path, 3, id2label={"0": "sky", "1": "sea", "2": "sand"})
    with pytest.raises(Refused, match=r"--labels: m names its labels itself \(sky, sea, sand, ...\): leave it out"):
        checkpoint.describe(named, Options(tasks=("semantic",), labels={0: "sky"}), "m")


def test_ids_with_holes_are_usable(tmp_path: Path) -> None:
    """As DETR's: 250 classes, of which the ids of COCO's 133 categories have names."""
    folder = eomt(tmp_path, 6, id2label={"1": "person", "3": "car", "5": "sky"}, thing_ids=[1, 3])
    described = checkpoint.describe(folder, Options(tasks=ALL_TASKS), "m")
    assert described.labels == {0: "LABEL_0", 1: "person", 2: "LABEL_2", 3: "car", 4: "LABEL_4", 5: "sky"}
    assert described.thing_ids == {1, 3}


@pytest.mark.parametrize("labels", [{"a": "sky"}, ["sky"], "sky", 7, {"0": "sky", "9": "sea"}])
def test_labels_of_the_wrong_kind_are_refused(tmp_path: Path, labels: Any) -> None:
    with pytest.raises(Refused, match=r"id2label in config\.json"):
        checkpoint.describe(eomt(tmp_path, 3, id2label=labels), SEMANTIC, "m")
