"""The order in which files of tests are taken."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests import order
from tests.lakes import ROOT


class Node:
    """A process of the tests, as far as its scheduler knows it: what it was sent, by place in the collection."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.shutting_down = False
        self.gateway = SimpleNamespace(id="gw")

    def send_runtest_some(self, places: list[int]) -> None:
        self.sent += places

    def shutdown(self) -> None:
        self.shutting_down = True


def taken(files: dict[str, int], seconds: dict[str, int], processes: int, config: pytest.Config) -> list[tuple[int, str]]:
    """When each file began, where so many processes share files of so many tests, each test of a file of so many seconds."""
    tests = [f"{name}::test_{index}" for name, count in files.items() for index in range(count)]
    scheduler = order.LongFirst(config)
    nodes: list[Any] = [Node() for _ in range(processes)]
    scheduler.numnodes = processes
    for node in nodes:
        scheduler.add_node(node)
    for node in nodes:
        scheduler.add_node_collection(node, tests)
    scheduler.schedule()
    began: dict[str, int] = {}
    at: dict[int, tuple[int, int]] = {}
    now, done = 0, 0
    while done < len(tests):
        for place, node in enumerate(nodes):
            if place in at and at[place][1] == now:
                scheduler.mark_test_complete(node, at.pop(place)[0])
                done += 1
            if place not in at and node.sent and (len(node.sent) > 1 or node.shutting_down):  # as xdist: it wants to know of the next
                test = node.sent.pop(0)
                name = tests[test].partition("::")[0]
                began.setdefault(name, now)
                at[place] = (test, now + seconds[name])
        now += 1
        assert now < 10_000
    return sorted((second, name) for name, second in began.items())


def test_long_files_begin_first_and_two_of_those_that_start_ray_at_once(
    pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order, "STARTING", ("ray-a", "ray-b", "ray-c"))
    monkeypatch.setattr(order, "LONG", ("long",))
    monkeypatch.setattr(pytestconfig.option, "tx", ["3*popen"], raising=False)
    monkeypatch.setattr(pytestconfig.option, "loadscopereorder", False, raising=False)
    files = {**{f"brief-{index:02d}": 5 for index in range(30)}, "long": 4, "ray-c": 3, "ray-b": 3, "ray-a": 3}
    seconds = {name: {"ray": 20, "long": 10}.get(name.partition("-")[0], 1) for name in files}
    began = taken(files, seconds, 3, pytestconfig)
    assert [name for _, name in began[:3]] == ["long", "ray-a", "ray-b"]
    assert len(began) == len(files)
    at = {name: second for second, name in began}
    ends = sorted(at[name] + 60 for name in ("ray-a", "ray-b"))
    assert ends[0] <= at["ray-c"] < ends[0] + 20  # the third when one of the two is over, and not long after


def test_the_files_that_are_named_are_there() -> None:
    names = [*order.STARTING, *order.LONG]
    assert len(set(names)) == len(names)
    assert [name for name in names if not (ROOT / name).is_file()] == []


def test_a_finished_file_of_a_process_that_died_goes_to_nobody(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytestconfig.option, "tx", ["2*popen"], raising=False)
    monkeypatch.setattr(pytestconfig.option, "loadscopereorder", False, raising=False)
    tests = ["a::1", "b::1", "b::2", "b::3", "c::1", "c::2", "c::3", "d::1"]
    scheduler = order.LongFirst(pytestconfig)
    nodes: list[Any] = [Node(), Node()]
    scheduler.numnodes = 2
    for node in nodes:
        scheduler.add_node(node)
    for node in nodes:
        scheduler.add_node_collection(node, tests)
    scheduler.schedule()
    died = next(node for node in nodes if tests[node.sent[0]] == "a::1")
    scheduler.mark_test_complete(died, tests.index("a::1"))
    left = {name for name, found in scheduler.assigned_work[died].items() if not all(found.values())}
    scheduler.remove_node(died)
    assert left <= {*scheduler.workqueue, *scheduler.assigned_work[next(node for node in nodes if node is not died)]}
    assert "a" not in scheduler.workqueue
