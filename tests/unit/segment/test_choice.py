"""Where the work is done: as asked for, on Ray where somebody has one, else by the time that the work takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from masklake.inference import checkpoint
from masklake.inference.checkpoint import ModelDescription
from masklake.inference.options import Options
from masklake.inference.source import ModelSource
from masklake.segment import machine
from masklake.segment.choice import WORTH_RAY, choose, seconds_here
from masklake.segment.model import RunModel
from masklake.segment.plan import Plan
from masklake.segment.settings import RunConfig
from tests.lakes import MODEL

SMALL, LARGE = 1.0, WORTH_RAY + 1


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_JOB_ID", "RAY_JOB_SUBMISSION_ID", "RAY_JOB_CONFIG_JSON_ENV_VAR"):
        monkeypatch.delenv(name, raising=False)


def asked(**settings: Any) -> RunConfig:
    return RunConfig(input="a", output="b", **settings)


def test_small_work_is_done_here_and_large_work_on_ray() -> None:
    assert choose(asked(), SMALL).local
    assert choose(asked(), SMALL).words == "about 1 s of work for this process: done here, without Ray (--no-local starts it)"
    assert not choose(asked(), LARGE).local
    assert choose(asked(), 4321.0).words == "about 4,300 s of work for this process: done on Ray (--local does without)"


def test_local_and_no_local_go_before_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert choose(asked(local=True), LARGE).local
    assert not choose(asked(local=False), SMALL).local


@pytest.mark.parametrize("settings", [{"ray_address": "10.0.0.1:6379"}, {"actors": 2}, {"cpus_per_actor": 1}, {"gpus_per_actor": 0}])
def test_what_only_ray_gives_is_rays(settings: dict[str, Any]) -> None:
    choice = choose(asked(**settings), SMALL)
    assert not choice.local
    assert f"because of --{next(iter(settings)).replace('_', '-')}" in choice.words


@pytest.mark.parametrize("name", ["RAY_ADDRESS", "RAY_JOB_ID", "RAY_JOB_CONFIG_JSON_ENV_VAR"])
def test_a_submitted_job_is_its_clusters(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "10.0.0.1:6379")
    choice = choose(asked(), SMALL)
    assert not choice.local
    assert name in choice.words


def test_the_time_grows_with_images_their_bytes_and_the_model_and_falls_with_cores() -> None:
    model = checkpoint.describe(MODEL, Options(tasks=("panoptic",)))

    def seconds(images: int = 1000, size: int = 0, weights: int = 50_000_000, cores: int = 2, gpu: bool = False) -> float:
        plan = Plan(images, size, 0, images, images, size, 0, 0, 0)
        return seconds_here(plan, model, weights, cores, gpu)

    assert seconds(images=2000) == pytest.approx(2 * seconds())
    assert seconds(weights=100_000_000) > seconds() > seconds(cores=16) > seconds(gpu=True)
    assert seconds(size=4_000_000_000) == pytest.approx(seconds() + 120)


MEASURED = [  # family, weights in millions, height and width of its input, seconds of CPU of a forward of one image in one thread
    ("mobilenet_v2", 2.56, 513, 513, 0.68),  # DeepLabV3, 0.60 to 0.79 in all; the others with random weights, on a busy machine
    ("mobilenet_v2", 0.61, 513, 513, 0.09),  # the same, with a depth multiplier of 0.35 and a stride of 16
    ("segformer", 3.75, 512, 512, 0.71),  # B0
    ("segformer", 27.5, 512, 512, 3.57),  # B2
    ("segformer", 84.7, 640, 640, 9.05),  # B5
    ("mask2former", 47.4, 384, 384, 2.07),  # Swin-T
    ("mask2former", 215.5, 800, 1088, 44.1),  # Swin-L
    ("mask2former", 44.1, 800, 1088, 16.1),  # ResNet-50
    ("mask2former", 2.37, 160, 160, 0.018),  # the demo's, of eight images
    ("maskformer", 41.8, 512, 704, 2.45),  # Swin-T
    ("maskformer", 102.3, 640, 864, 9.45),  # Swin-B
    ("maskformer", 41.4, 640, 864, 3.04),  # ResNet-50
    ("oneformer", 50.7, 512, 704, 6.93),  # Swin-T
    ("oneformer", 218.8, 640, 864, 25.8),  # Swin-L
    ("upernet", 59.0, 512, 512, 5.76),  # Swin-T
    ("upernet", 232.2, 640, 640, 18.5),  # Swin-L
    ("upernet", 59.3, 512, 512, 5.58),  # ConvNeXt-T
    ("eomt", 24.0, 640, 640, 3.44),  # ViT-S
    ("eomt_dinov3", 92.4, 640, 640, 8.37),  # ViT-B
    ("detr", 43.0, 800, 1066, 39.3),  # ResNet-50: its mask head works on each of 100 queries
    ("detr", 62.0, 800, 1066, 43.1),  # ResNet-101
    ("dpt", 343.7, 480, 480, 14.1),  # ViT-L
    ("beit", 161.6, 640, 640, 23.5),  # base
    ("data2vec-vision", 161.3, 512, 512, 14.7),  # base
]


@pytest.mark.parametrize(("family", "millions", "height", "width", "measured"), MEASURED)
def test_the_time_is_about_what_was_measured(family: str, millions: float, height: int, width: int, measured: float) -> None:
    demo = checkpoint.describe(MODEL, Options(tasks=("panoptic",)))
    plan = replace(demo.resize, rule="exact", size=(height, width))
    model = replace(demo, family=family, resize=plan, frame=replace(demo.frame, divisor=1))
    told = seconds_here(Plan(100, 0, 0, 100, 100, 0, 0, 0, 0), model, int(millions * 1e6), 1, False) / 100
    assert measured / 2 < told < measured * 2


def test_weights_are_counted_whatever_their_precision(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3, 4), "b": torch.zeros(5, dtype=torch.bfloat16)}, tmp_path / "model.safetensors")
    model = RunModel(ModelSource("folder", str(tmp_path)), tmp_path, checkpoint.describe(MODEL, Options(("panoptic",))), "", "", {}, {})
    assert model.weights == 17


def test_each_concept_that_the_table_does_not_hold_adds_a_share_of_the_forward() -> None:
    model = checkpoint.describe(MODEL, Options(tasks=("panoptic",)))
    told = [replace(model, concepts=tuple("abcdefghijklm"[:count])) for count in (1, 13)]

    def forwards(model: ModelDescription, **held: Any) -> float:
        plan = Plan(1000, 0, 0, 1000, 1000, 0, 0, 0, 0, **held)
        return (seconds_here(plan, model, 50_000_000, 2, False) - 10) / one

    one = 1.0
    one = forwards(model)
    assert forwards(told[0]) == pytest.approx(1.08)
    assert forwards(told[1]) == pytest.approx(1 + 13 * 0.08)
    assert forwards(told[1], concepts=13, held=((400, 12),)) == pytest.approx(1 + 0.08 * (600 * 13 + 400) / 1000)
    assert forwards(told[1], concepts=13, held=((400, 13),)) == pytest.approx(0.6 * (1 + 13 * 0.08))


@pytest.mark.parametrize(("quota", "bound"), [("200000 100000", 2), ("150000 100000", 2), ("max 100000", None), ("-1 100000", None)])
def test_a_container_has_the_cpus_of_its_quota(quota: str, bound: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = tmp_path / "cpu.max", tmp_path / "quota", tmp_path / "period"
    monkeypatch.setattr(machine, "_QUOTAS", files)
    monkeypatch.setattr(machine, "_known_cpus", lambda: 64)
    assert machine.cores() == 64
    most, per = quota.split()
    if most == "-1":
        files[1].write_text(most)
        files[2].write_text(per)
    else:
        files[0].write_text(quota)
    assert machine.cores() == (bound or 64)
