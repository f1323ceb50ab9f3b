"""What bounded a run, and what to change: arithmetic on its totals, so that whoever pays for the machines need not guess.

Each stage has work to do, in seconds of a worker, and workers that do it beside each other; the one that needs the longest is what the
others wait for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from masklake.segment.machine import Machine
from masklake.segment.report import RunTotals

_ENOUGH = 0.8  # a device that is busy for this share is what bounds the run


@dataclass(frozen=True)
class Advice:
    """What there is to say; None is what a run this short, or one that did nothing, does not tell."""

    busy_share: float | None
    """Of the time from the first commit to the last, in which a model was at work, on average."""
    cpus_per_device: float | None
    """Cores that load and decode images as fast as one device answers them, at the size of these images."""
    bottleneck: str | None
    """`start`, `plan`, `fetch`, `decode`, `segment` or `commit`."""
    change: str | None
    """What would make it faster."""
    cost_per_1000: float | None
    """In the currency of `--price-per-hour`."""

    def keys(self) -> dict[str, Any]:
        """As the report and the last line have it."""
        return {
            "device_busy_share": _rounded(self.busy_share),
            "cpus_per_device": _rounded(self.cpus_per_device),
            "bottleneck": self.bottleneck,
            "advice": self.change,
            "cost_per_1000_images": _rounded(self.cost_per_1000, 6),
        }


def advice(totals: RunTotals, machine: Machine | None, price_per_hour: float | None) -> Advice:
    """Of a run that has ended: its totals, where it worked, and what its machines cost together."""
    cost = None
    if price_per_hour is not None and totals.images:
        cost = price_per_hour * totals.wall_seconds / 3600 / totals.images * 1000
    if machine is None or not totals.images or not totals.busy_seconds:
        return Advice(None, None, None, None, cost)
    cpus = (totals.seconds.get("fetch", 0.0) + totals.seconds.get("decode", 0.0)) / totals.busy_seconds
    share = _busy_share(totals, machine)
    stage = _bottleneck(totals, machine, share)
    return Advice(share, cpus, stage, _change(stage, totals, machine, cpus), cost)


def _busy_share(totals: RunTotals, machine: Machine) -> float | None:
    """From the first answers on; what the models did for these is left out by their share of the images."""
    if totals.steady_seconds is None:
        return None
    busy = totals.busy_seconds * (1 - totals.first_answer_images / totals.images)
    return min(1.0, busy / (totals.steady_seconds * machine.actors))


def loaders(machine: Machine) -> float:
    """Cores that are left for loading: all, where the models have every core and share them."""
    taken = machine.actors * machine.cpus_per_actor
    return max(1.0, machine.cpus - taken if taken < machine.cpus else machine.cpus)


def _bottleneck(totals: RunTotals, machine: Machine, share: float | None) -> str:
    seconds = totals.seconds
    fetch, decode = seconds.get("fetch", 0.0), seconds.get("decode", 0.0)
    needed = {
        "segment": totals.busy_seconds / machine.actors,
        "decode" if decode >= fetch else "fetch": (fetch + decode) / loaders(machine),
        "commit": seconds.get("commit", 0.0),
        "plan": seconds.get("plan", 0.0),
    }
    most = max(needed, key=lambda stage: needed[stage])
    if totals.first_commit_seconds and totals.first_commit_seconds - needed["plan"] > totals.wall_seconds / 2 > needed[most]:
        return "start"
    return "segment" if share is not None and share >= _ENOUGH else most


def _change(stage: str, totals: RunTotals, machine: Machine, cpus: float) -> str:
    device = "GPU" if machine.gpus_per_actor else "model"
    return {
        "start": f"{totals.first_commit_seconds or 0:.0f} of {totals.wall_seconds:.0f} s went into it: larger runs pay it less often",
        "plan": "name a day's folder, or an S3 Inventory, as --input",
        "fetch": "move the machines to its region, or pack small images into tar shards",
        "decode": f"each {device} wants {cpus:.1f} cores that decode: add CPUs, or say --decode fast",
        "segment": (
            "the GPUs bound the run: more of them (--actors), or a smaller --resolution, make it faster"
            if machine.gpus_per_actor
            else "the model bounds the run: GPUs, more CPUs, or a smaller --resolution make it faster"
        ),
        "commit": "say a larger --commit-seconds, or compact the table",
    }[stage]


def _rounded(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)
