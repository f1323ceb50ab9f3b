"""A Ray that starts beside other work: who waits for it, who does not, and when it ends. `cluster.cluster` stands for Ray here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from masklake import cluster, leaving, own_ray
from masklake.errors import MasklakeError, Refused
from masklake.segment import lean
from masklake.segment.session import Session


class Ray:
    """Starts once it may, and writes down what happens to it."""

    def __init__(self) -> None:
        self.begun, self.may_start = threading.Event(), threading.Event()
        self.events: list[str] = []
        self.failure: Exception | None = None

    @contextmanager
    def cluster(self, address: str | None) -> Iterator[dict[str, float]]:
        self.events.append(f"begins in {threading.current_thread().name}")
        self.begun.set()
        if not self.may_start.wait(60):
            self.events.append("nobody let it start")
        if self.failure:
            raise self.failure
        self.events.append("is there")
        try:
            yield {"CPU": 2.0}
        finally:
            self.events.append("has ended well")

    def kill(self) -> None:
        self.events.append("is killed")


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ray]:
    ray = Ray()
    monkeypatch.setattr(cluster, "cluster", ray.cluster)
    monkeypatch.setattr(own_ray, "end_at_once", ray.kill)
    monkeypatch.setattr(own_ray, "end_children", lambda: ray.events.append("is no more"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(leaving._Memory, "last", list[Callable[[], None]]())
    yield ray
    ray.may_start.set()


@pytest.fixture
def ends_with_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving._Memory, "ends", True)


def run(address: str | None, *steps: Callable[[Session], object]) -> None:
    with Session(address) as session:
        for step in steps:
            step(session)


def refuse(session: Session) -> None:
    raise Refused("the plan")


def test_one_start_serves_whoever_asks_and_ends_with_the_session(ray: Ray) -> None:
    with Session(None) as session:
        session.begin()
        session.begin()
        ray.may_start.set()
        assert session.resources() == session.resources() == {"CPU": 2.0}
    assert ray.events == ["begins in ray", "is there", "has ended well"]


def test_a_session_that_nobody_begins_starts_nothing(ray: Ray) -> None:
    run(None)
    assert ray.events == []


@pytest.mark.parametrize("failure", [MasklakeError("Ray could not start"), Refused("no Ray cluster answers there")])
def test_a_start_that_fails_says_so_where_it_is_waited_for(ray: Ray, failure: MasklakeError) -> None:
    ray.failure = failure
    ray.may_start.set()
    with pytest.raises(type(failure)) as raised:
        run(None, Session.begin, Session.resources)
    assert raised.value is failure


def test_a_refusal_goes_before_a_start_that_fails(ray: Ray) -> None:
    ray.failure = MasklakeError("Ray could not start")
    ray.may_start.set()
    with pytest.raises(Refused, match="the plan"):
        run(None, Session.begin, refuse)


@pytest.mark.usefixtures("ends_with_job")
def test_a_process_that_ends_with_its_job_waits_for_no_start_that_is_under_way(ray: Ray) -> None:
    with pytest.raises(Refused, match="the plan"):
        run(None, Session.begin, lambda session: ray.begun.wait(60), refuse)
    assert ray.events == ["begins in ray"]  # it is still starting
    leaving.now()
    assert ray.events[-1] == "is no more"


def test_any_other_process_waits_so_that_nothing_starts_behind_its_back(ray: Ray) -> None:
    threading.Timer(0.3, ray.may_start.set).start()
    with pytest.raises(Refused, match="the plan"):
        run(None, Session.begin, refuse)
    assert ray.events == ["begins in ray", "is there", "has ended well"]


@pytest.mark.usefixtures("ends_with_job")
def test_done_work_is_told_before_ray_ends(ray: Ray) -> None:
    ray.may_start.set()
    run(None, Session.resources)
    assert ray.events[-1] == "is there"
    leaving.now()
    assert ray.events[-1] == "is killed"


@pytest.mark.usefixtures("ends_with_job")
def test_after_an_error_ray_ends_at_once_for_no_task_may_go_on_writing(ray: Ray) -> None:
    ray.may_start.set()
    with pytest.raises(Refused, match="the plan"):
        run(None, Session.resources, refuse)
    assert ray.events[-1] == "is killed"
    leaving.now()
    assert ray.events.count("is killed") == 1


@pytest.mark.usefixtures("ends_with_job")
def test_a_cluster_that_was_joined_is_left_and_not_killed(ray: Ray) -> None:
    ray.may_start.set()
    run("10.0.0.1:6379", Session.resources)
    leaving.now()
    assert ray.events[-1] == "has ended well"


@pytest.mark.parametrize("lean_data", [True, False])
def test_a_ray_of_our_own_leaves_out_what_datasets_alone_do_not_need(ray: Ray, monkeypatch: pytest.MonkeyPatch, lean_data: bool) -> None:
    left_out: list[str] = []

    @contextmanager
    def leaving_out(what: str) -> Iterator[None]:
        left_out.append(what)
        yield

    monkeypatch.setattr(lean, "starting", lambda: leaving_out("servers"))
    monkeypatch.setattr(lean, "data", lambda: leaving_out("actors"))
    ray.may_start.set()
    with Session(None, lean_data=lean_data) as session:
        session.resources()
    assert left_out == (["servers", "actors"] if lean_data else [])
