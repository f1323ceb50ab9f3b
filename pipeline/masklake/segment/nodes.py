"""The nodes of the cluster that was joined, those that its autoscaler may start, and what is asked of that."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray._private.state import state
from ray.autoscaler.sdk import request_resources
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.exceptions import RayError
from ray.experimental.internal_kv import _internal_kv_get

from masklake.segment import placement
from masklake.segment.patience import Cluster
from masklake.segment.placement import Node, Pool

_STATUS = "__autoscaling_status"  # where Ray's autoscaler says how it is
_STATIC = "node_"  # begins the kinds of nodes of an autoscaler that has none to start: Ray runs that everywhere


def look(local: bool = False) -> Cluster:
    """What there is, and what may come.

    Args:
        local: this is a Ray of our own, to which no node ever comes.
    """
    nodes = [
        Node(node["NodeManagerAddress"], node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    ]
    if local:
        return Cluster(nodes, nodes, grows=False)
    kinds = _kinds()
    return Cluster(nodes, kinds, grows=kinds is not None or _autoscales())


@contextmanager
def asked_for(pool: Pool, cluster: Cluster) -> Iterator[None]:
    """Within, an autoscaler is asked for nodes that hold all of the actors: by itself it would start one at a time, as work piles up.

    At the end it is free to take them away again.
    """
    if not cluster.grows:
        yield
        return
    request_resources(bundles=bundles(pool, cluster.kinds))
    try:
        yield
    finally:
        with suppress(RayError, RuntimeError):  # of a cluster that is gone
            request_resources(bundles=[])


def bundles(pool: Pool, kinds: Sequence[Node] | None) -> list[dict[str, float]]:
    """What is asked of an autoscaler: the actors, and a place for loading beside them, without which no run starts.

    Ray's newer autoscaler starts nothing at all where it cannot start everything: it is asked for no more actors than there can be.
    """
    actor = {"CPU": pool.cpus, "GPU": pool.gpus} if pool.gpus else {"CPU": pool.cpus}
    most = pool.most if kinds is None else min(pool.most, placement.capacity(kinds, pool))
    return [*[actor] * most, {"CPU": placement.LOAD_CPUS[-1]}]


def last_death() -> str:
    """What the actor of this job that died last died of, in one line; empty where none died, or nobody knows."""
    with suppress(Exception):  # an explanation more, nothing else
        dead = state.actor_table(None, ray.get_runtime_context().job_id, "DEAD").values()
        causes = [" ".join(str(actor["DeathCause"]).split()) for actor in sorted(dead, key=lambda actor: actor["EndTime"])]
        return next((cause[:500] for cause in reversed(causes) if cause), "")
    return ""


def _kinds() -> list[Node] | None:
    """The kinds of nodes that an autoscaler may start, and the nodes of those that are there already, where it tells Ray."""
    config = state.get_cluster_config()
    if config is None or not config.node_group_configs:
        return None
    return [
        Node(group.name or "a node", group.resources.get("CPU", 0), group.resources.get("GPU", 0), max(group.max_count, 0))
        for group in config.node_group_configs
    ]


def _autoscales() -> bool:
    """Whether an autoscaler that can start nodes has said anything, in either of Ray's two ways."""
    told = _internal_kv_get(_STATUS)
    kinds: dict[str, Any] = {}
    if told:
        with suppress(ValueError):
            kinds = (json.loads(told).get("autoscaler_report") or {}).get("active_nodes") or {}
    if any(not kind.startswith(_STATIC) for kind in kinds):
        return True
    with suppress(Exception):
        version = get_cluster_status(ray.get_runtime_context().gcs_address).stats.autoscaler_version
        return bool(version and int(version) > 0)
    return False
