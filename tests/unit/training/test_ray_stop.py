"""What workers of a training on Ray tell: a stop waits for those that have something to save, and for nobody else, and why one cannot go
on is told once. A plain object stands for Ray's actor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from masklake import leaving, stopping
from masklake.errors import MasklakeError
from masklake.training import flow
from masklake.training.examples import BadExample
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
        self.fail, self.failure = Call(self._messages.fail), Call(self._messages.failure)

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


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_cannot_go_on_says_why_and_is_not_started_again_for_the_same(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: workers)
    monkeypatch.setattr("ray.train.get_context", lambda: ranks)
    monkeypatch.setattr(flow, "get_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(flow, "_unpacked", lambda table: [])
    learned: list[int] = []

    def fails(*arguments: object) -> None:
        learned.append(1)
        raise BadExample("a.png: broken")

    monkeypatch.setattr("masklake.training.finetune.work", fails)
    messages = Actor(iter(()))
    given = {"messages": messages, "prepared": None, "held_out": None, "training": None, "threads": torch.get_num_threads()}
    if workers == 1:
        flow._work(given)  # its end is the training's
    else:
        with pytest.raises(BadExample):  # or the others would wait for it
            flow._work(given)
    assert messages.failure.remote() == "a.png: broken"
    with pytest.raises(MasklakeError, match=r"^a\.png: broken$"):
        flow._work(given)
    assert learned == [1]
    failed: Future[None] = Future()
    failed.set_exception(RuntimeError("Ray's own\nlast line"))
    with pytest.raises(MasklakeError, match=r"^a\.png: broken$"):
        flow._check(messages, failed)
    with pytest.raises(MasklakeError, match=r"^the cluster ended the training: last line; run the same command to go on$"):
        flow._check(Actor(iter(())), failed)
