"""A run in numbers: which, from what, and that counters of Ray's get what is added."""

from __future__ import annotations

from typing import Any

import pytest
from ray.util.metrics import Counter, Gauge

from masklake.inference.effort import Effort, Spent
from masklake.segment.metrics import ACTOR, DRIVER, ActorMeter, RunMeter, readings
from masklake.segment.patience import StageSign
from masklake.segment.report import RunTotals
from tests.unit.segment.test_report import failing, file_record

STAGES = (StageSign("load", 2, 5, 1), StageSign("segment", 1, 3, 2, actors=3, pending_actors=1))


def some() -> RunTotals:
    """7 of 10 images committed, 2 of them failed; of 14 planned rows, 9 are."""
    totals = RunTotals(planned_images=10, planned_rows=14)
    for record in (file_record(size=100, rows=7, ok=7, seconds={"fetch": 1.5, "segment": 4.0}), failing("truncated", "a", "b")):
        totals = totals.merge(record)
    return totals.count_images(7, failed=2).committed(12.0)


def test_what_is_shown_of_a_run() -> None:
    assert readings(some(), STAGES, oldest=1_000.0, now=1_600.0) == {
        ("masklake_planned_images", None): 10,
        ("masklake_remaining_images", None): 3,
        ("masklake_lag_seconds", None): 600.0,
        ("masklake_images", "ok"): 5,
        ("masklake_images", "error"): 2,
        ("masklake_rows", "ok"): 7,
        ("masklake_rows", "truncated"): 2,
        ("masklake_written_bytes", None): 200,
        ("masklake_stage_seconds", "fetch"): 1.5,
        ("masklake_stage_seconds", "segment"): 4.0,
        ("masklake_commits", None): 1,
        ("masklake_actors", None): 3,
        ("masklake_actors_waiting", None): 1,
    }


def test_who_has_done_all_is_not_behind_and_who_does_not_know_does_not_say() -> None:
    done = some().count_images(3)
    assert readings(done, STAGES, oldest=1_000.0, now=1_600.0)["masklake_lag_seconds", None] == 0.0
    assert ("masklake_lag_seconds", None) not in readings(done, STAGES, oldest=None, now=1_600.0)


def test_counters_get_what_is_added_and_gauges_what_is(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, float, dict[str, str]]] = []

    def tell(metric: Any, value: float, tags: dict[str, str]) -> None:
        told.append((metric.info["name"], value, tags))

    monkeypatch.setattr(Counter, "inc", tell)
    monkeypatch.setattr(Gauge, "set", tell)
    meter = RunMeter("s3://lake/masks", "run-1", lambda: STAGES)
    for totals in (RunTotals(planned_images=10), some(), some().count_images(1)):
        meter.show(totals, None)
    tags = {"table": "s3://lake/masks", "run_id": "run-1"}
    assert [value for name, value, _ in told if name == "masklake_remaining_images"] == [10, 3, 2]
    ok = [(value, each) for name, value, each in told if name == "masklake_images" and each["status"] == "ok"]
    assert ok == [(5, {**tags, "status": "ok"}), (1, {**tags, "status": "ok"})]
    assert [value for name, value, _ in told if name == "masklake_commits"] == [1]
    started, first, second = (value for name, value, _ in told if name == "masklake_last_commit_time")
    assert started < first == second

    told.clear()
    actor = ActorMeter("s3://lake/masks", "run-1")
    actor.add(1.5, 0, 1_000)
    actor.add(0.5, 2, 500)
    assert [(name.removeprefix("masklake_"), value) for name, value, _ in told] == [
        ("device_busy_seconds", 1.5),
        ("read_bytes", 1_000),
        ("device_busy_seconds", 0.5),
        ("memory_halvings", 2),
        ("read_bytes", 500),
    ]


def test_a_dozen_metrics_and_none_twice() -> None:
    assert len({*DRIVER, *ACTOR}) == len(DRIVER) + len(ACTOR) == 14


def test_effort_counts_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 12.5, 20.0, 21.0])
    monkeypatch.setattr("masklake.inference.effort.perf_counter", lambda: next(clock))
    effort = Effort()
    with effort.at_work():
        effort.halved()
    with effort.at_work():
        pass
    assert effort.take() == Spent(3.5, 1)
    assert effort.take() == Spent(0.0, 0)
