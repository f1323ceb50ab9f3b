"""Where a training is done: in this process, or on Ray where several processes or machines share it."""

from __future__ import annotations

from masklake.segment.choice import Choice, named_cluster
from masklake.training.settings import WHOLE, FinetuneConfig

__all__ = ["Choice", "choose"]


def choose(settings: FinetuneConfig, gpus: int) -> Choice:
    """As the settings say; else here for one worker, to which Ray would give nothing but its start, where no cluster is named.

    Args:
        settings: of the run.
        gpus: how many this machine has.
    """
    if settings.local is not None:
        where = "in this process, as --local says" if settings.local else "on Ray, as --no-local says"
        return Choice(settings.local, f"training {where}")
    if reason := named_cluster(settings) or _for_ray(settings):
        return Choice(False, f"training on Ray, because of {reason}")
    more = f"; it uses one of this machine's {gpus} GPUs, --workers {gpus} all of them" if gpus > 1 else ""
    return Choice(True, f"training in this process, without Ray (--no-local starts it){more}")


def _for_ray(settings: FinetuneConfig) -> str | None:
    """What only Ray gives."""
    if settings.workers > 1:
        return f"--workers {settings.workers}"
    return None if settings.gpus_per_worker in WHOLE else f"--gpus-per-worker {settings.gpus_per_worker:g}"
