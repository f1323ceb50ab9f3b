"""A stop of a training on Ray waits for workers that have something to save, and for nobody else. A plain object stands for Ray's actor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from masklake import leaving, stopping
from masklake.training import flow
from masklake.training.messages import Messages


class Call:
    """A method as Ray's actors have it: called at once, for `ray.get` stands for nothing here."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self.remote = method


class Actor:
    """`Messages` as an actor; something may happen whenever its lines are taken."""

    def __init__(self, events: Iterator[Callable[[Messages], object]]) -> None:
        self._messages, self._events = Messages(), events
        self.stop, self.take = Call(self._messages.stop), Call(self._take)

    def _take(self) -> list[dict[str, Any]]:
        next(self._events)(self._messages)
        return self._messages.take()


@pytest.fixture(autouse=True)
def stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.get", lambda value: value)
    monkeypatch.setattr(flow, "_POLL_SECONDS", 0.0)
    monkeypatch.setattr(stopping, "requested", lambda: True)
    monkeypatch.setattr(leaving._Memory, "ends", True)


def listened(training: Future[Any], *events: Callable[[Messages], object]) -> tuple[bool, list[dict[str, Any]], int]:
    """Whether the training came to its end, what was told, and how many events nobody waited for."""
    told: list[dict[str, Any]] = []
    left = iter(events)
    return flow._listen(Actor(left), training, 2, told, lambda line: None), told, len(list(left))


def learns(messages: Messages) -> None:
    messages.is_stopped()


def saves(messages: Messages) -> None:
    assert messages.is_stopped(), "the workers are told"
    messages.put({"event": "saved"})
    messages.end()


def nothing(messages: Messages) -> None:
    pass


def test_workers_that_are_only_starting_are_not_waited_for() -> None:
    assert listened(Future(), nothing, saves) == (False, [], 1)


def test_those_that_learned_before_the_stop_save_first(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = iter([False, True, True, True, True])
    monkeypatch.setattr(stopping, "requested", lambda: next(asked))
    ended, told, left = listened(Future(), learns, nothing, saves, saves, nothing, nothing)
    assert (ended, told, left) == (False, [{"event": "saved"}] * 2, 1)


def test_a_process_that_lives_on_waits_for_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving._Memory, "ends", False)
    training: Future[None] = Future()
    assert listened(training, nothing, nothing, lambda messages: training.set_result(None), nothing, nothing) == (True, [], 1)
