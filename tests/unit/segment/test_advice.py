"""What bounded a run and what another will take: numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from masklake.segment.advice import Advice, advice, loaders
from masklake.segment.estimate import estimate
from masklake.segment.machine import Machine
from masklake.segment.report import RunTotals

GPUS = Machine("host", "Linux", {}, cpus=16, gpus=2, accelerators=("H100",), device="cuda", actors=2, cpus_per_actor=1, gpus_per_actor=1)


def ended(busy: float, fetch: float, decode: float, commit: float = 1.0, first: float = 20.0, last: float = 120.0) -> RunTotals:
    """1,000 images in 130 s; the first answers, of 100 of them, came at `first`, and were committed 2 s later."""
    begun = RunTotals(planned_images=1000).count_images(300).worked(30.0, 0, 0).began(first, 100).committed(first + 2)
    done = begun.count_images(700).worked(busy - 30.0, 0, 0).began(first + 3, 100).committed(last).lasting(130.0)
    return replace(done, seconds={"plan": 2.0, "fetch": fetch, "decode": decode, "segment": busy, "commit": commit})


def test_two_devices_that_are_half_idle_want_cores() -> None:
    """After the first answers 108 of 2 x 100 s. 1,200 s of loading for 120 s of device: 10 cores. Two devices need 60 s, 14 cores 86 s."""
    found = advice(ended(busy=120.0, fetch=100.0, decode=1100.0), GPUS, None)
    assert found.busy_share == pytest.approx(0.54)
    assert found.cpus_per_device == pytest.approx(10.0)
    assert found.bottleneck == "decode"
    assert found.change == "each GPU wants 10.0 cores that decode: add CPUs, or say --decode fast"


@pytest.mark.parametrize(
    ("totals", "stage"),
    [
        pytest.param(ended(busy=190.0, fetch=50.0, decode=500.0), "segment", id="segment"),
        pytest.param(ended(busy=60.0, fetch=1100.0, decode=100.0), "fetch", id="fetch"),
        pytest.param(ended(busy=60.0, fetch=50.0, decode=100.0, commit=80.0), "commit", id="commit"),
        pytest.param(ended(busy=60.0, fetch=50.0, decode=100.0, first=110.0), "start", id="start"),
    ],
)
def test_the_stage_that_needs_longest_is_what_the_others_wait_for(totals: RunTotals, stage: str) -> None:
    found = advice(totals, GPUS, None)
    assert found.bottleneck == stage
    assert found.change


def test_what_was_answered_before_the_first_commit_and_came_in_a_later_one_makes_no_run_faster() -> None:
    """900 images in the 100 s after the first answers, though 700 came in the 98 s after the first commit."""
    assert ended(busy=120.0, fetch=100.0, decode=1100.0).steady_images_per_second == pytest.approx(9.0)


def test_what_a_thousand_images_cost() -> None:
    """130 s at 7.20 an hour are 0.26."""
    assert advice(ended(120.0, 100.0, 500.0), GPUS, 7.20).cost_per_1000 == pytest.approx(0.26)
    assert advice(RunTotals(), None, 7.20) == Advice(None, None, None, None, None)


def test_one_commit_tells_no_share() -> None:
    one = RunTotals().count_images(10).worked(3.0, 0, 0).committed(5.0).lasting(6.0)
    assert advice(one, GPUS, None).busy_share is None
    assert one.steady_images_per_second is None


def test_where_the_models_have_every_core_loading_shares_them() -> None:
    assert loaders(GPUS) == 14
    assert loaders(replace(GPUS, cpus=2, actors=2)) == 2


def report(done: int, seconds: float, **more: Any) -> dict[str, Any]:
    told = {"run_id": f"run-{done}", "model": {"name": "m"}, "images": {"done": done}, "bytes": {"written": 3000 * done}, "device": "cuda"}
    return {**told, "seconds": seconds, "seconds_to_first_answer": 20.0, "images_in_first_answer": 100, **more}


def test_an_estimate_by_the_largest_run_of_the_same_model() -> None:
    """20 s to the first 100 images, then 9 a second: 10,000 images take 20 + 9,900 / 9 = 1,120 s, and 30 MB."""
    others = [report(50, 60.0), report(5000, 100.0, model={"name": "other"}), report(1000, 130.0, steady_images_per_second=9.0)]
    found = estimate(10_000, "m", others, 7.20)
    assert found is not None
    assert found.table_bytes == 30_000_000
    assert found.seconds == pytest.approx(1120)
    assert found.cost == pytest.approx(2.24)
    assert str(found) == (
        "by run run-1000 (1,000 images on cuda), this takes about 19 min and costs about 2.24, and adds about 30.0 MB to the table"
    )


def test_an_estimate_where_little_is_known() -> None:
    once = estimate(100, "m", [report(50, 60.0)], None)
    assert once is not None
    assert (once.seconds, once.cost) == (120.0, None)
    assert estimate(100, "m", [report(0, 60.0), report(50, 60.0, model={"name": "other"})], None) is None
    assert estimate(0, "m", [report(50, 60.0)], None) is None
