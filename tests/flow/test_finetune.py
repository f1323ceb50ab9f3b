"""The fine-tuning job as a user runs it: on Ray, killed and run again, and its checkpoint in the segment job."""

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

from pipeline.training import flow
from pipeline.training.examples import BadExample
from pipeline.training.scenes import HELD_OUT, jpeg, photograph
from tests import trainings
from tests.lakes import ROOT, rows_by_image, segment, summary


def start(config: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "jobs.finetune", "--config", str(config)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.timeout(900)
def test_a_killed_run_goes_on_to_the_same_bits_and_its_checkpoint_segments(tmp_path: Path) -> None:
    scenes, model = trainings.scenes(tmp_path / "scenes"), trainings.model("mask2former", tmp_path)
    given = trainings.settings(scenes, tmp_path / "out", model, steps=40, validate_every=20, save_every=2, cpus_per_worker=1)
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump({name: value for name, value in given.model_dump(mode="json").items() if value not in (None, [])}))

    killed = start(config)
    pointer = tmp_path / "out" / "_training" / "latest.json"
    deadline = time.monotonic() + 270
    while not pointer.exists() and time.monotonic() < deadline and killed.poll() is None:
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    _, errors = killed.communicate()
    assert pointer.exists(), errors
    assert not (tmp_path / "out" / "config.json").exists()  # what is not finished is no checkpoint

    again = start(config)
    output, errors = again.communicate(timeout=400)
    assert again.returncode == 0, errors
    lines = [json.loads(line) for line in output.splitlines()]
    assert lines[0]["event"] == "resumed"
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
    done = segment(
        "--model", str(tmp_path / "out"), "--input", str(images), "--output", str(tmp_path / "masks"), "--tasks", "panoptic,semantic"
    )
    assert done.returncode == 0, done.stderr
    assert summary(done)["exit_code"] == 0
    assert set(rows_by_image(str(tmp_path / "masks")).values()) == {2}


def test_what_the_job_says_is_found_inside_rays_wrapping() -> None:
    inner = BadExample("a.png: broken")
    wrapped = RayTaskError("make", "Traceback ...", inner).as_instanceof_cause()  # type: ignore[no-untyped-call]
    outer = RuntimeError("the data set failed")
    outer.__cause__ = wrapped
    assert flow.reason_of(outer) == flow.reason_of(wrapped) == "a.png: broken"
    assert flow.reason_of(RuntimeError("lost")) == ""
