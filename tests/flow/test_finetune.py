"""The fine-tuning job as a user runs it, in one process and on Ray: killed, stopped, with a process lost, always to the same weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
import yaml
from ray.exceptions import RayTaskError
from safetensors.torch import load_file

from masklake.cluster import cluster
from masklake.commands import cli
from masklake.demo.scenes import HELD_OUT, jpeg, photograph
from masklake.training import batches, finetune, flow
from masklake.training.examples import BadExample
from masklake.training.settings import FinetuneConfig
from masklake.training.team import Team
from tests import trainings
from tests.beside import when
from tests.faults import processes
from tests.lakes import ROOT, rows_by_image

STEPS = 28

pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True)
class Whole:
    """A run that nothing befell, by neither engine: its settings, and the weights that came out."""

    given: FinetuneConfig
    weights: bytes

    def again(self, output: Path, **more: Any) -> FinetuneConfig:
        """The same run into another folder."""
        return self.given.model_copy(update={"output": str(output), **more})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """One run in this process, fed by this process, on one thread."""
    folder = tmp_path_factory.mktemp("whole")
    scenes, model = trainings.scenes(folder / "scenes"), trainings.model("mask2former", folder)
    given = trainings.settings(scenes, folder / "out", model, steps=STEPS, validate_every=STEPS // 2, save_every=2, cpus_per_worker=1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        trainings.train(given)
    finally:
        torch.set_num_threads(threads)
    return Whole(given, weights(folder / "out"))


@pytest.fixture(scope="module")
def on_ray() -> Iterator[None]:
    """One Ray for the runs of this module: its start costs more than they do."""
    with cluster(None) as resources, pytest.MonkeyPatch.context() as patch:
        patch.setattr("masklake.cluster.cluster", lambda address: nullcontext(resources))
        yield


@dataclass
class Job:
    """The command in this process: its exit code, its lines, and what the user was told."""

    capsys: pytest.CaptureFixture[str]

    def __call__(self, given: FinetuneConfig, *arguments: str) -> tuple[int, list[dict[str, Any]], str]:
        config = written(given)
        self.capsys.readouterr()
        code = cli.main(["finetune", "--config", str(config), *arguments])
        said = self.capsys.readouterr()
        return code, [json.loads(line) for line in said.out.splitlines() if line.startswith("{")], said.err


@pytest.fixture
def job(capsys: pytest.CaptureFixture[str]) -> Job:
    return Job(capsys)


def written(given: FinetuneConfig) -> Path:
    """The settings as a file of the user's."""
    config = Path(f"{given.output}.yaml")
    config.write_text(yaml.safe_dump({name: value for name, value in given.model_dump(mode="json").items() if value not in (None, [])}))
    return config


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def step_of(folder: Path) -> int:
    """Of the state that lies there."""
    pointer = folder / "_training" / "latest.json"
    return int(json.loads(pointer.read_text())["step"]) if pointer.exists() else 0


def after_a_save(folder: Path, strike: Callable[[], object]) -> AbstractContextManager[None]:
    """Do something from beside, once a state later than the one that is there was saved."""
    before = step_of(folder)
    return when(lambda: step_of(folder) > before, strike)


def kill_below(name: str) -> None:
    processes.kill([each for each in processes.below([os.getpid()]) if name in each.command])


def test_here_a_run_that_is_killed_and_stopped_goes_on_to_the_same_bits_and_its_checkpoint_segments(
    whole: Whole, job: Job, tmp_path: Path
) -> None:
    out, given = tmp_path / "out", whole.again(tmp_path / "out")
    command = [sys.executable, "-m", "masklake", "finetune", "--config", str(written(given))]
    killed = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while not step_of(out) and time.monotonic() < deadline and killed.poll() is None:
        time.sleep(0.02)
    left = processes.below([killed.pid])
    killed.send_signal(signal.SIGKILL)
    _, told = killed.communicate()
    assert step_of(out), told
    assert "training in this process, without Ray" in told
    assert not (out / "config.json").exists()  # what is not finished is not a checkpoint
    assert len(left) > 2  # the command's second process, one that loads, one that decodes
    while still := [each for each in left if any(each.started == now.started for now in processes.below([1]) if now.pid == each.pid)]:
        assert time.monotonic() < deadline, still
        time.sleep(0.1)

    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        began = step_of(out)
        with after_a_save(out, lambda number=number: os.kill(os.getpid(), number)):  # type: ignore[misc]
            returned, lines, _ = job(given)
        assert (returned, lines[-1]["outcome"], lines[-1]["exit_code"]) == (code, "stopped", code)
        assert lines[0] == {"event": "resumed", "step": began}
        assert lines[-2] == {"event": "saved", "step": step_of(out)}
        assert began < step_of(out) < STEPS
    with after_a_save(out, lambda: kill_below("masklake.isolated")):  # what loads, and what decodes for it
        returned, lines, told = job(given)
    assert (returned, lines[-1]["outcome"]) == (0, "trained"), told
    assert weights(out) == whole.weights

    images = tmp_path / "images"
    images.mkdir()
    for seed in HELD_OUT[:2]:
        (images / f"{seed}.jpg").write_bytes(jpeg(photograph(seed)))
    places = ["--model", str(out), "--input", str(images), "--output", str(tmp_path / "masks")]
    assert cli.main(["segment", *places, "--tasks", "panoptic,semantic"]) == 0
    assert set(rows_by_image(str(tmp_path / "masks")).values()) == {2}


@pytest.mark.usefixtures("on_ray")
def test_on_ray_a_run_that_began_here_and_loses_its_worker_ends_with_the_same_bits(whole: Whole, job: Job, tmp_path: Path) -> None:
    out, given = tmp_path / "out", whole.again(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        trainings.train(given, stop=5)
    with after_a_save(out, lambda: kill_below("RayTrainWorker")):
        code, lines, told = job(given, "--no-local")
    assert (code, lines[-1]["outcome"]) == (0, "trained"), told
    assert "training on Ray, as --no-local says" in told
    resumed = [line["step"] for line in lines if line.get("event") == "resumed"]
    assert len(resumed) == 2  # what this process had left, and after the worker was killed
    assert 4 == resumed[0] < resumed[1] < STEPS
    assert weights(out) == whole.weights


@pytest.mark.timeout(600)  # a minute and a half where nothing else runs
@pytest.mark.usefixtures("on_ray")
def test_two_workers_learn_what_one_does_here_and_both_tell_of_a_bad_image(job: Job, tmp_path: Path) -> None:
    scenes, model = trainings.scenes(tmp_path / "scenes"), trainings.model("mask2former", tmp_path)
    every_step = {"save_every": 2, "validate_every": 1, "log_every": 1}
    given = trainings.settings(scenes, tmp_path / "out", model, steps=2, workers=2, bad_examples="skip", **every_step)
    prepared = finetune.prepare(given)
    second = batches.examples_at(prepared.sizes[0], prepared.recipe, range(1, 2))[0]
    broken = Path(prepared.training.examples[second].image.removeprefix("file://"))
    broken.write_bytes(broken.read_bytes()[:100])

    alone = given.model_copy(update={"workers": 1, "output": str(tmp_path / "alone")})
    skipped = []
    for settings, where in ((given, "on Ray, because of --workers 2"), (alone, "in this process, without Ray")):
        code, lines, told = job(settings)
        assert (code, lines[-1]["outcome"]) == (0, "trained"), told
        assert where in told
        skipped.append([line["reason"] for line in lines if line.get("event") == "skipped"])
    assert skipped[0] == skipped[1]
    assert len(skipped[0]) == 1
    assert broken.name in skipped[0][0]
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

    refuse = alone.model_copy(update={"bad_examples": "refuse", "output": str(tmp_path / "refused")})
    code, lines, told = job(refuse, "--local")
    assert (code, lines[-1]["outcome"]) == (1, "failed")
    assert broken.name in lines[-1]["error"]
    assert lines[-1]["error"].endswith("mend it, or give --bad-examples skip")
    assert "Traceback" not in told
    # What a worker on Ray makes of it is in `unit/training/test_ray_stop.py`.
    prepared = finetune.prepare(refuse)
    examples = ray.put(flow._packed(prepared.training.examples))
    feed = flow._feed(examples, prepared.recipe, prepared.sizes[0], prepared.training.reader.load, Team(), range(2))
    with pytest.raises(BadExample) as refused:
        list(feed)
    assert str(refused.value) == lines[-1]["error"]


def test_what_the_job_says_is_found_inside_rays_wrapping() -> None:
    inner = BadExample("a.png: broken")
    wrapped = RayTaskError("make", "Traceback ...", inner).as_instanceof_cause()  # type: ignore[no-untyped-call]
    outer = RuntimeError("the data set failed")
    outer.__cause__ = wrapped
    assert flow.reason_of(outer) == flow.reason_of(wrapped) == "a.png: broken"
    assert flow.reason_of(RuntimeError("lost")) == ""
