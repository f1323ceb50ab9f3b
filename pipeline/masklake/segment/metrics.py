"""A run as metrics, by way of Ray's agents: each node's is scraped by Prometheus. Only the engine that is Ray imports this.

Ray adds `ray_` to a name, and `_total` to a counter's: `ray_masklake_images_total`. Every series has the labels `table` and `run_id`, and
those that Ray adds. The driver shows what is committed; actors show their own work as it happens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from ray.util.metrics import Counter, Gauge

from masklake.segment.patience import StageSign
from masklake.segment.report import RunTotals

Kind = Literal["counter", "gauge"]


class Metric(NamedTuple):
    """What is shown under a name; `label` tells its series apart, beside those that all have."""

    kind: Kind
    text: str
    label: str | None = None


DRIVER: Mapping[str, Metric] = {
    "masklake_planned_images": Metric("gauge", "Images that this run was to do."),
    "masklake_remaining_images": Metric("gauge", "Images that are not committed yet."),
    "masklake_lag_seconds": Metric("gauge", "Age of the oldest image that the run was to do; 0 when it has done all."),
    "masklake_images": Metric("counter", "Committed images: ok, or error where at least one task failed.", "status"),
    "masklake_rows": Metric("counter", "Committed rows: ok, or the code of the error.", "code"),
    "masklake_written_bytes": Metric("counter", "Bytes of the committed files."),
    "masklake_stage_seconds": Metric("counter", "Time by stage, added up over all workers, of what is committed.", "stage"),
    "masklake_commits": Metric("counter", "Commits with rows."),
    "masklake_last_commit_time": Metric("gauge", "Unix time of the last commit; until the first one, of the run's start."),
    "masklake_actors": Metric("gauge", "Model actors that are alive."),
    "masklake_actors_waiting": Metric("gauge", "Model actors that wait for a node, or are starting."),
}
ACTOR: Mapping[str, Metric] = {
    "masklake_device_busy_seconds": Metric("counter", "Time in which the actor's model was at work."),
    "masklake_memory_halvings": Metric("counter", "Batches that did not fit into the device's memory and were halved."),
    "masklake_read_bytes": Metric("counter", "Bytes of the images that the model was given."),
}

Reading = tuple[str, str | None]
"""A metric's name, and the value of its label."""


def readings(totals: RunTotals, stages: Sequence[StageSign], oldest: float | None, now: float) -> dict[Reading, float]:
    """A run in numbers; those of counters are totals.

    Args:
        totals: what is committed.
        stages: how far the flow is.
        oldest: Unix time at which the oldest image to do was modified, where that is known.
        now: Unix time.
    """
    remaining = totals.planned_images - totals.images
    found: dict[Reading, float] = {
        ("masklake_planned_images", None): totals.planned_images,
        ("masklake_remaining_images", None): remaining,
        ("masklake_images", "ok"): totals.images - totals.failed_images,
        ("masklake_images", "error"): totals.failed_images,
        ("masklake_rows", "ok"): totals.ok,
        ("masklake_written_bytes", None): totals.written_bytes,
        ("masklake_commits", None): totals.commits,
        ("masklake_actors", None): sum(stage.actors for stage in stages),
        ("masklake_actors_waiting", None): sum(stage.pending_actors for stage in stages),
    }
    if oldest is not None:
        found["masklake_lag_seconds", None] = max(0.0, now - oldest) if remaining else 0.0
    found |= {("masklake_rows", code): count for code, count in totals.errors.items()}
    return found | {("masklake_stage_seconds", stage): seconds for stage, seconds in totals.stage_seconds.items()}


class RunMeter:
    """The driver's metrics."""

    def __init__(self, table: str, run_id: str, stages: Callable[[], Sequence[StageSign]]) -> None:
        self._series = _Series(DRIVER, table, run_id)
        self._stages, self._commits, self._committed_at = stages, 0, time.time()

    def show(self, totals: RunTotals, oldest: float | None) -> None:
        """Where the run stands; see `readings`."""
        now = time.time()
        if totals.commits > self._commits:
            self._commits, self._committed_at = totals.commits, now
        found = readings(totals, self._stages(), oldest, now)
        self._series.show({**found, ("masklake_last_commit_time", None): self._committed_at})


class ActorMeter:
    """An actor's metrics."""

    def __init__(self, table: str, run_id: str) -> None:
        self._series = _Series(ACTOR, table, run_id)
        self._totals = dict.fromkeys(ACTOR, 0.0)

    def add(self, busy_seconds: float, halvings: int, read_bytes: int) -> None:
        """One more call's work."""
        for name, value in zip(ACTOR, (busy_seconds, halvings, read_bytes), strict=True):
            self._totals[name] += value
        self._series.show({(name, None): value for name, value in self._totals.items()})


class _Series:
    """Ray's own objects, and what they were told last: counters of Ray's take what is added."""

    def __init__(self, metrics: Mapping[str, Metric], table: str, run_id: str) -> None:
        self._metrics, self._tags = metrics, {"table": table, "run_id": run_id}
        self._shown: dict[Reading, float] = {}
        self._of_ray = {
            name: (Counter if metric.kind == "counter" else Gauge)(name, metric.text, (*self._tags, *filter(None, [metric.label])))
            for name, metric in metrics.items()
        }

    def show(self, found: Mapping[Reading, float]) -> None:
        for (name, value_of_label), value in found.items():
            label = self._metrics[name].label
            tags = {**self._tags, **({label: value_of_label} if label and value_of_label else {})}
            series, more = self._of_ray[name], value - self._shown.get((name, value_of_label), 0.0)
            if isinstance(series, Gauge):
                series.set(value, tags)
            elif more > 0:
                series.inc(more, tags)
            self._shown[name, value_of_label] = value
