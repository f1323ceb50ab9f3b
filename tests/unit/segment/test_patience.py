"""Waiting for nodes, and the watchdog: what is said, when it ends."""

from __future__ import annotations

import pytest

from masklake.errors import Refused, Stalled
from masklake.segment.patience import Cluster, StageSign, Watchdog, diagnosis, wait_for_nodes
from masklake.segment.placement import Node, Pool

HEAD, WORKER = Node("head", 0), Node("worker", 8, 1)
POOL = Pool(1, 1, 2, 1)


class Growing:
    """A cluster to which a node comes after some seconds of waiting."""

    def __init__(self, after: float, grows: bool = False) -> None:
        self.after, self.grows, self.now = after, grows, 0.0
        self.said: list[str] = []

    def look(self) -> Cluster:
        return Cluster([HEAD] if self.now < self.after else [HEAD, WORKER], None, self.grows)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def wait(self, seconds: float | None) -> Cluster:
        return wait_for_nodes(self.look, POOL, seconds, self.said.append, self.sleep)


def test_a_node_that_comes_after_a_minute_is_waited_for_and_what_is_missing_said_every_ten_seconds() -> None:
    late = Growing(60)
    assert late.wait(None).nodes == [HEAD, WORKER]
    assert late.now == 60
    assert len(late.said) == 6
    assert late.said[1].startswith("0 of 1 fit: waiting for room for an actor of 1 GPU and 2 CPUs, and a CPU for loading")
    assert late.said[1].endswith("(10 s of 5 min)")


@pytest.mark.parametrize(("grows", "asked", "patience"), [(False, None, 300), (True, None, 3600), (True, 30.0, 30), (False, 0.0, 0)])
def test_the_wait_ends(grows: bool, asked: float | None, patience: float) -> None:
    never = Growing(1e9, grows)
    with pytest.raises(Stalled, match=f"--wait-for-nodes {patience:g}, 0 of 1 fit: .*nothing was started") as stalled:
        never.wait(asked)
    assert never.now == patience
    assert stalled.value.exit_code == 5


def test_nothing_is_waited_for_where_it_can_never_be() -> None:
    small = Cluster([Node("a", 1), Node("b", 1), Node("c", 1)], None, grows=False)
    said: list[str] = []
    with pytest.raises(Refused, match="the node that comes nearest, a, has 1 CPU"):
        wait_for_nodes(lambda: small, Pool(1, 1, 2, 0), None, said.append)
    assert not said


def test_the_watchdog_counts_time_without_a_sign_and_none_in_which_it_was_not_asked() -> None:
    dog = Watchdog(patience=60)
    assert dog.check("a", 0) is None
    assert all(dog.check("a", second) is None for second in range(1, 60))
    assert dog.check("b", 60) is None  # a sign: from the start
    assert all(dog.check("b", second) is None for second in range(61, 120))
    assert dog.check("b", 120) == 60
    dog = Watchdog(patience=60)
    assert dog.check("a", 0) is None
    assert dog.check("a", 10_000) is None  # the laptop slept


def test_a_stalled_run_says_where_it_stands() -> None:
    stages = [StageSign("load", 0, 12, 0), StageSign("segment", 0, 0, 3, actors=0, pending_actors=1)]
    said = diagnosis(1800, stages, Cluster([HEAD, Node("10.0.0.2", 1)], None, grows=False), Pool(1, 2, 2, 0), "OOM")
    assert said == (
        "nothing has happened for 30 min (--stall-minutes); load: 0 calls at work, 12 finished, 0 blocks before it; "
        "segment: 0 calls at work, 0 finished, 3 blocks before it, 0 actors alive and 1 not yet; "
        "1 to 2 actors of 2 CPUs each are wanted; the nodes head (0 CPUs, 0 GPUs), 10.0.0.2 (1 CPU, 0 GPUs) have room for 0; "
        "the last worker that died: OOM; what was committed stays, run the same command to go on"
    )
