"""Checkpoints as the hub holds them: the same weights answer as in the version of transformers that wrote them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from masklake.errors import Refused
from masklake.inference import checkpoint, preprocess, processors, released, splits, weights
from masklake.inference.families import ALL_TASKS, FAMILIES, ClassMap
from masklake.inference.options import Options
from masklake.training import models
from tests.released import layouts, values
from tests.shared import shared_folder

SEMANTIC, EVERYTHING = Options(tasks=("semantic",)), Options(tasks=ALL_TASKS)
COCO, ADE20K = splits.names("COCO", 133), splits.names("ADE20K", 150)
BY_DEPTH = [pytest.param(name, marks=[pytest.mark.slow] if "resnet-101" in name else []) for name in layouts.FAMILIES]
OUTPUTS = {"class_queries_logits": "class_logits", "masks_queries_logits": "mask_logits", "pred_masks": "mask_logits"}


@pytest.mark.slow
@pytest.mark.parametrize("family", BY_DEPTH)
def test_the_same_weights_answer_as_when_they_were_released(tmp_path: Path, family: str) -> None:
    """Kernels for the order of channels that is used here sum otherwise (up to 2e-5): told apart from wrong weights, which is asked."""
    folder, written = layouts.write(family, tmp_path), layouts.layout(family)
    weights.verify(folder)
    module = weights.load(folder).to(memory_format=torch.contiguous_format)
    kind = FAMILIES[written["config"]["model_type"]]
    with torch.inference_mode():
        answers = kind.run(module, torch.from_numpy(values.pixels(written["side"])), kind.tasks)
    for key, expected in written["answers"].items():
        output, _, task = key.partition(" ")
        answer = answers[task or "semantic"]
        name = "logits" if isinstance(answer, ClassMap) else OUTPUTS.get(output, "class_logits")
        flat = getattr(answer, name).reshape(-1)
        assert (flat[:: max(1, len(flat) // 64)] - torch.tensor(expected)).abs().max() < 1e-5, key


@pytest.mark.slow
@pytest.mark.parametrize("family", BY_DEPTH)
def test_a_weight_that_is_missing_is_missed_without_reading_weights(tmp_path: Path, family: str) -> None:
    """The weights are cut away after the header: only it can be read."""
    folder = layouts.write(family, tmp_path)
    state = layouts.state(family)
    lost = next(name for name in state if name.endswith("bias") and "layernorm" not in name and "aux" not in name)
    layouts.hollow(folder, {name: value for name, value in state.items() if name != lost})
    with pytest.raises(Refused, match="1 weight is missing"):
        weights.verify(folder)
    layouts.hollow(folder, state)
    weights.verify(folder)


@pytest.mark.parametrize(
    "kind", [*json.loads((layouts.FOLDER / "processors.json").read_text())], ids=lambda kind: kind.replace("ImageProcessor", "")
)
def test_an_image_becomes_the_model_input_that_the_preprocessor_of_the_time_made(tmp_path: Path, kind: str) -> None:
    known = json.loads((layouts.FOLDER / "processors.json").read_text())[kind]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": kind, **known["settings"]}))
    stem = kind.replace("ImageProcessor", "").replace("FeatureExtractor", "")
    family = next(family for family in FAMILIES.values() if family.processor == stem)
    plan = processors.plan(processors.settings(tmp_path, {}, family, "model")[0], "model")
    made = preprocess.normalise(preprocess.resize(values.image(50, 70), plan), plan)
    assert list(made.shape) == known["shape"]
    assert np.abs(made.reshape(-1)[:: max(1, made.size // 64)] - np.array(known["values"])).max() < 2e-7


@pytest.mark.parametrize(
    ("name", "dataset", "tasks"),
    [
        ("facebook/mask2former-swin-tiny-coco-panoptic", "COCO", ALL_TASKS),
        ("facebook/mask2former-swin-base-IN21k-ade-semantic@refs/pr/2", "ADE20K", ("semantic",)),
        ("facebook/mask2former-swin-small-cityscapes-instance", "Cityscapes", ("instance",)),
        ("facebook/mask2former-swin-large-mapillary-vistas-panoptic", "Mapillary Vistas", ALL_TASKS),
        ("s3://lake/models/facebook--maskformer-swin-tiny-ade/", "ADE20K", ("semantic",)),
        ("file:///models/facebook/maskformer-resnet101-cityscapes/v1", "Cityscapes", ("semantic",)),
        ("/cache/hub/models--facebook--maskformer-swin-base-coco/snapshots/" + "a" * 40, "COCO", ALL_TASKS),
        ("tue-mps/coco_panoptic_eomt_large_640", "COCO", ALL_TASKS),
        ("copies/ade20k_semantic_eomt_large_512", "ADE20K", ("semantic",)),
        ("tue-mps/eomt-dinov3-coco-instance-large-640", "COCO", ("instance",)),
        ("me/street-cityscapes-semantic", "Cityscapes", ("semantic",)),
        ("me/both-panoptic-and-semantic", "", ()),
        ("facebook/maskformer-swin-tiny-ade/mine", "", ()),
        ("s3://semantic/instance/mine", "", ()),
    ],
)
def test_what_a_checkpoint_was_trained_for_is_told_by_the_name_that_the_user_gave(
    tmp_path: Path, name: str, dataset: str, tasks: tuple[str, ...]
) -> None:
    assert released.told(name, tmp_path, {}) == released.Told(tasks, dataset)


@pytest.mark.parametrize(
    ("card", "dataset", "tasks"),
    [
        ("# MaskFormer\n\nMaskFormer model trained on ADE20k semantic\nsegmentation (base-sized version)", "ADE20K", ("semantic",)),
        ("Mask2Former model trained on COCO instance segmentation (tiny-sized version, Swin backbone).", "COCO", ("instance",)),
        ("DEtection TRansformer (DETR) model trained end-to-end on COCO 2017 panoptic (118k annotated images).", "COCO", ALL_TASKS),
        ("It was never trained.", "", ()),
    ],
)
def test_or_by_its_model_card(tmp_path: Path, card: str, dataset: str, tasks: tuple[str, ...]) -> None:
    (tmp_path / "README.md").write_text(f"---\nlicense: other\n---\n{card}\n")
    assert released.told("copy", tmp_path, {}) == released.Told(tasks, dataset)


def test_or_by_what_masklake_wrote_of_it(tmp_path: Path) -> None:
    assert released.told("mine", tmp_path, {released.TASKS: ["semantic"]}) == released.Told(("semantic",), "")
    source = {released.SOURCE: "facebook/maskformer-swin-base-ade@" + "a" * 40}
    assert released.told("mine", tmp_path, source) == released.Told(("semantic",), "ADE20K")
    assert released.told("mine", tmp_path, {"thing_ids": [1]}).tasks == ALL_TASKS


def test_a_semantic_checkpoint_makes_no_panoptic_rows_wherever_it_lies(tmp_path: Path) -> None:
    folder = layouts.write("maskformer-swin", tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text()) | {"thing_ids": [1]}
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("facebook/maskformer-swin-tiny-ade", "s3://lake/models/facebook--maskformer-swin-tiny-ade"):
        with pytest.raises(Refused, match=r"cannot do panoptic, instance: this checkpoint can do semantic"):
            checkpoint.describe(folder, EVERYTHING, name)


def test_where_nothing_tells_that_is_said_in_one_line(tmp_path: Path) -> None:
    folder = layouts.write("maskformer-swin", tmp_path / "copy")
    options = Options(tasks=ALL_TASKS, thing_labels=("class 1", "class 2"))
    notes = checkpoint.describe(folder, options, "copy").notes
    assert [note.partition(":")[0] for note in notes if "trained" in note] == [
        "neither the model's name nor its card says what it was trained for"
    ]
    assert not any("trained for" in note for note in checkpoint.describe(folder, options, "facebook/maskformer-swin-base-coco").notes)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mask2former-swin", "maskformer-swin", "maskformer-resnet", "segformer", "mask2former-resnet"])
def test_fine_tuning_takes_over_all_weights_of_a_released_checkpoint(tmp_path: Path, family: str) -> None:
    folder = layouts.write(family, tmp_path)
    begin = models.start(folder, None, None, None)
    learner = models.build(begin, dict(enumerate([*begin.labels.values(), "new"])), frozenset({1}), seed=0)
    head = FAMILIES[learner.family].head
    assert learner.new == (f"{head}.weight (rows of new)",)
    assert learner.kept_labels == tuple(f"class {index}" for index in range(5))


def test_fine_tuning_a_released_oneformer_adds_what_it_was_released_without(tmp_path: Path) -> None:
    begin = models.start(layouts.write("oneformer-swin", tmp_path), None, None, None)
    learner = models.build(begin, dict(begin.labels), frozenset({1}), seed=0)
    assert all("text_mapper" in name or name.startswith(("criterion.", "model.text_mapper")) for name in learner.new)
    assert any("text_encoder" in name for name in learner.new)


@pytest.mark.parametrize(
    ("name", "tasks"),
    [
        ("facebook--mask2former-swin-tiny-coco-panoptic", ALL_TASKS),
        ("facebook--maskformer-swin-tiny-ade", ("semantic",)),
    ],
)
def test_a_checkpoint_laid_out_as_released_loads(name: str, tasks: tuple[str, ...]) -> None:
    folder = shared_folder("models", "hub-layouts", name)
    description = checkpoint.describe(folder, SEMANTIC)
    assert description.tasks == tasks
    checkpoint.verify(description, folder)
    checkpoint.load(description, folder)
