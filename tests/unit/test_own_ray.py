"""A Ray of our own has the time to start that a busy machine needs, and no more where it never will."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ray._private import services

from masklake import own_ray, variables

NODE = {"node_manager_port": 1}


def asked(monkeypatch: pytest.MonkeyPatch, answers: Iterator[object], raylet: bool, seconds: float = 60.0) -> object:
    """Ray's own question after its node, while a Ray of ours starts."""

    def get_node(address: str, node: str) -> object:
        assert (address, node) == ("127.0.0.1:6379", "a node")
        if isinstance(answer := next(answers), Exception):
            raise answer
        return answer

    monkeypatch.setattr(services, "get_node", get_node)
    monkeypatch.setattr(variables, "START_SECONDS", seconds)
    monkeypatch.setattr(own_ray, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(own_ray, "_has_raylet", lambda: raylet)
    with own_ray.alone():
        return services.get_node("127.0.0.1:6379", "a node")  # type: ignore[no-untyped-call]


def test_a_node_that_is_late_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, iter([*[RuntimeError("not yet")] * 3, NODE]), raylet=True) == NODE


def test_a_raylet_that_ended_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ChildProcessError) as raised:
        asked(monkeypatch, iter([RuntimeError("not yet")]), raylet=False)
    assert own_ray.why_not_started(raised.value) == "Ray could not start on this machine: its raylet ended while it started"


def test_the_wait_ends_and_says_what_may_be_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TimeoutError) as raised:
        asked(monkeypatch, iter([RuntimeError("not yet")] * 3), raylet=True, seconds=0.0)
    sentence = own_ray.why_not_started(raised.value)
    assert sentence.endswith("its node was not there after 0 s: the machine may be too busy; run the same command again")
