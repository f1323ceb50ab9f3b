"""Training in one process: the loss falls, and a run that was stopped goes on exactly."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from masklake.errors import MasklakeError, Refused
from masklake.inference import checkpoint
from masklake.inference.options import Options
from masklake.inference.segmenter import ModelInput, Segmenter
from masklake.training import finetune
from masklake.training.batches import MicroBatch
from masklake.training.state import Store
from masklake.training.team import Team
from masklake.training.validate import Scores
from tests import trainings

FAMILIES = ("mask2former", "maskformer", "oneformer", "segformer")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve small scenes."""
    return trainings.scenes(tmp_path_factory.mktemp("scenes"))


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.slow
def test_every_family_trains_and_its_checkpoint_answers(scenes: Path, tmp_path: Path, family: str) -> None:
    given = trainings.settings(scenes, tmp_path / "out", trainings.model(family, tmp_path), steps=3, rate=5e-4)
    told = trainings.train(given)
    losses = [line["loss"] for line in told if "loss" in line]
    assert all(np.isfinite(losses))
    scores = [line["validation"] for line in told if "validation" in line]
    assert all(0 <= value <= 1 for each in scores for value in each.values())
    assert set(scores[-1]) == ({"miou"} if family == "segformer" else {"pq", "miou", "ap"})
    tasks = ("semantic",) if family == "segformer" else ("panoptic", "instance", "semantic")
    description = checkpoint.describe(tmp_path / "out", Options(tasks=tasks))
    assert list(description.labels.values()) == ["sky", "water", "grass", "ball", "crate", "cone"]
    if family != "segformer":
        assert description.thing_ids == {3, 4, 5}
    checkpoint.verify(description, tmp_path / "out")
    pixels = np.zeros((64, 64, 3), np.uint8)
    (answer,) = Segmenter.load(tmp_path / "out", description).segment([ModelInput(pixels, (64, 64), tasks)])
    assert all(isinstance(answer[task], list) for task in tasks)


@pytest.mark.slow
def test_the_loss_falls(scenes: Path, tmp_path: Path) -> None:
    base = trainings.model("mask2former", tmp_path)
    given = trainings.settings(
        scenes, tmp_path / "out", base, steps=40, rate=3e-3, log_every=5, validate_every=40, save_every=40, flip=0, scale_min=1, scale_max=1
    )
    losses = [line["loss"] for line in trainings.train(given) if "loss" in line]
    assert losses[-1] < 0.75 * losses[0]


@pytest.mark.parametrize("family", ["mask2former", "oneformer"])
@pytest.mark.slow
def test_a_run_that_was_stopped_ends_with_the_same_bits(scenes: Path, tmp_path: Path, family: str) -> None:
    base = trainings.model(family, tmp_path)
    trainings.train(trainings.settings(scenes, tmp_path / "whole", base))
    stopped = trainings.settings(scenes, tmp_path / "stopped", base)
    with pytest.raises(KeyboardInterrupt):
        trainings.train(stopped, stop=5)
    states = sorted(path.name for path in (tmp_path / "stopped" / "_training").iterdir())
    assert states == ["best-00000003.safetensors", "latest.json", "state-00000004.pt"]
    told = trainings.train(stopped)
    assert told[0] == {"event": "resumed", "step": 4}
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")
    assert (tmp_path / "stopped" / "training.jsonl").read_text() == (tmp_path / "whole" / "training.jsonl").read_text()
    assert [path.name for path in (tmp_path / "stopped" / "_training").iterdir()] == ["latest.json"]
    other = stopped.model_copy(update={"rate": 2e-3})
    with pytest.raises(Refused, match=r"other settings: rate \(then 0\.001, now 0\.002\)"):
        finetune.finished(finetune.prepare(other))
    assert finetune.finished(finetune.prepare(stopped))


@pytest.mark.slow
def test_a_run_that_is_asked_to_stop_saves_its_state_first(scenes: Path, tmp_path: Path) -> None:
    base = trainings.model("mask2former", tmp_path)
    trainings.train(trainings.settings(scenes, tmp_path / "whole", base))
    given = trainings.settings(scenes, tmp_path / "stopped", base)
    answers = iter([False, False, True])
    told = trainings.train(given, asked=lambda: next(answers))
    assert told[-1] == {"event": "saved", "step": 3}  # which no --save-every 2 would have saved
    assert not (tmp_path / "stopped" / "config.json").exists()
    assert trainings.train(given)[0] == {"event": "resumed", "step": 3}
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")


@pytest.mark.parametrize(
    ("asked", "step"),
    [(4, 3), (9, 6)],  # each of six steps asks, and so do the two forward passes of the validations after steps 3 and 6, before they do
    ids=["within", "of the last step"],
)
@pytest.mark.slow
def test_a_stop_in_a_validation_leaves_it_to_the_next_run(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: int, step: int
) -> None:
    monkeypatch.setattr("masklake.training.validate._TOGETHER", 2)
    base = trainings.model("mask2former", tmp_path)
    whole = trainings.train(trainings.settings(scenes, tmp_path / "whole", base))
    given = trainings.settings(scenes, tmp_path / "stopped", base)
    answers = iter([*[False] * (asked - 1), True])
    told = trainings.train(given, asked=lambda: next(answers))
    assert next(answers, None) is None
    assert told[-1] == {"event": "saved", "step": step}
    assert [line["step"] for line in told if "validation" in line] == [3] * (step > 3)
    assert not finetune.finished(finetune.prepare(given))
    again = trainings.train(given)
    assert [line["step"] for line in again if "validation" in line] == [3, 6][step // 6 :]
    assert again[0] == {"event": "resumed", "step": step}
    assert again[-1] == whole[-1]
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")
    assert (tmp_path / "stopped" / "training.jsonl").read_text() == (tmp_path / "whole" / "training.jsonl").read_text()


class Beside(Team):
    """A member that another one's end of a validation reaches."""

    def gather(self, thing: Any) -> list[Any]:
        return [thing, None] if isinstance(thing, Scores) else [thing]


@pytest.mark.slow
def test_a_member_that_heard_of_a_stop_ends_the_validation_of_all(scenes: Path, tmp_path: Path) -> None:
    given = trainings.settings(scenes, tmp_path / "out", trainings.model("segformer", tmp_path))
    assert trainings.train(given, team=Beside())[-1] == {"event": "saved", "step": 3}


def test_a_loss_that_is_not_a_number_ends_the_run_and_names_step_and_images(scenes: Path, tmp_path: Path) -> None:
    given = trainings.settings(scenes, tmp_path / "out", trainings.model("mask2former", tmp_path))
    prepared = finetune.prepare(given)

    def poisoned(first: int) -> Iterator[MicroBatch]:
        for number, micro in enumerate(trainings.feed(prepared, Team(), first)):
            if number == 4:
                micro.pixel_values[0, 0, 0, 0] = np.nan
            yield micro

    with pytest.raises(MasklakeError, match=r"the loss is nan at step 3 on file://.*\.jpg, file://.*\.jpg"):
        finetune.work(prepared, [], poisoned, Team(), lambda line: None)
    assert Store(str(tmp_path / "out"), prepared.asked).check() == 2


@pytest.mark.slow
def test_images_without_any_mask_are_learned_from(scenes: Path, tmp_path: Path) -> None:
    for family in FAMILIES:
        given = trainings.settings(scenes, tmp_path / f"out-{family}", trainings.model(family, tmp_path), steps=1)
        prepared = finetune.prepare(given)
        empty = (
            MicroBatch(
                each.pixel_values, [mask[:0] for mask in each.masks], [ids[:0] for ids in each.label_ids], each.tasks, each.images, []
            )
            for each in itertools.islice(trainings.feed(prepared, Team(), 0), 2)
        )
        finetune.work(prepared, [], lambda first, empty=empty: empty, Team(), lambda line: None)  # type: ignore[misc]
