"""Where a run worked and with what, as its report says it: the figures of two runs can be compared only where this is known."""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Protocol

from masklake.segment.settings import RunConfig

_PACKAGES = ("masklake", "ray", "torch", "transformers", "deltalake", "pyarrow", "numpy", "pillow")
_ACCELERATOR = "accelerator_type:"  # how Ray names them among a cluster's resources
_NVIDIA_GPUS = Path("/proc/driver/nvidia/gpus")
_QUOTAS = (Path("/sys/fs/cgroup/cpu.max"), Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us"))


@dataclass(frozen=True)
class Machine:
    """The driver's host, the packages there, and what the cluster gave to the model: `accelerators` are the kinds that the cluster has."""

    host: str
    system: str
    versions: Mapping[str, str]
    cpus: float
    gpus: float
    accelerators: tuple[str, ...]
    device: str
    actors: int
    cpus_per_actor: float
    gpus_per_actor: float


def machine(cluster: Mapping[str, float], device: str, actors: int, cpus_per_actor: float, gpus_per_actor: float) -> Machine:
    """This machine and the cluster, whose resources Ray names so; `actors` are those of the run."""
    accelerators = sorted(name.removeprefix(_ACCELERATOR) for name in cluster if name.startswith(_ACCELERATOR))
    found = {"python": platform.python_version(), **{name: version for name in _PACKAGES if (version := _version(name))}}
    cpus, gpus = cluster.get("CPU", float(os.cpu_count() or 0)), cluster.get("GPU", 0.0)
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    return Machine(platform.node(), system, found, cpus, gpus, tuple(accelerators), device, actors, cpus_per_actor, gpus_per_actor)


class Placed(Protocol):
    """The settings of a command that works on Ray or in its own process."""

    @property
    def local(self) -> bool | None:
        """In its own process; None: as it is best."""

    @property
    def ray_address(self) -> str | None:
        """The cluster."""


def cluster_address(config: Placed) -> str | None:
    """The Ray cluster that the settings name, or whoever submitted this job; None: the work is this machine's own."""
    address = None if config.local else config.ray_address or os.environ.get("RAY_ADDRESS")
    return None if address == "local" else address


def has_gpus(config: RunConfig) -> bool:
    """Whether the model will run on GPUs: as asked for, else as this machine has them; starts nothing."""
    if config.gpus_per_actor is not None:
        return config.gpus_per_actor > 0
    if config.device != "auto":
        return config.device == "cuda"
    # As NVIDIA's driver says: asking torch would take seconds, and a run that finds nothing to do takes hardly more.
    return os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1") and any(_NVIDIA_GPUS.glob("*"))


def cores() -> int:
    """The CPUs that this process may use: a container's, or a batch system's, may be fewer than the machine's."""
    known = _known_cpus()
    return max(1, min(known, math.ceil(_quota() or known)))


def _known_cpus() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _quota() -> float | None:
    """The CPUs that control groups leave to this container; None where there is no bound."""
    newer, quota, period = _QUOTAS
    with suppress(OSError, ValueError):
        most, per = newer.read_text().split() if newer.exists() else (quota.read_text(), period.read_text())
        return float(most) / float(per) if most != "max" and float(most) > 0 else None
    return None


def own_version() -> str:
    """Of this package, as it is installed."""
    return _version("masklake") or "unknown"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # as masklake itself, where Ray was sent its folder
        return None
