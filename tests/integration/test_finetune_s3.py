"""Fine-tuning with everything in object storage: data, state and the checkpoint that comes out."""

from __future__ import annotations

from pathlib import Path

import pytest

from masklake import storage
from masklake.demo.scene_data import write_coco_panoptic
from masklake.demo.scenes import FIRST_TRAINING_SEED
from masklake.inference import checkpoint
from masklake.inference import source as model_source
from masklake.inference.options import Options
from masklake.training import finetune
from tests import trainings


def test_a_run_in_a_bucket_goes_on_after_a_stop_and_leaves_a_checkpoint_there(bucket: str, tmp_path: Path) -> None:
    root = f"s3://{bucket}"
    write_coco_panoptic(f"{root}/scenes", range(FIRST_TRAINING_SEED, FIRST_TRAINING_SEED + 6), side=64)
    model = trainings.model("segformer", tmp_path)
    places = {"truth": f"{root}/scenes/panoptic.json", "images": f"{root}/scenes/images", "output": f"{root}/models/mine"}
    held_out = {"validation_truth": None, "validation_images": None, "validation_share": 0.1}  # by the bucket's name: one of them, or two
    given = trainings.settings(tmp_path, tmp_path, model, steps=4).model_copy(update=places | held_out)
    with pytest.raises(KeyboardInterrupt):
        trainings.train(given, stop=3)
    assert not storage.exists(f"{root}/models/mine/config.json")
    assert trainings.train(given)[0] == {"event": "resumed", "step": 2}
    assert finetune.finished(finetune.prepare(given))
    assert {"README.md", "config.json", "curves.svg", "model.safetensors"} <= set(storage.list_names(f"{root}/models/mine"))
    described = checkpoint.describe(model_source.resolve(f"{root}/models/mine").fetch(), Options(tasks=("semantic",)))
    assert described.labels[0] == "sky"
