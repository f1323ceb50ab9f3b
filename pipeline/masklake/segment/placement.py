"""Where a run's actors fit: arithmetic over the CPUs and GPUs of single nodes, those that are there and those that may come.

An actor lives on one node, so sums over a cluster say little: three nodes of one CPU hold no actor of two. All actors of a run ask for the
same, so that counting what each node holds is exact. Knows nothing of Ray.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

LOAD_CPUS = (0.9, 0.4, 0.2, 0.1)
"""What a load task asks for: different from an actor's, which keeps the stages apart; fewer where nodes are small."""

ASKED = 0.9
"""Of an actor's CPUs, what Ray is asked for. When a node is lost, its actors may fill another one to the last CPU: with a little left over
on each, a load task still has its place, and the run goes on."""

_MOST_SHARES = (1.0, 0.5, 0.1)  # CPUs of an actor that the settings leave open
_CLOSE = 1e-9  # of sums of numbers such as 0.1


@dataclass(frozen=True)
class Node:
    """What one node has for tasks and actors, or each of up to `count` nodes of a kind that an autoscaler may start."""

    name: str
    cpus: float
    gpus: float = 0.0
    count: int = 1


@dataclass(frozen=True)
class Pool:
    """Actors that are wanted: the run starts with `least`, and has at most `most` of them."""

    least: int
    most: int
    cpus: float
    gpus: float

    def of_one(self) -> str:
        """What an actor asks for, in words."""
        gpus = f"{self.gpus:g} GPU{'s' * (self.gpus > 1)} and " if self.gpus else ""
        return f"{gpus}{self.cpus:g} CPU{'s' * (self.cpus > 1)}"


def room(node: Node, pool: Pool) -> int:
    """How many of the actors one such node holds, beside nothing else."""
    by_cpus = _times(node.cpus, pool.cpus)
    if not pool.gpus:
        return by_cpus
    # A share of a GPU is of one GPU: two of three quarters each do not share two.
    by_gpus = _times(node.gpus, pool.gpus) if pool.gpus >= 1 else int(node.gpus) * _times(1.0, pool.gpus)
    return min(by_cpus, by_gpus)


def capacity(nodes: Sequence[Node], pool: Pool) -> int:
    """How many of the actors all nodes hold, with room left for one load task somewhere; 0 where there is none for both."""
    whole = sum(node.count * room(node, pool) for node in nodes)
    beside = [room(replace(node, cpus=node.cpus - LOAD_CPUS[-1]), pool) - room(node, pool) for node in nodes if node.cpus >= LOAD_CPUS[-1]]
    return max(0, whole + max(beside)) if beside else 0


def load_cpus(nodes: Sequence[Node], pool: Pool) -> float:
    """What a load task asks for, so that there is room for one wherever the actors go, also when the node that matters most is lost.

    Actors are put anywhere, and nothing moves them: on nodes of one CPU, an actor of half a CPU on each would leave no node with 0.9, and
    the run would wait for ever.
    """
    pool = replace(pool, cpus=ASKED * pool.cpus)
    choices = [cpus if abs(cpus - pool.cpus) > _CLOSE else cpus - 0.01 for cpus in LOAD_CPUS]

    def to_block(node: Node, cpus: float) -> float:
        """How many actors on a node leave no room for a load task."""
        actors = int((node.cpus - cpus) / pool.cpus + _CLOSE) + 1 if node.cpus >= cpus else 0
        return actors if actors <= room(node, pool) else math.inf

    for lost in (1, 0):
        for cpus in choices:
            blocked = sorted(to_block(node, cpus) for node in nodes)
            if sum(blocked[: len(blocked) - lost]) > pool.most:
                return cpus
    return choices[-1]


def load_tasks(possible: Sequence[Node], cpus: float) -> int | None:
    """How many load tasks may be at work at once, one for each CPU, where they ask for so little that more would find room; else None.

    Args:
        possible: the nodes that there can be.
        cpus: what a load task asks for.
    """
    return None if cpus > 0.5 else max(2, int(sum(node.cpus * node.count for node in possible)))


def cpus_of_an_actor(nodes: Sequence[Node], gpus: float) -> float:
    """What an actor gets where the settings leave it open: 1 CPU beside a GPU, else half a one; less where no node has room for that.

    Without GPUs, an actor for every CPU stands beside the load tasks of the other half: the system shares out the cores as work comes.
    """
    choices = [share for share in _MOST_SHARES if gpus or share < 1]
    return next((cpus for cpus in choices if capacity(nodes, Pool(1, 1, cpus, gpus))), choices[0])


def most_by_default(nodes: Sequence[Node], cpus: float, gpus: float) -> int:
    """How many actors where the settings do not say: one for each GPU; without GPUs, one for each CPU, beside the loading."""
    fit = capacity(nodes, Pool(1, 1, cpus, gpus))
    if gpus:
        return max(1, fit)
    all_cpus = sum(node.cpus * node.count for node in nodes)
    return max(1, min(fit, int(all_cpus), int((all_cpus - 1) / cpus)))


def missing(nodes: Sequence[Node], pool: Pool) -> str | None:
    """What the nodes lack for the run to start, in words; None where nothing."""
    fit = capacity(nodes, pool)
    if fit >= pool.least:
        return None
    wanted = f"{pool.least} actor{'s' * (pool.least > 1)} of {pool.of_one()} each" if pool.least > 1 else f"an actor of {pool.of_one()}"
    there = "no node with CPUs or GPUs is there" if not any(node.cpus or node.gpus for node in nodes) else _nearest(nodes, pool)
    return f"{fit} of {pool.least} fit: waiting for room for {wanted}, and a CPU for loading; {there}"


def never(nodes: Sequence[Node], kinds: Sequence[Node] | None, pool: Pool, may_join: bool) -> str | None:
    """Why the run can never start, in words; None where it can now, or perhaps later.

    Args:
        nodes: those that are there.
        kinds: those that there can be: what an autoscaler may start, or this machine alone; None where nobody knows.
        pool: the actors.
        may_join: nodes of any size may come, for an autoscaler is there that does not say which, or the user says that they are waited for.
    """
    if capacity(nodes, pool) >= pool.least:
        return None
    if kinds is not None:
        if capacity(kinds, pool) >= pool.least:
            return None
        return _refusal(kinds, pool, f"there is room for {capacity(kinds, pool)} of them at most")
    if may_join:
        return None
    alike = [node for node in nodes if (node.gpus if pool.gpus else node.cpus)]
    if not alike or any(room(node, pool) for node in alike):
        return None  # a late node is waited for: of the right kind, there is none yet, or there are too few
    return _refusal(alike, pool, "no node of the cluster holds one")


def _refusal(nodes: Sequence[Node], pool: Pool, why: str) -> str:
    flags = f"--actors {pool.least} of {pool.of_one()} each" + (
        " (--gpus-per-actor, --cpus-per-actor)" if pool.gpus else " (--cpus-per-actor)"
    )
    cure = "ask for less, or for larger nodes" if room(_largest(nodes, pool), pool) == 0 else "ask for fewer, or for more nodes"
    return f"{flags}: {why}, with a CPU beside them for loading; {_nearest(nodes, pool)}: {cure}"


def _nearest(nodes: Sequence[Node], pool: Pool) -> str:
    node = _largest(nodes, pool)
    holds = room(node, pool)
    what = f"{node.cpus:g} CPU{'s' * (node.cpus != 1)}" + (
        f" and {node.gpus:g} GPU{'s' * (node.gpus != 1)}" if node.gpus or pool.gpus else ""
    )
    return f"the node that comes nearest, {node.name}, has {what}" + (f" and holds {holds} beside nothing else" if holds else "")


def _largest(nodes: Sequence[Node], pool: Pool) -> Node:
    """The node that holds most; of those that hold none, the one that has the largest share of what it lacks."""

    def near(node: Node) -> tuple[float, float, float]:
        shares = [node.cpus / pool.cpus] + ([node.gpus / pool.gpus] if pool.gpus else [])
        return room(node, pool), min(shares), sum(min(share, 1.0) for share in shares)

    return max(nodes, key=near)


def _times(have: float, each: float) -> int:
    return max(0, int(have / each + _CLOSE))
