"""What the fine-tuning job refuses, and what it says it would do, before anything is started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from masklake import demo
from masklake.commands import cli
from tests import trainings

MODEL = ["--model", str(demo.MODEL)]


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any], str]:
    """The job in this process: its exit code, its last line, and what it told the user."""
    code = cli.main(["finetune", *arguments])
    captured = capsys.readouterr()
    return code, json.loads(captured.out.splitlines()[-1]), captured.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (MODEL, "--truth is missing"),
        (["--truth", "a.json"], "--model starts from a checkpoint, --model-config-file from scratch: give one of them"),
        (["--truth", "a.json", "--model", "nowhere"], "--model nowhere: no such folder"),
        (["--truth", "a.json", "--model-config-file", "config.json"], "--resolution is missing"),
        (["--truth", "a.json", *MODEL, "--images", "i"], "a.json"),
        (["--truth", "a.json", *MODEL, "--batch-size", "6", "--micro-batch-size", "4"], "--batch-size 6 must be a multiple"),
        (["--truth", "a.json", *MODEL, "--rate", "0"], "--rate 0 (on the command line): input should be greater than 0"),
        (["--truth", "a.json", *MODEL, "--resolution", "big"], "--resolution big (on the command line): must be HEIGHTxWIDTH"),
        (
            ["--truth", "a.json", *MODEL, "--validation-images", "i"],
            "--validation-images and --validation-masks go with --validation-truth",
        ),
    ],
)
def test_a_wrong_setting_is_refused_by_name(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, last, told = run(["--format", "coco-panoptic", "--output", "out", *arguments], capsys)
    assert code == 2
    assert last["outcome"] == "refused"
    assert expected in told


def test_a_dry_run_says_what_would_be_trained_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenes, output = trainings.scenes(tmp_path), tmp_path / "out"
    data = ["--truth", str(scenes / "panoptic.json"), "--images", str(scenes / "images"), "--output", str(output)]
    code, last, _ = run(
        ["--format", "coco-panoptic", *MODEL, *data, "--freeze-backbone", "--resolution", "checkpoint", "--dry-run"], capsys
    )
    assert code == 0
    assert last["outcome"] == "planned"
    assert all(0 < count <= last["examples"] for count in last["classes"].values())
    assert last["classes"]["sky"] == last["examples"]  # there is a sky over every scene
    assert last["examples"] + last["held_out"] == 12
    assert last["things"] == ["ball", "crate", "cone"]
    assert last["truth"].endswith("panoptic.json is read as coco-panoptic: 12 images, 6 classes")
    assert last["new_weights"] == []  # the demo model knows these labels
    assert 0 < last["parameters_frozen"] < last["parameters"]
    assert not output.exists()


def test_a_dry_run_says_that_there_are_more_objects_than_queries(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenes = trainings.scenes(tmp_path)
    config = json.loads((demo.MODEL / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_queries": 3}))
    data = ["--truth", str(scenes / "panoptic.json"), "--images", str(scenes / "images"), "--output", str(tmp_path / "out")]
    code, last, told = run(["--model-config-file", str(tmp_path / "config.json"), "--resolution", "64x64", *data, "--dry-run"], capsys)
    assert code == 0
    assert len(last["remarks"]) == 1
    assert "have more objects than the model has queries" in told
    assert run(["--model", str(demo.MODEL), *data, "--dry-run"], capsys)[1]["remarks"] == []


def test_a_folder_that_holds_another_checkpoint_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenes = trainings.scenes(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("{}")
    data = ["--truth", str(scenes / "panoptic.json"), "--images", str(scenes / "images"), "--output", str(tmp_path / "out")]
    code, _, told = run(["--format", "coco-panoptic", *MODEL, *data], capsys)
    assert code == 2
    assert "holds a checkpoint already" in told
