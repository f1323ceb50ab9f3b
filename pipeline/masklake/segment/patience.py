"""How long a run waits: for nodes before it starts, and for anything to happen once it has."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from masklake.errors import Refused, Say, Stalled
from masklake.segment import placement
from masklake.segment.placement import Node, Pool
from masklake.spelling import plural

SAY_SECONDS = 10.0
"""How often what is missing is said."""

LONG, SHORT = 3600.0, 300.0
"""Seconds that nodes are waited for, where an autoscaler brings them and where none does."""

_LOOK_SECONDS = 1.0
_MOST_AT_ONCE = 5.0  # seconds: a process that was stopped, or a laptop that slept, has not waited


@dataclass(frozen=True)
class Cluster:
    """What there is, and what may come: `kinds` of nodes that an autoscaler may start, where it says so."""

    nodes: Sequence[Node]
    kinds: Sequence[Node] | None
    grows: bool
    """An autoscaler is there."""


def wait_for_nodes(
    look: Callable[[], Cluster], pool: Pool, seconds: float | None, say: Say, sleep: Callable[[float], None] = time.sleep
) -> Cluster:
    """Come back when the nodes hold the actors that the run starts with; every ten seconds, say what is missing.

    Args:
        look: the cluster as it is.
        pool: the actors.
        seconds: how long to wait; None is an hour where an autoscaler is there, else five minutes.
        say: takes each sentence.
        sleep: for tests.

    Raises:
        Refused: what is there and what may come can never hold them.
        Stalled: the time is over.
    """
    cluster = look()
    refuse_what_can_never_be(cluster, pool, seconds)
    patience = seconds if seconds is not None else LONG if cluster.grows else SHORT
    waited, said = 0.0, -SAY_SECONDS
    while lack := placement.missing(cluster.nodes, pool):
        if waited >= patience:
            raise Stalled(
                f"after {_span(waited)} of --wait-for-nodes {patience:g}, {lack}; nothing was started: "
                "start nodes and run the same command, ask for fewer or smaller actors, or wait longer"
            )
        if waited - said >= SAY_SECONDS:
            say(f"{lack} ({_span(waited)} of {_span(patience)})")
            said = waited
        sleep(_LOOK_SECONDS)
        waited += _LOOK_SECONDS
        cluster = look()
    return cluster


def refuse_what_can_never_be(cluster: Cluster, pool: Pool, seconds: float | None) -> None:
    """Before anything is listed.

    Raises:
        Refused: what is there and what may come can never hold the actors that the run starts with, or nothing is waited for.
    """
    if reason := placement.never(cluster.nodes, cluster.kinds, pool, may_join=cluster.grows or bool(seconds)):
        raise Refused(reason)


@dataclass
class Watchdog:
    """Tells a run in which nothing happens any more from one that is slow."""

    patience: float
    """Seconds."""
    _last: object = None
    _checked: float | None = None
    _still: float = field(default=0.0)

    def check(self, sign: object, now: float) -> float | None:
        """For how many seconds nothing has happened, where that is too long.

        Args:
            sign: anything that is another value whenever something has happened.
            now: seconds of any clock that only goes forward; time in which nobody asks does not count.
        """
        passed = 0.0 if self._checked is None else min(now - self._checked, _MOST_AT_ONCE)
        self._still = self._still + passed if sign == self._last else 0.0
        self._last, self._checked = sign, now
        return self._still if self._still >= self.patience else None


@dataclass(frozen=True)
class StageSign:
    """How far a stage of the flow is, and what it is about."""

    name: str
    at_work: int
    finished: int
    """Calls."""
    waiting: int
    """Blocks before it."""
    actors: int = 0
    pending_actors: int = 0

    def __str__(self) -> str:
        """In words."""
        text = f"{self.name}: {plural(self.at_work, 'call')} at work, {self.finished:,} finished, {plural(self.waiting, 'block')} before it"
        return text + (
            f", {plural(self.actors, 'actor')} alive and {self.pending_actors} not yet" if self.actors or self.pending_actors else ""
        )


def diagnosis(still: float, stages: Sequence[StageSign], cluster: Cluster, pool: Pool, error: str) -> str:
    """Where a run stands in which nothing happens any more, as one sentence.

    Args:
        still: seconds.
        stages: in the order of the flow.
        cluster: the nodes that are there.
        pool: the actors that are wanted.
        error: what the worker that died last died of; empty where none did.
    """
    nodes = ", ".join(f"{node.name} ({plural(node.cpus, 'CPU')}, {plural(node.gpus, 'GPU')})" for node in cluster.nodes)
    room = placement.capacity(cluster.nodes, pool)
    parts = [
        f"nothing has happened for {_span(still)} (--stall-minutes)",
        *map(str, stages),
        f"{pool.least} to {pool.most} actors of {pool.of_one()} each are wanted; the nodes {nodes or '(none)'} have room for {room}",
        *([f"the last worker that died: {error}"] if error else []),
        "what was committed stays, run the same command to go on",
    ]
    return "; ".join(parts)


def diagnosis_here(still: float) -> str:
    """The same of work in this process."""
    return (
        f"nothing has happened for {_span(still)} (--stall-minutes): no image was loaded and the model answered nothing; "
        "what was committed stays, run the same command to go on"
    )


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
