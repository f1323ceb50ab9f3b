"""Where a training is done: as asked for, on Ray where somebody has one or several workers need it, else here."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from masklake.training.choice import choose
from masklake.training.settings import FinetuneConfig


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_JOB_ID", "RAY_JOB_SUBMISSION_ID", "RAY_JOB_CONFIG_JSON_ENV_VAR"):
        monkeypatch.delenv(name, raising=False)


def asked(**settings: Any) -> FinetuneConfig:
    return FinetuneConfig(truth="a.json", model="m", output="b", **settings)


def test_one_worker_needs_no_ray_whatever_the_machine_has() -> None:
    assert choose(asked(), gpus=0) == choose(asked(), gpus=1)
    assert choose(asked(), 0).words == "training in this process, without Ray (--no-local starts it)"
    assert choose(asked(workers=1, cpus_per_worker=4), 0).local
    assert choose(asked(gpus_per_worker=1), 1).local
    assert choose(asked(gpus_per_worker=0), 1).local
    assert choose(asked(), 4).local
    assert choose(asked(), 4).words.endswith("it uses one of this machine's 4 GPUs, --workers 4 all of them")


def test_local_and_no_local_go_before_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert choose(asked(local=True), 0).local
    monkeypatch.delenv("RAY_ADDRESS")
    assert not choose(asked(local=False), 0).local


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"workers": 2}, "--workers 2"),
        ({"gpus_per_worker": 0.5}, "--gpus-per-worker 0.5"),
        ({"gpus_per_worker": 2}, "--gpus-per-worker 2"),
        ({"ray_address": "10.0.0.1:6379"}, "--ray-address"),
        ({"ray_address": "local"}, "--ray-address"),
    ],
)
def test_what_only_ray_gives_is_rays_and_contradicts_local(settings: dict[str, Any], reason: str) -> None:
    choice = choose(asked(**settings), 4)
    assert not choice.local
    assert choice.words == f"training on Ray, because of {reason}"
    with pytest.raises(ValidationError, match=f"--local and {reason}"):
        asked(local=True, **settings)


@pytest.mark.parametrize("name", ["RAY_ADDRESS", "RAY_JOB_ID", "RAY_JOB_CONFIG_JSON_ENV_VAR"])
def test_a_submitted_job_is_its_clusters(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "10.0.0.1:6379")
    choice = choose(asked(), 0)
    assert not choice.local
    assert name in choice.words
