"""What a checkpoint folder can do is told from its files; what is wrong with it is said in one sentence before anything starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from masklake.errors import Refused
from masklake.inference import checkpoint, splits
from masklake.inference.families import FAMILIES, Queries
from masklake.inference.options import Options
from tests.released.vocabulary import tokenizer_files
from tests.unit.inference import tiny_checkpoints

SEMANTIC, PANOPTIC = Options(tasks=("semantic",)), Options(tasks=("panoptic",))


def folder_of(tmp_path: Path, model_type: str = "mask2former", name: str = "model", **config: Any) -> Path:
    """A folder that looks like a checkpoint, with a class head of as many rows as there are labels, and nothing else."""
    folder = tmp_path / name
    folder.mkdir(exist_ok=True)
    labels = config.pop("labels", tiny_checkpoints.LABELS)
    content = {"model_type": model_type, "id2label": {str(key): value for key, value in labels.items()}, **config}
    (folder / "config.json").write_text(json.dumps(content))
    classes = len(labels) + (FAMILIES[model_type].tasks != ("semantic",) if model_type in FAMILIES else 0)
    head = FAMILIES[model_type].head if model_type in FAMILIES else "head"
    save_file({f"{head}.weight": torch.zeros(classes, 1)}, folder / "model.safetensors")
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": {"height": 384, "width": 384}}))
    return folder


def oneformer(tmp_path: Path, **config: Any) -> Path:
    folder = folder_of(tmp_path, "oneformer", text_encoder_vocab_size=600, **config)
    for name, text in tokenizer_files(600).items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def coco_labels() -> dict[int, str]:
    return splits.names("COCO", 133) or {}


def refusal(folder: Path, options: Options) -> str:
    with pytest.raises(Refused) as caught:
        checkpoint.describe(folder, options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_folder_without_config_is_no_checkpoint(tmp_path: Path) -> None:
    assert "has no config.json" in refusal(tmp_path, SEMANTIC)


def test_an_unknown_family_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    message = refusal(folder_of(tmp_path, "llama"), SEMANTIC)
    assert "'llama'" in message
    assert "mask2former" in message


def test_a_class_of_the_family_that_makes_no_masks_is_refused(tmp_path: Path) -> None:
    message = refusal(folder_of(tmp_path, "segformer", architectures=["SegformerForImageClassification"]), SEMANTIC)
    assert "SegformerForSemanticSegmentation" in message


def test_an_impossible_task_is_refused_with_what_is_possible(tmp_path: Path) -> None:
    assert "cannot do panoptic: this checkpoint can do semantic" in refusal(folder_of(tmp_path, "segformer"), PANOPTIC)


@pytest.mark.parametrize(("name", "tasks"), [("mask2former-ade-semantic", ("semantic",)), ("mask2former-coco-instance", ("instance",))])
def test_a_checkpoint_named_after_one_task_does_that_one(tmp_path: Path, name: str, tasks: tuple[str, ...]) -> None:
    folder = folder_of(tmp_path, name=name, thing_ids=[2, 3])
    assert checkpoint.describe(folder, Options(tasks=tasks)).tasks == tasks
    assert "cannot do panoptic" in refusal(folder, PANOPTIC)


@pytest.mark.slow
def test_messages_name_the_model_as_the_user_did(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "segformer", name="0123abc")
    with pytest.raises(Refused, match=r"^facebook/x@main \(segformer\) cannot do panoptic"):
        checkpoint.describe(folder, PANOPTIC, "facebook/x@main")
    description = checkpoint.describe(folder, SEMANTIC, "facebook/x@main")
    for check in (checkpoint.verify, checkpoint.load):
        with pytest.raises(Refused, match=r"^facebook/x@main: the model of its config.json has .* weights, its files hold 5"):
            check(description, folder)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {"class_predictor.weight": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    assert "model-00002-of-00002.safetensors" in refusal(folder, SEMANTIC)


def test_an_unknown_split_is_refused_with_the_setting_that_gives_it(tmp_path: Path) -> None:
    message = refusal(folder_of(tmp_path), Options(tasks=("panoptic", "instance")))
    assert "--thing-labels" in message
    assert "thing_ids" in message


def test_semantic_needs_no_split(tmp_path: Path) -> None:
    description = checkpoint.describe(folder_of(tmp_path), SEMANTIC)
    assert (description.thing_ids, description.things_from) == (frozenset(), "")


def test_things_come_from_the_user_where_nothing_else_says(tmp_path: Path) -> None:
    description = checkpoint.describe(folder_of(tmp_path), Options(tasks=("panoptic",), thing_labels=("ball", "star")))
    assert description.thing_ids == {2, 4}
    assert "unicorn" in refusal(folder_of(tmp_path), Options(tasks=("panoptic",), thing_labels=("unicorn",)))


def test_things_come_from_the_checkpoint_first_and_a_contradiction_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, thing_ids=[2])
    assert checkpoint.describe(folder, PANOPTIC).thing_ids == {2}
    assert "contradicts" in refusal(folder, Options(tasks=("panoptic",), thing_labels=("box",)))


def test_oneformer_class_file_in_the_folder_says_what_is_a_thing(tmp_path: Path) -> None:
    folder = oneformer(tmp_path)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"class_info_file": "scenes.json", "image_processor_type": "OneFormerImageProcessor"})
    )
    info = {str(key): {"name": name, "isthing": int(key > 2)} for key, name in tiny_checkpoints.LABELS.items()}
    (folder / "scenes.json").write_text(json.dumps(info))
    assert checkpoint.describe(folder, PANOPTIC).thing_ids == {3, 4}


@pytest.mark.parametrize(
    ("labels", "name", "things", "stuff"),
    [
        (coco_labels(), "COCO", 80, 53),
        ({key: label.removesuffix("-merged").removesuffix("-other") for key, label in coco_labels().items()}, "COCO", 80, 53),
        (splits.names("ADE20K", 150), "ADE20K", 100, 50),
        (splits.names("Cityscapes", 19), "Cityscapes", 8, 11),
        (splits.names("Cityscapes", 8), "Cityscapes", 8, 0),
        (splits.names("COCO", 80), "COCO", 80, 0),
        (splits.names("Mapillary Vistas", 65), "Mapillary Vistas", 37, 28),
    ],
)
def test_the_known_datasets_are_recognised_by_their_labels(labels: dict[int, str], name: str, things: int, stuff: int) -> None:
    dataset = splits.identify(labels)
    assert dataset is not None
    assert (dataset.name, len(dataset.thing_ids), len(labels) - len(dataset.thing_ids)) == (name, things, stuff)


def test_one_foreign_label_makes_another_dataset() -> None:
    assert splits.identify(coco_labels() | {5: "submarine"}) is None


def test_coco_ids_with_holes_are_recognised() -> None:
    labels = {0: "N/A", **{key + 1: value for key, value in coco_labels().items()}, 134: "LABEL_134"}
    dataset = splits.identify(labels)
    assert dataset is not None
    assert dataset.thing_ids == set(range(1, 81))


def test_a_coco_checkpoint_has_the_originals_settings_and_reference_size(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, labels=coco_labels())
    description = checkpoint.describe(folder, Options(tasks=("panoptic",), resolution="reference"))
    assert description.resize.target(480, 640) == (800, 1066)
    assert (description.settings.object_threshold, description.settings.overlap_threshold) == (0.8, 0.8)
    assert description.dataset == "COCO"


def test_oneformer_on_ade20k_has_its_own_threshold(tmp_path: Path) -> None:
    folder = oneformer(tmp_path, labels=splits.names("ADE20K", 150))
    assert checkpoint.describe(folder, PANOPTIC).settings.object_threshold == 0.5


@pytest.mark.parametrize(("resolution", "target"), [("checkpoint", (384, 384)), ("100x200", (100, 200)), ("400/600", (400, 533))])
def test_resolutions(tmp_path: Path, resolution: str, target: tuple[int, int]) -> None:
    description = checkpoint.describe(folder_of(tmp_path), Options(tasks=("semantic",), resolution=resolution))
    assert description.resize.target(480, 640) == target


def test_a_reference_size_of_an_unknown_dataset_is_refused(tmp_path: Path) -> None:
    assert "--resolution reference" in refusal(folder_of(tmp_path), Options(tasks=("semantic",), resolution="reference"))


def test_a_model_of_one_input_size_refuses_others(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "dpt", image_size=384)
    assert "384x384" in refusal(folder, Options(tasks=("semantic",), resolution="400/600"))


def test_the_answers_settings_hold_what_changes_that_tasks_answers(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, thing_ids=[2])

    def settings(task: str, **options: Any) -> str:
        return json.dumps(
            checkpoint.describe(folder, Options(tasks=("panoptic", "instance", "semantic"), **options)).answer_settings(task),
            sort_keys=True,
        )

    assert settings("panoptic") != settings("panoptic", object_threshold=0.7)
    assert settings("instance") == settings("instance", object_threshold=0.7)
    assert settings("instance") != settings("instance", max_instances=50)
    assert settings("semantic") == settings("semantic", score_threshold=0.2)
    assert settings("semantic") != settings("semantic", resolution="100x100")
    assert settings("semantic") != settings("semantic", postprocess="hf")
    before = settings("semantic")
    save_file({"class_predictor.weight": torch.ones(6, 1)}, folder / "model.safetensors")
    assert settings("semantic") != before


def test_the_licence_of_the_model_card_is_told(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\ntags: [vision]\n---\n# A model\nlicense: none\n")
    assert checkpoint.describe(folder, SEMANTIC).licence == "cc-by-nc-4.0"


def test_missing_and_misshapen_weights_are_refused_by_name(tmp_path: Path) -> None:
    folder = tiny_checkpoints.write("segformer", tmp_path)
    description = checkpoint.describe(folder, SEMANTIC)
    checkpoint.verify(description, folder)
    weights = load_file(folder / "model.safetensors")
    name, head = "decode_head.linear_fuse.weight", "decode_head.classifier"
    for broken in ({k: v for k, v in weights.items() if k != name}, weights | {name: weights[name][:2].clone()}):
        save_file(broken, folder / "model.safetensors", metadata={"format": "pt"})
        for check in (checkpoint.verify, checkpoint.load):
            with pytest.raises(Refused, match=name):
                check(description, folder)
    save_file(weights | {f"{head}.weight": weights[f"{head}.weight"][:2].clone()}, folder / "model.safetensors")
    assert "id2label in config.json names the id 2, but the classes" in refusal(folder, SEMANTIC)


def test_the_losses_buffers_are_not_missed(tmp_path: Path) -> None:
    folder = tiny_checkpoints.write("mask2former", tmp_path)
    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if not k.startswith("criterion.")}, folder / "model.safetensors", metadata={"format": "pt"})
    description = checkpoint.describe(folder, PANOPTIC)
    checkpoint.verify(description, folder)
    checkpoint.load(description, folder)


def without(folder: Path, part: str) -> None:
    """Take the weights whose names contain `part` out of a checkpoint."""
    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if part not in k}, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mask2former", "oneformer", "maskformer"])
def test_a_layer_that_the_backbones_class_declares_unused_is_not_missed(tmp_path: Path, family: str) -> None:
    """Released files lack the last norm of Swin, which transformers 5 carries and never uses: answers are the same without it."""
    folder = tiny_checkpoints.write(family, tmp_path)
    description, pixels = checkpoint.describe(folder, SEMANTIC), torch.rand(1, 3, 64, 64)
    run = FAMILIES[family].run
    before = run(checkpoint.load(description, folder), pixels, ("semantic",))["semantic"]
    without(folder, ".swin.layernorm.")
    checkpoint.verify(description, folder)
    after = run(checkpoint.load(description, folder), pixels, ("semantic",))["semantic"]
    assert isinstance(before, Queries)
    assert isinstance(after, Queries)
    assert torch.equal(before.mask_logits, after.mask_logits)
    assert torch.equal(before.class_logits, after.class_logits)


def test_a_norm_that_answers_need_is_missed(tmp_path: Path) -> None:
    folder = tiny_checkpoints.write("mask2former", tmp_path)
    description = checkpoint.describe(folder, SEMANTIC)
    without(folder, ".encoder.hidden_states_norms.stage1.")
    for check in (checkpoint.verify, checkpoint.load):
        with pytest.raises(Refused, match=r"2 weights are missing \(model\.pixel_level_module\.encoder\.hidden_states_norms"):
            check(description, folder)
