from __future__ import annotations

import importlib.metadata
import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement

from jobs.benchmarks import models as benchmark_models
from jobs.benchmarks import stages as benchmark
from jobs.benchmarks.models import Preset
from masklake.inference import checkpoint
from masklake.inference.options import Options
from masklake.inference.segmenter import Segmenter

ROOT = Path(__file__).parents[3]
NEEDED = ("torch", "transformers", "numpy", "pycocotools", "pillow")
TASKS = ("panoptic", "instance", "semantic")

pytestmark = pytest.mark.slow


def closure(names: tuple[str, ...]) -> set[str]:
    """Distributions that pip installs for `names`, of those that are here."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            requires = importlib.metadata.distribution(name).requires or []
        except importlib.metadata.PackageNotFoundError:
            continue
        found.add(name)
        wanted = [Requirement(line) for line in requires]
        waiting += [one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def bare_site(folder: Path) -> Path:
    """A folder of packages in which only `NEEDED` and what these bring are installed."""
    site = folder / "site"
    site.mkdir()
    for name in closure(NEEDED):
        distribution = importlib.metadata.distribution(name)
        for file in distribution.files or []:
            top = file.parts[0]
            source = Path(str(distribution.locate_file(top)))
            if top not in ("..", "__pycache__") and source.exists() and not (site / top).exists():
                (site / top).symlink_to(source)
    return site


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """Output and JSON of a short run of the demo model where nothing but `NEEDED` is installed."""
    folder = tmp_path_factory.mktemp("benchmark")
    command = [sys.executable, "-S", "-m", "jobs.benchmarks.stages", "--model", "demo", "--sizes", "90x60", "--images", "2", "--batch", "1"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "pipeline"), str(bare_site(folder))]), "OMP_NUM_THREADS": "1"}
    arguments = ["--rounds", "2", "--threads", "1", "--device", "cpu", "--output", str(folder / "out.json")]
    done = subprocess.run([*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result == json.loads((folder / "out.json").read_text())
    return done.stdout, result


def test_it_runs_where_little_is_installed_and_prints_a_table(measured: tuple[str, dict[str, Any]]) -> None:
    table, result = measured
    assert "90x60 -> 160x160, float32 on cpu, 1 threads, batch 1" in table
    for words in ("bare forward, panoptic", "everything, panoptic+instance+semantic", "transformers, instance", "copy and normalise"):
        assert words in table
    assert result["environment"]["torch"]


def test_its_figures_agree_with_each_other(measured: tuple[str, dict[str, Any]]) -> None:
    (figures,) = measured[1]["results"]
    assert (figures["size"], figures["input"], figures["images"], figures["threads"]) == ([60, 90], [160, 160], 2, 1)
    rounds = figures["seconds_by_round"]
    forward = rounds["bare forward, panoptic"]
    assert set(figures["tasks"]) == {*TASKS, "+".join(TASKS)}
    for name, row in figures["tasks"].items():
        assert row["seconds"] == figures["seconds"][f"everything, {name}"]
        ours = rounds[f"everything, {name}"]
        theirs = [sum(pair) for pair in zip(*(rounds[f"transformers, {task}"] for task in name.split("+")), strict=True)]
        assert row["over_bare_forward"] == pytest.approx(statistics.median(a / b for a, b in zip(ours, forward, strict=True)))
        assert row["transformers_over_everything"] == pytest.approx(statistics.median(a / b for a, b in zip(theirs, ours, strict=True)))
    assert set(figures["stages"]) == {"resize", "copy and normalise", "forward", *[f"{task} and run lengths" for task in TASKS]}
    assert all(seconds > 0 for seconds in figures["stages"].values())
    assert set(figures["peak_mib"]) == set(figures["seconds"])
    assert figures["segments"]["panoptic"] > 0


@pytest.mark.parametrize(("option", "value"), [("--sizes", "640"), ("--tasks", "panoptic,depth")])
def test_an_argument_that_makes_no_sense_is_refused(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        benchmark.main([option, value])
    assert exit_info.value.code == 2
    assert value.split(",", maxsplit=1)[-1] in capsys.readouterr().err


@pytest.mark.parametrize(("family", "tolerance"), [("mask2former", 0.5), ("oneformer", 5)])  # whose queries depend on the picture
def test_random_weights_are_taught_to_keep_as_many_queries_as_there_are_patches(family: str, tolerance: float, tmp_path: Path) -> None:
    swin = {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4}
    small = dict.fromkeys(("hidden_dim", "dim_feedforward", "encoder_feedforward_dim"), 32)
    small |= dict.fromkeys(("conv_dim", "mask_dim") if family == "oneformer" else ("feature_size", "mask_feature_size"), 32)
    small |= {"encoder_layers": 1, "decoder_layers": 3, "num_attention_heads": 2}
    preset = Preset(family, swin, {"height": 64, "width": 64}, queries=24, settings=small)
    folder = benchmark_models.write(preset, tmp_path / family)
    torch.set_num_threads(1)
    segmenter = Segmenter.load(folder, checkpoint.describe(folder, Options(tasks=TASKS)), "cpu")
    pictures = [benchmark_models.patchwork((60, 90), 9, seed) for seed in range(4)]
    benchmark_models.teach(segmenter, pictures)
    assert benchmark_models.kept_queries(segmenter, [one.image for one in pictures]) == pytest.approx(9, abs=tolerance)


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["--model", str(tmp_path)]) == 2
    assert "holds no checkpoint" in capsys.readouterr().err
