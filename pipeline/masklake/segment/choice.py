"""Where a run's work is done: in this process where it is small, on Ray where that pays."""

from __future__ import annotations

import os
from dataclasses import dataclass

from masklake.inference.checkpoint import ModelDescription
from masklake.inference.families import FAMILIES
from masklake.segment.machine import Placed, cluster_address
from masklake.segment.plan import Plan
from masklake.segment.settings import RunConfig

WORTH_RAY = 60.0
"""Seconds of work in this process from which Ray is started: it and its workers take about 15 to 20, and then do up to twice as much."""

_PER_CONCEPT = 0.08  # of the forward: SAM 3's image encoder takes 5.6e12 operations, what each concept has of its own 0.43e12
_PER_CORE, _PER_GPU = 25e9, 5e12  # operations a second, in float32 and with all that is around them
_PER_IMAGE = 0.01  # seconds, beside the forward
_PER_BYTE = 6e-8  # seconds of one core: a JPEG of 12 megapixels and 4 MB takes 0.25
_JOB = ("RAY_JOB_ID", "RAY_JOB_SUBMISSION_ID", "RAY_JOB_CONFIG_JSON_ENV_VAR")  # of a driver that Ray's job manager starts
_PHOTOGRAPH = 1080, 1440  # where the model takes images as they are


@dataclass(frozen=True)
class Choice:
    """Whether the work is done in this process, and what to say of it."""

    local: bool
    words: str


def seconds_here(plan: Plan, model: ModelDescription, weights: int, cores: int, gpu: bool) -> float:
    """About how long the work of a plan takes in this process, without the start, with a model of so many weights: right within a factor of
    2 or so on CPUs.

    Of a model that is told what to look for, concepts that the table holds already cost nothing, and images of which it holds all, next to
    nothing.
    """
    height, width = model.frame.padded(model.resize.target(*_PHOTOGRAPH))
    operations = FAMILIES[model.family].operations * weights * height * width / 1e6
    forward = operations / (_PER_GPU if gpu else _PER_CORE * cores)
    images, passes = plan.model_images, plan.passes(len(model.concepts))
    read = plan.todo_bytes * images / max(1, plan.todo_images)
    return plan.todo_images * _PER_IMAGE + (images + _PER_CONCEPT * passes) * forward + read * _PER_BYTE / cores


def choose(config: RunConfig, seconds: float) -> Choice:
    """As the settings say, else by the time that it takes.

    Args:
        config: the settings.
        seconds: what `seconds_here` says.
    """
    work = f"about {_rounded(seconds)} s of work for this process"
    if config.local is not None:
        return Choice(config.local, f"{work}: done here, as --local says" if config.local else f"{work}: done on Ray, as --no-local says")
    if reason := _for_ray(config):
        return Choice(False, f"{work}: done on Ray, because of {reason}")
    if seconds <= WORTH_RAY:
        return Choice(True, f"{work}: done here, without Ray (--no-local starts it)")
    return Choice(False, f"{work}: done on Ray (--local does without)")


def named_cluster(config: Placed) -> str | None:
    """What says that the work is for a cluster, a setting or a variable; None: nothing does."""
    if config.ray_address is not None:
        return "--ray-address"
    if cluster_address(config):
        return "RAY_ADDRESS"
    job = next((name for name in _JOB if os.environ.get(name)), None)
    return None if job is None else f"{job}: this is a submitted job"


def _for_ray(config: RunConfig) -> str | None:
    """What only Ray gives, or where the user wants the work done."""
    if reason := named_cluster(config):
        return reason
    asked = next((name for name in ("actors", "cpus_per_actor", "gpus_per_actor") if getattr(config, name) is not None), None)
    return None if asked is None else "--" + asked.replace("_", "-")


def _rounded(seconds: float) -> str:
    return f"{seconds:.1f}" if seconds < 1 else f"{float(f'{seconds:.2g}'):,.0f}"
