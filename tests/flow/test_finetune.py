"""The fine-tuning job as a user runs it: on Ray, after a kill, with a worker lost, and its checkpoint in the segment job."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from ray.exceptions import RayTaskError
from safetensors.torch import load_file

from masklake.commands import cli
from masklake.demo.scenes import HELD_OUT, jpeg, photograph
from masklake.training import finetune, flow
from masklake.training.examples import BadExample
from masklake.training.settings import FinetuneConfig
from tests import trainings
from tests.faults import processes
from tests.lakes import ROOT, rows_by_image

HERE = "import sys; from tests import trainings; trainings.train(trainings.FinetuneConfig.model_validate_json(sys.argv[1]))"


def start(config: Path) -> subprocess.Popen[str]:
    return process("-m", "masklake", "finetune", "--config", str(config))


def process(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def written(given: FinetuneConfig, folder: Path) -> Path:
    """The settings as a file of the user's."""
    config = folder / "run.yaml"
    config.write_text(yaml.safe_dump({name: value for name, value in given.model_dump(mode="json").items() if value not in (None, [])}))
    return config


@pytest.mark.timeout(900)
def test_a_killed_run_goes_on_to_the_same_bits_and_its_checkpoint_segments(tmp_path: Path) -> None:
    scenes, model = trainings.scenes(tmp_path / "scenes"), trainings.model("mask2former", tmp_path)
    given = trainings.settings(scenes, tmp_path / "out", model, steps=60, validate_every=20, save_every=2, cpus_per_worker=1)
    config = written(given, tmp_path)
    killed = process("-c", HERE, given.model_dump_json())  # without Ray, whose start takes a minute of two cores: the state is the same
    pointer = tmp_path / "out" / "_training" / "latest.json"
    deadline = time.monotonic() + 270
    while not pointer.exists() and time.monotonic() < deadline and killed.poll() is None:
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    _, errors = killed.communicate()
    assert pointer.exists(), errors
    assert not (tmp_path / "out" / "config.json").exists()  # what is not finished is not a checkpoint

    again = start(config)
    assert again.stdout is not None
    lines = []
    for line in again.stdout:
        lines.append(json.loads(line))
        if lines[-1].get("event") == "saved" and not any(each.get("event") == "saved" for each in lines[:-1]):
            (worker,) = (each for each in processes.below([again.pid]) if "RayTrainWorker" in each.command)
            processes.kill([worker])
    assert again.wait(60) == 0, again.stderr and again.stderr.read()
    resumed = [line["step"] for line in lines if line.get("event") == "resumed"]
    assert len(resumed) == 2  # after the job was killed, and after its worker was
    assert 0 < resumed[0] < resumed[1] < 60
    assert lines[-1]["outcome"] == "trained"

    # The same run in this process, never killed, without Ray.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        trainings.train(given.model_copy(update={"output": str(tmp_path / "whole")}))
    finally:
        torch.set_num_threads(threads)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()

    images = tmp_path / "images"
    images.mkdir()
    for seed in HELD_OUT[:2]:
        (images / f"{seed}.jpg").write_bytes(jpeg(photograph(seed)))
    places = ["--model", str(tmp_path / "out"), "--input", str(images), "--output", str(tmp_path / "masks")]
    assert cli.main(["segment", *places, "--tasks", "panoptic,semantic"]) == 0
    assert set(rows_by_image(str(tmp_path / "masks")).values()) == {2}


@pytest.mark.timeout(900)
def test_two_workers_learn_what_one_does_and_tell_of_a_bad_image(tmp_path: Path) -> None:
    scenes, model = trainings.scenes(tmp_path / "scenes"), trainings.model("mask2former", tmp_path)
    every_step = {"save_every": 4, "validate_every": 1, "log_every": 1}
    given = trainings.settings(scenes, tmp_path / "out", model, steps=4, workers=2, bad_examples="skip", **every_step)
    broken = Path(finetune.prepare(given).training.examples[0].image.removeprefix("file://"))
    broken.write_bytes(broken.read_bytes()[:100])

    done = start(written(given, tmp_path))
    output, errors = done.communicate(timeout=400)
    assert done.returncode == 0, errors
    lines = [json.loads(line) for line in output.splitlines()]
    skipped = [line["reason"] for line in lines if line.get("event") == "skipped"]
    assert skipped
    assert all(broken.name in reason for reason in skipped)

    alone = given.model_copy(update={"workers": 1, "output": str(tmp_path / "alone")})
    told = trainings.train(alone)
    assert skipped == [line["reason"] for line in told if line.get("event") == "skipped"]
    each, both = ([json.loads(line) for line in (tmp_path / name / "training.jsonl").read_text().splitlines()] for name in ("alone", "out"))
    assert [set(line) for line in each] == [set(line) for line in both]
    assert each[0]["loss"] == pytest.approx(both[0]["loss"], rel=1e-5)
    assert each[0]["gradient_norm"] == pytest.approx(both[0]["gradient_norm"], rel=1e-4)
    assert each[2]["loss"] == pytest.approx(both[2]["loss"], rel=1e-3)  # after a step of AdamW, which divides by the root of the square
    assert each[1]["validation"] == pytest.approx(both[1]["validation"], abs=0.02)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("alone", "out"))
    assert one.keys() == two.keys()
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-3, atol=1e-4, msg=name)

    refused = start(written(alone.model_copy(update={"bad_examples": "refuse", "output": str(tmp_path / "none")}), tmp_path))
    output, errors = refused.communicate(timeout=400)
    assert refused.returncode == 1
    assert broken.name in errors
    assert "--bad-examples skip" in errors
    assert "Traceback" not in errors


def test_what_the_job_says_is_found_inside_rays_wrapping() -> None:
    inner = BadExample("a.png: broken")
    wrapped = RayTaskError("make", "Traceback ...", inner).as_instanceof_cause()  # type: ignore[no-untyped-call]
    outer = RuntimeError("the data set failed")
    outer.__cause__ = wrapped
    assert flow.reason_of(outer) == flow.reason_of(wrapped) == "a.png: broken"
    assert flow.reason_of(RuntimeError("lost")) == ""
