"""The gallery's pictures are begun beside the last commit, and of a run that is stopped, never."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from masklake import stopping
from masklake.segment.account import Account
from masklake.segment.committing import Committing
from masklake.segment.engine import Flowing
from masklake.segment.gallery import Encoded
from masklake.segment.pictures import Pictures
from masklake.segment.settings import Config
from masklake.segment.stages import Written
from masklake.table.append import Table
from masklake.table.write import FileRecord, Sample

NOW = datetime(2026, 1, 2, tzinfo=UTC)
CONFIG = Config(input="a", output="b", model="m", gallery_images=2)


def sample(number: int) -> Sample:
    return Sample(number, f"file:///lake/{number}.jpg", f"part-{number}.parquet")


def written(number: int) -> Written:
    record = FileRecord(f"part-{number}.parquet", 1, NOW, {}, "{}", 1, ok=1, samples=(sample(number),))
    return Written((record,), 1, 0)


class Committed:
    """A table that says what is asked of it."""

    def __init__(self, events: list[str]) -> None:
        self.events = events

    def commit(self, records: list[FileRecord]) -> None:
        self.events.append(f"commit {' '.join(record.path for record in records)}")


def stream(events: list[str]) -> Account:
    account = Account(CONFIG, "run", NOW, "file:///masks", "1")
    flowing = Flowing(iter([written(5), written(3)]), lambda: None, lambda: False, object, str)
    committing = Committing(CONFIG, cast("Table", Committed(events)), account, lambda state: None)
    committing.stream(flowing, lambda: None, lambda records: events.append(f"begin {len(records)}"))
    return account


def test_pictures_begin_before_the_last_commit() -> None:
    events: list[str] = []
    assert stream(events).totals.samples == (sample(3), sample(5))
    assert events == ["begin 2", "commit part-5.parquet part-3.parquet"]


def test_none_begin_where_the_run_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "requested", lambda: True)
    events: list[str] = []
    stream(events)
    assert [event for event in events if event.startswith("begin")] == []
    assert events


def test_what_is_begun_is_what_the_gallery_shows_and_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    pictures = Pictures(CONFIG, "file:///masks", None)

    def make(sample: Sample) -> list[Encoded]:
        made.append(sample.hash)
        return [Encoded({"uri": sample.image_uri})]

    monkeypatch.setattr(pictures, "_made", make)
    account = Account(CONFIG, "run", NOW, "file:///masks", "1")
    account.totals = account.totals.merge(written(7).records[0])
    account.begin_pictures(pictures, [written(number).records[0] for number in (9, 3)])
    shown: Any = [each.card["uri"] for each in pictures.of([sample(3), sample(7), sample(9)])]
    pictures.end()
    assert shown == ["file:///lake/3.jpg", "file:///lake/7.jpg"]
    assert sorted(made) == [3, 7]


def test_none_begins_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    under_way, go_on = threading.Event(), threading.Event()
    pictures = Pictures(CONFIG.model_copy(update={"gallery_images": 9}), "file:///masks", None)

    def make(sample: Sample) -> list[Encoded]:
        made.append(sample.hash)
        under_way.set()
        go_on.wait(60)
        return []

    monkeypatch.setattr(pictures, "_made", make)
    pictures.begin([sample(number) for number in range(9)])
    assert under_way.wait(60)
    pictures.end()
    go_on.set()
    assert len(made) <= 2
