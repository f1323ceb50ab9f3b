"""Who is alive, who goes on, and who gives way: decided by markers that change or do not, and by the order of beginnings in the log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from deltalake import DeltaTable

from masklake.errors import Fenced, MasklakeError
from masklake.table import overlap, runs
from masklake.table.append import Table
from masklake.table.overlap import Watch, may_go_on
from masklake.table.runs import Marker
from tests.tables import BY, LAKE, begun, files, lose_an_answer

DAY = LAKE + "dt=2026-11-22/"


def marker(run_id: str, beat: int) -> Marker:
    return Marker(run_id, LAKE, begun=1, seen=0, beat=beat)


def in_folder(folder: Path) -> set[str]:
    return {path.name for path in (folder / "_masklake" / "live").iterdir()}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hearts that beat, and looks that come, many times a second."""
    monkeypatch.setattr(runs, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(overlap, "LOOK_SECONDS", 0.05)


class Told:
    """What a run says while it gives way."""

    def __init__(self, when_waiting: Callable[[], object] = lambda: None) -> None:
        self.said: list[str] = []
        self._when_waiting = when_waiting

    def say(self, text: str) -> None:
        self.said.append(text)
        if text.startswith("waiting for"):
            self._when_waiting()

    def may_go_on(self, table: Table, on_overlap: str, lease: float, scope: str = LAKE) -> bool:
        return may_go_on(table, scope, on_overlap, lease, self.say, lambda doing: None)


class Clock:
    """A clock of whoever looks: it stands for a while, however long a busy machine takes, and then goes on by 100 s from look to look."""

    sleep = staticmethod(time.sleep)

    def __init__(self, stands: Callable[[], bool]) -> None:
        self._now, self._stands = 0.0, stands

    def monotonic(self) -> float:
        self._now += 0 if self._stands() else 100
        return self._now


# Alive or dead


def test_a_run_is_alive_once_its_marker_changed_and_dead_when_it_has_not_for_a_lease() -> None:
    watch = Watch(30)
    assert watch.look([marker("a", 5), marker("b", 5)], 1000) == {"a": False, "b": False}
    assert watch.look([marker("a", 6), marker("b", 5)], 1003) == {"a": True, "b": False}
    assert watch.look([marker("a", 6), marker("b", 5)], 1029) == {"a": True, "b": False}
    assert watch.look([marker("a", 6), marker("b", 5)], 1030) == {"a": True}
    assert watch.look([marker("a", 6), marker("b", 5)], 1033) == {}
    assert watch.look([marker("a", 7), marker("b", 5)], 1034) == {"a": True}, "it was only paused"


def test_a_run_without_a_marker_is_over() -> None:
    watch = Watch(30)
    assert watch.look([marker("a", 5)], 0) == {"a": False}
    assert watch.look([], 1) == {}


def test_a_marker_changes_while_its_run_lives_and_stays_when_it_failed(tmp_path: Path, quick: None) -> None:
    table = Table.open_or_create(str(tmp_path), BY)
    table.begin_run(LAKE, "run-1")
    beats = set[int]()
    while len(beats) < 3:
        beats.update(found.beat for found in runs.markers(table.uri))
        time.sleep(0.01)
    table.rest()
    (last,) = runs.markers(table.uri)
    time.sleep(0.2)
    assert runs.markers(table.uri) == [last]
    assert (last.run_id, last.scope, last.begun) == ("run-1", LAKE, 1)


def test_a_finished_run_leaves_no_marker_however_late_its_heart_beats(tmp_path: Path, quick: None) -> None:
    table = Table.open_or_create(str(tmp_path), BY)
    table.begin_run(LAKE, "run-1")
    time.sleep(0.1)
    table.finish_run()
    time.sleep(0.2)
    assert in_folder(tmp_path) == set()


# Who is ahead


@pytest.mark.parametrize(
    ("scope", "ahead"), [(LAKE, ["run-1"]), (DAY, ["run-1"]), (LAKE + "dt=2026-11-23/", []), ("s3://lake/", ["run-1"]), ("s3://other/", [])]
)
def test_only_unfinished_runs_on_overlapping_input_are_ahead(tmp_path: Path, scope: str, ahead: list[str]) -> None:
    begun(tmp_path, "run-0").finish_run()
    begun(tmp_path, "run-1", DAY)
    table = Table.open_or_create(str(tmp_path), BY)
    assert [found.run_id for found in table.unfinished(scope)] == ahead


def test_a_run_that_began_just_now_is_found_though_its_marker_does_not_say_so_yet(tmp_path: Path) -> None:
    table = begun(tmp_path, "run-1")
    early = Marker("run-1", LAKE, begun=-1, seen=0, table=table.table_id)
    runs.mark(table.uri, early)  # as it is between the commit and the marker's second version
    other = Table.open_or_create(str(tmp_path), BY)
    assert other.unfinished(LAKE) == [replace(early, begun=1)]


def test_a_run_that_has_not_begun_is_not_ahead(tmp_path: Path) -> None:
    table = Table.open_or_create(str(tmp_path), BY)
    runs.mark(table.uri, Marker("run-1", LAKE, begun=-1, seen=0, table=table.table_id))
    assert table.unfinished(LAKE) == []
    assert table.begin_run(LAKE, "run-2", polite=True, beat=False)


def test_a_marker_of_a_time_whose_log_is_gone_is_of_a_run_that_never_began(tmp_path: Path) -> None:
    table = begun(tmp_path, "run-1")
    runs.mark(table.uri, Marker("run-0", LAKE, begun=-1, seen=-1, table=table.table_id))
    for name in "ab":
        table.commit(files(table, "run-1", [name]))
    table.finish_run()
    DeltaTable(str(tmp_path)).create_checkpoint()
    (tmp_path / "_delta_log" / f"{1:020d}.json").unlink()
    later = Table.open_or_create(str(tmp_path), BY)
    assert later.unfinished(LAKE) == []
    assert later.never_begun(LAKE) == [], "whether it left files nobody can tell: its marker is for the vacuum"


# What died before it began


def clear(folder: Path, scope: str = LAKE, lease: float = 0.2) -> list[str]:
    said: list[str] = []
    overlap.clear_never_begun(Table.open_or_create(str(folder), BY), scope, Watch(lease), said.append, lambda text: None)
    return said


def test_a_marker_of_a_run_that_died_before_its_beginning_is_taken_away_with_its_work_list(tmp_path: Path, quick: None) -> None:
    table = Table.open_or_create(str(tmp_path), BY)
    runs.mark(table.uri, Marker("dead", DAY, begun=-1, seen=0, table=table.table_id))
    plan = tmp_path / "_masklake" / "runs" / "dead" / "plan-0.parquet"
    plan.parent.mkdir(parents=True)
    plan.touch()
    assert clear(tmp_path, scope=LAKE + "dt=2026-11-23/") == [], "it is on other input"
    assert in_folder(tmp_path) == {"dead.json"}
    assert clear(tmp_path) == ["run dead ended before it could begin: what it left is deleted"]
    assert in_folder(tmp_path) == set()
    assert not plan.exists()


def test_a_run_that_is_about_to_begin_is_left_alone(tmp_path: Path, quick: None) -> None:
    table = Table.open_or_create(str(tmp_path), BY)
    heart = runs.Heartbeat(table.uri, Marker("alive", LAKE, begun=-1, seen=0, table=table.table_id))
    time.sleep(0.1)
    assert clear(tmp_path, lease=60) == [], "known at its first beat"
    heart.stop()
    assert in_folder(tmp_path) == {"alive.json"}


def test_markers_that_somebody_needs_stay(tmp_path: Path, quick: None) -> None:
    table = begun(tmp_path, "begun")
    runs.mark(table.uri, Marker("just-now", LAKE, begun=-1, seen=0, table=table.table_id))
    table._append([], {"event": "begin", "run_id": "just-now", "scope": LAKE})  # it died between that and its marker's second version
    runs.mark(table.uri, Marker("compaction", "", begun=-1, seen=0, table=table.table_id))
    assert clear(tmp_path) == []
    assert in_folder(tmp_path) == {"begun.json", "just-now.json", "compaction.json"}


def test_a_marker_of_a_table_that_was_here_before_is_taken_away(tmp_path: Path, quick: None) -> None:
    runs.mark(str(tmp_path), Marker("of-before", DAY, begun=7, seen=6, table="00000000-0000-0000-0000-000000000000"))
    assert clear(tmp_path) == ["run of-before ended before it could begin: what it left is deleted"]
    assert in_folder(tmp_path) == set()


def test_a_run_whose_beginning_the_store_refused_leaves_nothing_for_long(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table.open_or_create(str(tmp_path), BY)
    with monkeypatch.context() as broken:
        broken.setattr(Table, "_append", lambda *given: (_ for _ in ()).throw(MasklakeError("no answer")))
        with pytest.raises(MasklakeError):
            table.begin_run(LAKE, "refused")
    table.rest()
    assert in_folder(tmp_path) == {"refused.json"}
    clear(tmp_path)
    assert in_folder(tmp_path) == set()


# Giving way


def test_takeover_asks_nobody(tmp_path: Path) -> None:
    begun(tmp_path, "run-1")
    told = Told()
    assert told.may_go_on(Table.open_or_create(str(tmp_path), BY), "takeover", lease=60)
    assert told.said == []


def test_skip_gives_way_to_a_run_that_lives_and_not_to_a_dead_one(tmp_path: Path, quick: None) -> None:
    living = Table.open_or_create(str(tmp_path), BY)
    living.begin_run(LAKE, "run-1")
    other, told = Table.open_or_create(str(tmp_path), BY), Told()
    assert not told.may_go_on(other, "skip", lease=60, scope=DAY)
    assert told.said[-1] == "skipped: run run-1 is at work on the same or overlapping input (--on-overlap skip)"
    living.rest()
    assert told.may_go_on(other, "skip", lease=0.5)
    assert told.said[-1] == "run run-1 has not responded for 0.5 s: treated as dead"


def test_wait_comes_back_when_the_other_has_finished(tmp_path: Path, quick: None) -> None:
    living = Table.open_or_create(str(tmp_path), BY)
    living.begin_run(LAKE, "run-1")
    other, told = Table.open_or_create(str(tmp_path), BY), Told(when_waiting=living.finish_run)
    assert told.may_go_on(other, "wait", lease=60)
    assert told.said[-1].startswith("waiting for run run-1, on the same or overlapping input")
    assert other.unfinished(LAKE) == []


def test_wait_comes_back_when_the_other_dies(tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    living = Table.open_or_create(str(tmp_path), BY)
    living.begin_run(LAKE, "run-1")
    waiting, told = Table.open_or_create(str(tmp_path), BY), Told(when_waiting=living.rest)
    monkeypatch.setattr(overlap, "time", Clock(stands=lambda: living._heartbeat is not None))
    assert told.may_go_on(waiting, "wait", lease=60)
    assert [line.split(",")[0] for line in told.said if "dead" not in line][-1] == "waiting for run run-1"
    assert told.said[-1].endswith("treated as dead")
    assert waiting.begin_run(LAKE, "run-2", polite=True, beat=False)
    with pytest.raises(Fenced, match="run-2"):  # it was only paused: what protects the table is the log
        living.commit(files(living, "run-1", ["a"]))


# The same instant


def test_only_dead_is_said_of_runs_that_died_and_not_of_one_that_lives(tmp_path: Path, quick: None) -> None:
    def ask(lease: float) -> bool:
        return overlap.only_dead(Table.open_or_create(str(tmp_path), BY), LAKE, lease, lambda text: None, lambda text: None)

    assert not ask(60), "there is none"
    dead = begun(tmp_path, "run-1")
    assert ask(0.3)
    heart = runs.Heartbeat(dead.uri, runs.markers(dead.uri)[0])
    assert not ask(60), "known at its first beat"
    heart.stop()


def test_of_polite_runs_that_begin_at_the_same_instant_exactly_one_goes_on(tmp_path: Path) -> None:
    for number in range(5):
        uri, start = str(tmp_path / f"masks-{number}"), threading.Barrier(4)

        def begin(run: int, uri: str = uri, start: threading.Barrier = start) -> bool:
            table = Table.open_or_create(uri, BY)
            assert table.unfinished(LAKE) == []
            start.wait()
            return table.begin_run(LAKE, f"run-{run}", polite=True, beat=False)

        with ThreadPoolExecutor(4) as pool:
            went_on = list(pool.map(begin, range(4)))
        assert sum(went_on) == 1
        assert in_folder(tmp_path / f"masks-{number}") == {f"run-{went_on.index(True)}.json"}


def test_a_polite_run_does_not_begin_behind_one_that_began_since_it_looked(tmp_path: Path) -> None:
    table = Table.open_or_create(str(tmp_path), BY)
    assert table.unfinished(DAY) == []
    first = begun(tmp_path, "run-1")
    assert not table.begin_run(DAY, "run-2", polite=True, beat=False)
    first.commit(files(first, "run-1", ["a"]))
    assert [found.run_id for found in table.unfinished(DAY)] == ["run-1"]
    assert table.begin_run(DAY, "run-3", beat=False), "a takeover is not polite"
    with pytest.raises(Fenced, match="run-3"):
        first.commit(files(first, "run-1", ["b"]))


def test_polite_runs_on_disjoint_input_begin_side_by_side(tmp_path: Path) -> None:
    table = Table.open_or_create(str(tmp_path), BY)
    assert table.unfinished(DAY) == []
    begun(tmp_path, "run-1", LAKE + "dt=2026-11-23/")
    assert table.begin_run(DAY, "run-2", polite=True, beat=False)


def test_a_polite_beginning_whose_answer_got_lost_is_still_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table.open_or_create(str(tmp_path), BY)
    lose_an_answer(monkeypatch)
    assert table.begin_run(LAKE, "run-1", polite=True, beat=False)
    assert [replace(found, seen=0, table="") for found in runs.markers(table.uri)] == [Marker("run-1", LAKE, begun=1, seen=0)]
