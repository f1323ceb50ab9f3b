"""The loop: segment, evaluate, fine-tune, and segment again into the same table, where the new answers are better than the old."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from masklake import reading
from masklake.commands import cli
from masklake.demo.scene_data import write_coco_panoptic
from masklake.demo.scenes import FIRST_TRAINING_SEED, HELD_OUT
from tests.lakes import MODEL, ROOT, rows_by_image, segment, summary

SCENES, LEARNED = 24, 64
STEPS = 32


def swapped(folder: Path, seeds: range) -> Path:
    """Scenes that a program has saved as blue, green, red, in COCO's panoptic format: shapes are as they were, and so is truth, but what
    the demo model knows of colours misleads it.
    """
    write_coco_panoptic(str(folder), seeds, side=160)
    for path in (folder / "images").iterdir():
        pixels = np.asarray(Image.open(path))
        Image.fromarray(np.ascontiguousarray(pixels[..., ::-1])).save(path, quality=90)
    return folder


def finetune(*arguments: str) -> dict[str, Any]:
    """Run the job as a user does; returns the summary of its last line."""
    command = [sys.executable, "-m", "masklake", "finetune", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return summary(done)


@pytest.mark.timeout(900)
def test_fine_tuning_on_a_look_of_its_own_makes_the_next_table_better(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lake = swapped(tmp_path / "lake", HELD_OUT[:SCENES])
    labelled = swapped(tmp_path / "labelled", range(FIRST_TRAINING_SEED, FIRST_TRAINING_SEED + LEARNED))
    table, mine = str(tmp_path / "masks"), str(tmp_path / "mine")

    def segmented(model: str) -> dict[str, Any]:
        done = segment("--model", model, "--input", str(lake / "images"), "--output", table, "--tasks", "panoptic")
        assert done.returncode == 0, done.stderr
        return summary(done)

    def evaluated(*arguments: str) -> dict[str, Any]:
        assert cli.main(["evaluate", "--table", table, "--truth", str(lake / "panoptic.json"), *arguments]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert found["images"]["scored"] == SCENES
        assert not found["missed"]
        scores: dict[str, Any] = found["scores"]
        return scores

    assert segmented(str(MODEL))["images"] == SCENES
    before = evaluated()
    trained = finetune(
        *("--format", "coco-panoptic", "--truth", str(labelled / "panoptic.json"), "--images", str(labelled / "images")),
        *("--model", str(MODEL), "--output", mine, "--steps", str(STEPS), "--validate-every", str(STEPS)),
        *("--rate", "5e-4", "--backbone-rate", "1", "--schedule", "one-cycle", "--scale-min", "1", "--scale-max", "1", "--clip", "5"),
    )
    assert trained["outcome"] == "trained"
    assert segmented(mine)["images"] == SCENES
    after = evaluated()

    # Both answers of each image stay, and are told apart; readers get the newer one.
    assert set(rows_by_image(table).values()) == {2}
    assert evaluated("--model", str(MODEL)) == before
    assert evaluated("--model", mine) == after
    newest = list(reading.open_table(table).newest(task="panoptic", columns=["model", "fingerprint", "status"]))
    assert [(row["model"], row["status"]) for row in newest] == [(mine, "ok")] * SCENES
    assert len({row["fingerprint"] for row in newest}) == 1

    assert segmented(mine)["outcome"] == "nothing to do"
    assert set(rows_by_image(table).values()) == {2}

    # A loop that took the old weights, or scored the old rows, would give the same figures twice.
    assert before["pq"] < 0.55
    assert after["pq"] > before["pq"] + 0.15
    assert trained["best"]["pq"] > before["pq"] + 0.15
