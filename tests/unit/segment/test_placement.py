"""Actors on single nodes: what fits, what is waited for, what can never be."""

from __future__ import annotations

from itertools import product

import pytest

from masklake.segment.placement import (
    LOAD_CPUS,
    Node,
    Pool,
    capacity,
    cpus_of_an_actor,
    load_cpus,
    load_tasks,
    missing,
    most_by_default,
    never,
    room,
)

SMALL = [Node("a", 1), Node("b", 1), Node("c", 1)]
MIXED = [Node("large", 16), Node("gpus", 4, 2)]
HEAD = Node("head", 0)


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "actors"),
    [
        (SMALL, 2, 0, 0),  # 3 CPUs, and no node with 2
        (SMALL, 1, 0, 2),  # the third is for loading
        (SMALL, 0.5, 0, 5),
        (MIXED, 8, 1, 0),  # the GPUs are where 4 CPUs are
        (MIXED, 2, 1, 2),  # loading is on the other
        ([Node("alone", 4, 2)], 2, 1, 1),  # 4 CPUs hold two of them and no load task
        ([HEAD, Node("worker", 8, 1)], 2, 1, 1),
        ([HEAD], 1, 0, 0),
        ([Node("thirds", 8, 2)], 1, 0.3, 6),  # three on each GPU
        ([Node("two", 8, 2)], 1, 0.75, 2),  # 2 GPUs are 2.67 times 0.75, but an actor is on one
        ([Node("kind", 2, 1, count=5)], 1, 1, 5),
        ([], 1, 0, 0),
    ],
)
def test_actors_are_counted_node_by_node(nodes: list[Node], cpus: float, gpus: float, actors: int) -> None:
    assert capacity(nodes, Pool(1, 1, cpus, gpus)) == actors


@pytest.mark.parametrize(("gpus", "cpus_each"), [*product((0, 1), (0.5, 1, 2))])
def test_the_count_is_what_trying_every_placement_gives(gpus: float, cpus_each: float) -> None:
    for sizes in product((0, 1, 2, 3), repeat=3):
        nodes = [Node(str(size), size, gpus * size) for size in sizes]
        pool = Pool(1, 1, cpus_each, gpus)
        best = 0
        for counts in product(*(range(room(node, pool) + 1) for node in nodes)):
            left = [node.cpus - count * cpus_each for node, count in zip(nodes, counts, strict=True)]
            if max(left) >= LOAD_CPUS[-1]:
                best = max(best, sum(counts))
        assert capacity(nodes, pool) == best, sizes


def test_small_nodes_get_small_actors() -> None:
    assert cpus_of_an_actor([Node("a", 8, 1)], 1) == 1
    assert cpus_of_an_actor([Node("a", 1, 1)], 1) == 0.5  # or there would be no room for loading
    assert cpus_of_an_actor([HEAD, Node("a", 1)], 0) == 0.5
    assert most_by_default([Node("a", 1)], 0.5, 0) == 1
    assert most_by_default(SMALL, 0.5, 0) == 3
    assert most_by_default([Node("a", 16)], 0.5, 0) == 16
    assert most_by_default([Node("a", 16)], 4, 0) == 3
    assert most_by_default([HEAD, Node("a", 8, 4), Node("b", 8, 4)], 1, 1) == 8
    assert most_by_default([HEAD], 0.5, 0) == 1


def test_what_is_missing_is_said_with_the_nearest_node() -> None:
    two = Pool(2, 2, 2, 1)
    assert missing([HEAD, Node("a", 8, 1), Node("b", 8, 1)], two) is None
    assert missing([HEAD, Node("10.0.0.2", 8, 1)], two) == (
        "1 of 2 fit: waiting for room for 2 actors of 1 GPU and 2 CPUs each, and a CPU for loading; "
        "the node that comes nearest, 10.0.0.2, has 8 CPUs and 1 GPU and holds 1 beside nothing else"
    )
    assert missing([HEAD], Pool(1, 3, 0.5, 0)) == (
        "0 of 1 fit: waiting for room for an actor of 0.5 CPU, and a CPU for loading; no node with CPUs or GPUs is there"
    )
    assert missing([HEAD, Node("a", 8, 1)], Pool(1, 3, 2, 1)) is None  # the others come later


def test_what_no_node_can_hold_is_refused_at_once() -> None:
    assert never(SMALL, None, Pool(1, 1, 2, 0), may_join=False) == (
        "--actors 1 of 2 CPUs each (--cpus-per-actor): no node of the cluster holds one, with a CPU beside them for loading; "
        "the node that comes nearest, a, has 1 CPU: ask for less, or for larger nodes"
    )
    assert "the node that comes nearest, gpus, has 4 CPUs and 2 GPUs" in str(never(MIXED, None, Pool(1, 1, 8, 1), may_join=False))
    assert never(SMALL, None, Pool(1, 1, 2, 0), may_join=True) is None  # --wait-for-nodes says that larger ones come


@pytest.mark.parametrize(
    ("nodes", "kinds", "pool"),
    [
        ([HEAD], None, Pool(1, 1, 1, 1)),  # the GPU node is late
        ([HEAD, Node("a", 8)], None, Pool(1, 1, 1, 1)),
        ([HEAD, Node("a", 8, 1)], None, Pool(2, 2, 2, 1)),  # half of the spot nodes
        ([HEAD], [Node("gpu", 8, 1, count=4)], Pool(4, 4, 2, 1)),  # the group is at zero
        (SMALL, [Node("large", 8, count=1)], Pool(1, 1, 2, 0)),
    ],
)
def test_what_may_come_is_waited_for(nodes: list[Node], kinds: list[Node] | None, pool: Pool) -> None:
    assert never(nodes, kinds, pool, may_join=False) is None
    assert missing(nodes, pool)


def test_more_than_an_autoscaler_may_start_is_refused() -> None:
    refusal = never([HEAD], [HEAD, Node("gpu", 8, 1, count=2)], Pool(3, 3, 2, 1), may_join=False)
    assert refusal == (
        "--actors 3 of 1 GPU and 2 CPUs each (--gpus-per-actor, --cpus-per-actor): there is room for 2 of them at most, "
        "with a CPU beside them for loading; the node that comes nearest, gpu, has 8 CPUs and 1 GPU and holds 1 beside nothing else: "
        "ask for fewer, or for more nodes"
    )


@pytest.mark.parametrize(
    ("nodes", "actors", "cpus_per_actor", "expected"),
    [
        ([2], 2, 0.5, 0.9),  # one machine
        ([16] * 8, 64, 1, 0.89),  # 7 nodes hold 64 actors, of which 16 on one leave 1.6; what an actor asks for would put loading into it
        ([1, 1, 1], 2, 0.5, 0.4),  # one node is lost, and an actor of half a CPU is on each of the others
        ([1, 1], 2, 0.5, 0.1),  # both actors on the node that stays leave a tenth: they ask for 0.45 each
        ([2, 2], 2, 1, 0.2),  # 2 actors that ask for 0.9
        ([4, 4], 4, 0.9, 0.4),  # 4 actors that ask for 0.81 leave 0.76
        ([2, 2], 1, 0.9, 0.9),
    ],
)
def test_a_load_task_has_room_wherever_actors_go(nodes: list[float], actors: int, cpus_per_actor: float, expected: float) -> None:
    assert load_cpus([Node("", cpus) for cpus in nodes], Pool(1, actors, cpus_per_actor, 0)) == expected


def test_loading_has_room_beside_a_gpu_when_no_other_node_is_left() -> None:
    nodes = [Node("loading", 1), Node("gpu", 1, 1)]
    assert load_cpus(nodes, Pool(1, 1, 1, 1)) == 0.1
    assert load_cpus([Node("loading", 4), Node("gpu", 4, 1)], Pool(1, 1, 1, 1)) == 0.89


def test_where_load_tasks_ask_for_little_there_is_one_for_each_cpu() -> None:
    assert load_tasks([Node("", 16), Node("", 8, count=2)], 0.1) == 32
    assert load_tasks([Node("", 1)], 0.4) == 2  # or nothing would be read while another is decoded
    assert load_tasks([Node("", 1), Node("", 1)], 0.89) is None  # as many as find room
