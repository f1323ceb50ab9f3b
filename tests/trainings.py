"""Small trainings: tiny checkpoints on a few generated scenes, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from masklake.demo.scene_data import write_coco_panoptic
from masklake.demo.scenes import FIRST_TRAINING_SEED, HELD_OUT
from masklake.training import batches, finetune
from masklake.training.batches import MicroBatch
from masklake.training.finetune import Prepared
from masklake.training.settings import FinetuneConfig
from masklake.training.team import Team
from tests.unit.inference import tiny_checkpoints


def scenes(folder: Path) -> Path:
    """Twelve small scenes in COCO's panoptic format, and below `held-out` four others.

    A share would be held out by a hash of the folder's path, which is another one each time: now and then half of the scenes.
    """
    write_coco_panoptic(str(folder), range(FIRST_TRAINING_SEED, FIRST_TRAINING_SEED + 12), side=64)
    write_coco_panoptic(str(folder / "held-out"), HELD_OUT[:4], side=64)
    return folder


def settings(scenes: Path, output: Path, model: Path, **more: Any) -> FinetuneConfig:
    given: dict[str, Any] = {
        "format": "coco-panoptic",
        "truth": str(scenes / "panoptic.json"),
        "images": str(scenes / "images"),
        "validation_truth": str(scenes / "held-out" / "panoptic.json"),
        "validation_images": str(scenes / "held-out" / "images"),
        "model": str(model),
        "resolution": "64x64",
        "output": str(output),
        "steps": 6,
        "batch_size": 4,
        "micro_batch_size": 2,
        "rate": 1e-3,
        "backbone_rate": 1.0,
        "validate_every": 3,
        "save_every": 2,
        "log_every": 2,
        **more,
    }
    return FinetuneConfig(**given)


def model(family: str, folder: Path) -> Path:
    """A tiny checkpoint with few sampled points, which cost most of the time; OneFormer's is as large as its text encoder's heads need."""
    config = tiny_checkpoints.CONFIGS[family]()
    config.train_num_points = 256
    if family == "oneformer":
        config.num_queries, config.text_encoder_n_ctx = 14, 2
        config.hidden_dim = config.conv_dim = config.mask_dim = config.text_encoder_width = 64
    return tiny_checkpoints.write(family, folder, config=config)


def feed(prepared: Prepared, team: Team, first: int, stop: int | None = None) -> Iterator[MicroBatch]:
    """The micro-batches of a worker, made in its own process; after step `stop`, the machine dies."""
    recipe, examples = prepared.recipe, prepared.training.examples
    for step in range(first, prepared.settings.steps):
        if step == stop:
            raise KeyboardInterrupt
        for index in range(team.rank, prepared.settings.micros, team.size):
            places = batches.places(recipe, step, index)
            chosen = [examples[each] for each in batches.examples_at(len(examples), recipe, places)]
            yield batches.make(recipe, places, chosen, prepared.training.reader.load)


def train(
    given: FinetuneConfig, stop: int | None = None, team: Team | None = None, asked: Callable[[], bool] = lambda: False
) -> list[dict[str, Any]]:
    """Run it here; returns what was told. `asked` says after each step whether to stop."""
    told: list[dict[str, Any]] = []
    prepared, member = finetune.prepare(given), team or Team()
    work = finetune.work
    work(prepared, list(prepared.held_out.examples), lambda first: feed(prepared, member, first, stop), member, told.append, asked)
    return told
