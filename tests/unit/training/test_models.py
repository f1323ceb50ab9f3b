"""The model that learns: what it takes over from where it starts, and what is new."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from masklake.demo import MODEL
from masklake.errors import Refused
from masklake.inference import weights
from masklake.training import models, rates
from masklake.training.models import PARTS
from masklake.training.oneformer import texts
from tests import trainings
from tests.shared import shared_folder
from tests.unit.inference import tiny_checkpoints

ROOT = Path(__file__).parents[3]
LABELS = {0: "box", 1: "river", 2: "sky"}  # the tiny checkpoints have sky 0, grass 1, ball 2, box 3, star 4


@pytest.mark.slow
@pytest.mark.parametrize("family", list(PARTS))
def test_rows_of_labels_that_the_checkpoint_knows_are_taken_over_by_name(tmp_path: Path, family: str) -> None:
    folder = trainings.model(family, tmp_path)
    learner = models.build(models.start(folder, None, None, None), LABELS, frozenset({0}), seed=5)
    old, new = weights.load(folder).state_dict(), learner.module.state_dict()
    head = PARTS[family].head
    assert learner.kept_labels == ("box", "sky")
    assert torch.equal(new[f"{head}.weight"][0], old[f"{head}.weight"][3])
    assert torch.equal(new[f"{head}.bias"][2], old[f"{head}.bias"][0])
    assert not any(torch.equal(new[f"{head}.weight"][1], row) for row in old[f"{head}.weight"])
    if PARTS[family].nothing_row:
        assert torch.equal(new[f"{head}.weight"][3], old[f"{head}.weight"][5])
    assert len(new[f"{head}.weight"]) == len(LABELS) + PARTS[family].nothing_row
    others = [name for name in new if name in old and not name.startswith((head, "criterion"))]
    assert len(others) > 50
    assert all(torch.equal(new[name], old[name]) for name in others)
    assert learner.module.config.id2label == LABELS
    assert learner.module.config.thing_ids == [0]


def test_rows_are_taken_over_by_cocos_synonyms(tmp_path: Path) -> None:
    folder = trainings.model("mask2former", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {"0": "sky-other-merged", "1": "motorbike", "2": "tvmonitor", "3": "box", "4": "star"}
    (folder / "config.json").write_text(json.dumps(config))
    learner = models.build(models.start(folder, None, None, None), {0: "tv", 1: "motorcycle", 2: "sky"}, frozenset({0}), seed=5)
    assert learner.kept_labels == ("tv", "motorcycle", "sky")
    head = PARTS["mask2former"].head
    old = load_file(folder / "model.safetensors")
    assert torch.equal(learner.module.state_dict()[f"{head}.weight"][:3], old[f"{head}.weight"][[2, 1, 0]])


def test_a_segformer_learns_more_than_255_classes_alike(tmp_path: Path) -> None:
    """With a head of zeros every class has the same probability: the loss of a pixel of any class is ln 300 = 5.704."""
    labels = {index: f"class {index}" for index in range(300)}
    learner = models.build(models.start(trainings.model("segformer", tmp_path), None, None, None), labels, frozenset(), seed=0)
    head = PARTS["segformer"].head
    with torch.no_grad():
        for name, parameter in learner.module.named_parameters():
            if name.startswith(head):
                parameter.zero_()
    pixels, mask = torch.zeros(1, 3, 64, 64), torch.ones(1, 64, 64, dtype=torch.bool)
    for label in (0, 254, 255, 256, 299):
        loss = models.loss(learner, pixels, [mask], [torch.tensor([label])])
        assert float(loss.detach()) == pytest.approx(5.704, abs=5e-4)
    half = mask.clone()
    half[:, :32] = False
    ignoring = models.loss(learner, pixels, [half], [torch.tensor([255])])
    assert float(ignoring.detach()) == pytest.approx(5.704, abs=5e-4)
    nothing = models.loss(learner, pixels, [mask[:0]], [torch.tensor([], dtype=torch.int64)])
    assert float(nothing.detach()) == 0


@pytest.mark.slow
def test_only_what_is_new_is_said_to_be_new(tmp_path: Path) -> None:
    begin = models.start(trainings.model("mask2former", tmp_path), None, None, None)
    assert models.build(begin, dict(tiny_checkpoints.LABELS), frozenset(), 0).new == ()
    assert models.build(begin, LABELS, frozenset(), 0).new == ("class_predictor.weight (rows of river)",)
    assert begin.folder is not None
    unused = {k: v for k, v in load_file(begin.folder / "model.safetensors").items() if ".swin.layernorm." not in k}
    save_file(unused, begin.folder / "model.safetensors", metadata={"format": "pt"})  # as released files are
    assert models.build(begin, dict(tiny_checkpoints.LABELS), frozenset(), 0).new == ()
    scratch = models.build(models.start(None, MODEL / "config.json", None, None), LABELS, frozenset(), 0)
    assert len(scratch.new) == len(list(scratch.module.parameters()))


def test_a_backbone_is_taken_over_and_one_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """As an image classifier is stored: the same names below `resnet.`, and a head that is not wanted."""
    config = MODEL / "config.json"
    donor = models.build(models.start(None, config, None, None), LABELS, frozenset(), seed=1).module
    prefix = PARTS["mask2former"].backbone
    state = {f"resnet.{name.removeprefix(prefix)}": value for name, value in donor.state_dict().items() if name.startswith(prefix)}
    folder = tmp_path / "backbone"
    folder.mkdir()
    save_file({**state, "classifier.1.weight": torch.zeros(10, 3)}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    learner = models.build(models.start(None, config, folder, None), LABELS, frozenset(), seed=2)
    for name, value in learner.module.state_dict().items():
        if name.startswith(prefix):
            assert torch.equal(value, donor.state_dict()[name])
    assert not any(name.startswith(prefix) for name in learner.new)
    for lost in (next(iter(state)), next(name for name in state if name.endswith("normalization.running_mean"))):
        save_file({name: value for name, value in state.items() if name != lost}, folder / "model.safetensors")
        with pytest.raises(Refused, match=r"--backbone .*: of the backbone's \d+ weights, 1 not there in its shape"):
            models.build(models.start(None, config, folder, None), LABELS, frozenset(), seed=2)


def test_a_segmentation_checkpoint_gives_its_backbone_to_another_family() -> None:
    """The demo model's, a Mask2Former, to the small OneFormer that `jobs/settings/finetune/oneformer-scenes.yaml` trains."""
    demo, prepared = MODEL, ROOT / "jobs" / "settings" / "finetune"
    begin = models.start(None, prepared / "oneformer-small.json", demo, prepared / "letters-tokenizer")
    state = models.build(begin, LABELS, frozenset({0}), seed=2).module.state_dict()
    old = load_file(demo / "model.safetensors")
    taken = [name for name in state if name.startswith(PARTS["oneformer"].backbone)]
    assert taken
    assert all(torch.equal(state[name], old[name]) for name in taken)


@pytest.mark.shared_data
def test_the_resnet_18_of_imagenet_fits_the_configuration_for_camvid() -> None:
    folder = shared_folder("models", "resnet18-imagenet")
    begin = models.start(None, ROOT / "jobs" / "settings" / "finetune" / "mask2former-resnet18.json", folder, None)
    learner = models.build(begin, LABELS, frozenset(), seed=0)
    old = load_file(folder / "model.safetensors")
    name = "encoder.stages.3.layers.1.layer.1.convolution.weight"
    assert torch.equal(learner.module.state_dict()[PARTS["mask2former"].backbone + name], old[f"resnet.{name}"])
    assert not any(each.startswith(PARTS["mask2former"].backbone) for each in learner.new)


def test_a_family_that_is_not_trained_here_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="model_type 'detr' cannot be trained here; these can"):
        models.start(tiny_checkpoints.write("detr", tmp_path), None, None, None)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mask2former", "num_attention_heads": "many"}))
    with pytest.raises(Refused, match="transformers cannot use this configuration"):
        models.build(models.start(None, tmp_path / "config.json", None, None), LABELS, frozenset(), 0)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mask2former", "maskformer", "oneformer"])
def test_the_weights_of_the_loss_are_settings(family: str, tmp_path: Path) -> None:
    """Of a checkpoint too, whose own configuration says otherwise; the new one says what it was trained with."""
    begin = models.start(trainings.model(family, tmp_path), None, None, None)
    changed = models.with_loss(begin, {"class_weight": 3.0, "no_object_weight": 0.5, "points": None})
    old, new = (models.build(each, LABELS, frozenset({0}), 0).module for each in (begin, changed))
    assert old.criterion.empty_weight.tolist() == pytest.approx([1, 1, 1, 0.1])
    assert new.criterion.empty_weight.tolist() == pytest.approx([1, 1, 1, 0.5])
    assert new.config.no_object_weight == 0.5
    assert new.criterion.matcher.cost_class == (1.0 if family == "maskformer" else 3.0)  # as transformers builds them
    assert new.criterion.weight_dict["loss_cross_entropy"] == 3.0
    assert models.with_loss(begin, {"class_weight": None, "points": None}) == begin


@pytest.mark.slow
def test_the_points_of_the_loss_are_a_setting_where_it_has_points(tmp_path: Path) -> None:
    begin = models.start(trainings.model("mask2former", tmp_path / "points"), None, None, None)
    module = models.build(models.with_loss(begin, {"points": 77}), LABELS, frozenset({0}), 0).module
    assert module.criterion.num_points == module.criterion.matcher.num_points == 77
    for family, have in (("maskformer", "--class-weight, --no-object-weight"), ("segformer", "none of them")):
        other = models.start(trainings.model(family, tmp_path / family), None, None, None)
        with pytest.raises(Refused, match=rf"--points 77: the loss of {family} has no such setting \(it has {have}\); leave it out"):
            models.with_loss(other, {"points": 77})


def test_a_frozen_backbone_has_no_gradient_and_the_backbone_has_its_own_rate(tmp_path: Path) -> None:
    begin = models.start(None, MODEL / "config.json", None, None)
    learner = models.build(begin, LABELS, frozenset(), 0)
    groups = models.parameter_groups(learner, rate=1.0, backbone_rate=0.1, weight_decay=0.05)
    assert {group["peak"] for group in groups} == {1.0, 0.1}
    assert {group["weight_decay"] for group in groups} == {0.0, 0.05}
    everything = sum(parameter.numel() for parameter in learner.module.parameters())
    assert sum(parameter.numel() for group in groups for parameter in group["params"]) == everything
    models.freeze(learner, backbone=True, norms=True)
    rest = models.parameter_groups(learner, 1.0, 0.1, 0.05)
    assert {group["peak"] for group in rest} == {1.0}
    backbone = learner.module.get_submodule(PARTS["mask2former"].backbone.rstrip("."))
    assert sum(parameter.numel() for group in rest for parameter in group["params"]) == everything - sum(
        parameter.numel() for parameter in backbone.parameters()
    )


def test_one_cycle_is_torchs_but_for_its_corners() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=200, pct_start=0.1)
    for step in range(200):
        assert rates.factor(step, 200, "one-cycle", 0) == pytest.approx(optimizer.param_groups[0]["lr"], abs=0.09)
        optimizer.step()
        schedule.step()


def test_rates_rise_over_the_warm_up_and_fall_as_they_are_named() -> None:
    assert [rates.factor(step, 100, "constant", 4) for step in (0, 3, 4, 99)] == pytest.approx([0.2, 0.8, 1, 1])
    assert rates.factor(50, 100, "poly", 0) == pytest.approx(0.5**0.9)
    assert rates.factor(25, 100, "cosine", 0) == pytest.approx((1 + 2**-0.5) / 2)
    assert rates.factor(20, 200, "one-cycle", 0) == pytest.approx(1)
    assert rates.factor(199, 200, "one-cycle", 0) == pytest.approx(4e-6)


def test_texts_name_the_segments_in_the_order_of_the_classes_and_are_filled_up() -> None:
    assert texts([2, 0, 2], {0: "box", 2: "sky"}, "panoptic", 5) == [
        "a photo with a box",
        "a photo with a sky",
        "a photo with a sky",
        "a panoptic photo",
        "a panoptic photo",
    ]
    assert texts([0, 0, 0], {0: "box"}, "instance", 2) == ["a photo with a box", "a photo with a box"]
    assert texts([], {}, "semantic", 1) == ["a semantic photo"]


def test_the_queries_of_a_oneformer_from_scratch_differ_without_dropout() -> None:
    """With transformers' own first values of its query embeddings, all queries see and say nearly the same: the spread is 0.0004."""
    prepared = ROOT / "jobs" / "settings" / "finetune"
    begin = models.start(None, prepared / "oneformer-small.json", None, prepared / "letters-tokenizer")
    module = models.build(begin, LABELS, frozenset({0}), seed=0).module.eval()
    task = torch.zeros(1, module.config.task_seq_len, dtype=torch.int64)
    with torch.no_grad():
        features = module.model.pixel_level_module(torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0)))
        decoded = module.model.transformer_module(
            list(features.decoder_features), features.decoder_last_feature, module.model.task_encoder(task.float()), False
        )
    queries = decoded.contrastive_logits[0, :-1]
    spread = float(queries.std(dim=0).mean() / queries.std())
    assert spread > 0.01
