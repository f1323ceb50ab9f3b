"""`--where` and `--since`: what limits a run is understood before anything is listed."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from masklake.config import time_of
from masklake.errors import Refused
from masklake.images.conditions import parse
from masklake.images.discover import discover
from masklake.images.source import Input
from masklake.segment.plan import Filter, Plan, WorkList, make_plan, read_group
from tests.unit.segment.test_plan import page


def planned(where: str, *pages: pa.Table) -> Plan:
    return make_plan(pages, None, {"panoptic": "p1"}, Filter(parse(where)))


LISTING = page("dt=2026-11-21/a.jpg", "dt=2026-11-22/site=x/b.jpg", "dt=2026-11-22/b.png", image_bytes=pa.array([10, 200, None]))


@pytest.mark.parametrize(
    ("where", "images"),
    [
        ("dt = '2026-11-22'", 2),
        ("dt >= '2026-11-22' AND site = 'x'", 1),
        ("site IS NULL", 2),
        ("image_bytes > 100", 1),
        ("image_bytes IS NULL OR Image_Bytes < 100 -- a comment", 2),
        ("ends_with(image_uri, '.jpg')", 2),
        ("\"dt\"::DATE = DATE '2026-11-21'", 1),
        ("true", 3),
    ],
)
def test_a_condition_limits_the_plan(where: str, images: int) -> None:
    plan = planned(where, LISTING)
    assert (plan.images, plan.todo_images, plan.left_out) == (images, images, 3 - images)


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("dt == = 1", "syntax error"),
        ("dt = '1'; DROP TABLE x", "one SQL condition"),
        ("nosuch(dt)", "nosuch"),
        ("sum(image_bytes) > 1", "aggregate"),
        ("dt + 1", ""),
        ("dt IN (SELECT 1)", "without subqueries"),
        ("1 = 1 UNION SELECT * FROM read_csv('/etc/passwd')", "with nothing behind it"),
        ("1 = 1) UNION SELECT 1 WHERE (1 = 1", "syntax error"),
        ("st_area(dt) > 1", "st_area"),  # of an extension, which is not fetched
        ("image_modified > 'yesterdayish'", "yesterdayish"),
    ],
)
def test_what_is_no_condition_is_refused_in_one_sentence(where: str, sentence: str) -> None:
    with pytest.raises(Refused) as refusal:
        parse(where)
    assert str(refusal.value).startswith(f"--where {where}: ")
    assert sentence in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_key_that_no_path_has_and_a_value_that_does_not_suit_are_refused() -> None:
    with pytest.raises(Refused, match="no image has day in its path, as a key=value folder"):
        planned("day = '2026-11-22'", LISTING)
    with pytest.raises(Refused, match="--where dt::INT = 1: Conversion Error"):
        planned("dt::INT = 1", LISTING)
    assert planned("day = '2026-11-22'").images == 0  # nothing was listed, so nothing is known of keys


def test_times_are_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    listing = page("a", image_modified=pa.array([datetime(2026, 11, 22, tzinfo=UTC)], pa.timestamp("us", tz="UTC")))
    assert planned("image_modified >= '2026-11-22'", listing).images == 1
    assert planned("image_modified > '2026-11-22'", listing).images == 0


def test_a_condition_that_leaves_rows_keeps_the_first_mention(tmp_path: Path) -> None:
    plan = make_plan(
        [page("x=1/a", "x=2/b", "x=1/a", "x=1/c")], None, {"panoptic": "p1"}, Filter(parse("x = '1'")), WorkList(str(tmp_path))
    )
    assert (plan.images, plan.left_out) == (2, 1)
    assert read_group(str(tmp_path), 0)["image_uri"].to_pylist() == ["s3://lake/x=1/a", "s3://lake/x=1/c"]


NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("24h", NOW - timedelta(hours=24)),
        ("7d", NOW - timedelta(days=7)),
        ("30m", NOW - timedelta(minutes=30)),
        ("2026-11-22", datetime(2026, 11, 22, tzinfo=UTC)),
        ("2026-11-22T10:00Z", datetime(2026, 11, 22, 10, tzinfo=UTC)),
        ("2026-11-22T10:00+02:00", datetime(2026, 11, 22, 8, tzinfo=UTC)),
    ],
)
def test_since_is_a_time_or_a_span(text: str, time: datetime) -> None:
    assert time_of(text, NOW) == time


def test_since_leaves_out_what_was_modified_before(tmp_path: Path) -> None:
    for name, when in (("old.jpg", 1_000_000_000), ("new.jpg", 2_000_000_000)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (when, when))

    def names(since: int) -> list[str]:
        pages = discover(Input(str(tmp_path), since=datetime.fromtimestamp(since, UTC)))
        return sorted(uri.rpartition("/")[2] for page in pages for uri in page["image_uri"].to_pylist())

    assert names(1_000_000_000) == ["new.jpg", "old.jpg"]
    assert names(1_000_000_001) == ["new.jpg"]
    assert names(2_000_000_001) == []
