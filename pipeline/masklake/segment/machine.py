"""Where a run worked and with what, as its report says it: the figures of two runs can be compared only where this is known."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata

_PACKAGES = ("masklake", "ray", "torch", "transformers", "deltalake", "pyarrow", "numpy", "pillow")
_ACCELERATOR = "accelerator_type:"  # how Ray names them among a cluster's resources


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


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # as masklake itself, where Ray was sent its folder
        return None
