"""What an autoscaler is asked for, judged by the one of Ray that KubeRay runs; and how a run knows that one is there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import ray
from ray.autoscaler.v2.event_logger import AutoscalerEventLogger
from ray.autoscaler.v2.instance_manager.config import NodeTypeConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.autoscaler_pb2 import ClusterResourceConstraint  # type: ignore[attr-defined]

from masklake.errors import Stalled
from masklake.segment import nodes, placement
from masklake.segment.patience import Cluster
from masklake.segment.placement import Node, Pool

HEAD, GPU, DECODE = Node("head", 0), Node("gpu", 8, 1, count=4), Node("decode", 8, count=2)


def started(kinds: Sequence[Node], bundles: Sequence[dict[str, float]]) -> Counter[str]:
    """The nodes that Ray's autoscaler starts for what is asked of it, on a cluster that has none yet."""
    types = {kind.name: NodeTypeConfig(kind.name, 0, kind.count, resources={"CPU": kind.cpus, "GPU": kind.gpus}) for kind in kinds}
    asked = ResourceRequestUtil.group_by_count([ResourceRequestUtil.make(bundle) for bundle in bundles])
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=types,
        cluster_resource_constraints=[ClusterResourceConstraint(resource_requests=asked)],
    )
    reply = ResourceDemandScheduler(AutoscalerEventLogger(MagicMock())).schedule(request)
    return Counter({launch.instance_type: launch.count for launch in reply.to_launch})


@pytest.mark.parametrize(
    ("kinds", "pool", "expected"),
    [
        ([HEAD, GPU], Pool(1, 4, 2, 1), {"gpu": 4}),
        ([HEAD, GPU], Pool(1, 8, 2, 1), {"gpu": 4}),  # asked for eight, Ray would start none
        ([HEAD, GPU, DECODE], Pool(1, 4, 8, 1), {"gpu": 4, "decode": 1}),  # actors fill their nodes: loading is elsewhere
        ([HEAD, GPU], Pool(1, 4, 8, 1), {"gpu": 4}),  # and where there is no elsewhere, one node is for loading
        ([HEAD, DECODE], Pool(1, 2, 8, 0), {"decode": 2}),
        ([HEAD, DECODE], Pool(1, 9, 0.5, 0), {"decode": 1}),
    ],
)
def test_an_autoscaler_starts_the_nodes_that_a_run_waits_for(kinds: list[Node], pool: Pool, expected: dict[str, int]) -> None:
    found = started(kinds, nodes.bundles(pool, kinds))
    assert found == expected
    there = [kind for kind in kinds for _ in range(found[kind.name])]
    assert placement.missing(there, pool) is None


def test_one_that_is_asked_for_more_than_there_can_be_starts_nothing() -> None:
    assert started([HEAD, GPU], [{"CPU": 2.0, "GPU": 1.0}] * 8) == {}


def test_one_that_does_not_say_what_it_may_start_is_asked_for_all() -> None:
    assert nodes.bundles(Pool(1, 3, 1, 0), None) == [{"CPU": 1}, {"CPU": 1}, {"CPU": 1}, {"CPU": 0.1}]


def test_it_is_let_go_at_the_end_however_that_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[dict[str, float]]] = []

    def ask(bundles: list[dict[str, float]]) -> None:
        asked.append(bundles)

    def wait_in_vain() -> None:
        raise Stalled("in vain")

    monkeypatch.setattr(nodes, "request_resources", ask)
    pool = Pool(1, 2, 2, 1)
    with nodes.asked_for(pool, Cluster([GPU], None, grows=False)):
        assert asked == []  # nobody to ask
    with pytest.raises(Stalled), nodes.asked_for(pool, Cluster([HEAD], None, grows=True)):
        wait_in_vain()
    assert asked == [[{"CPU": 2, "GPU": 1}, {"CPU": 2, "GPU": 1}, {"CPU": 0.1}], []]


@pytest.mark.parametrize(
    ("kinds", "version", "grows"), [(["worker"], None, True), (["node_f3a1"], None, False), ([], "2", True), ([], None, False)]
)
def test_an_autoscaler_is_known_by_what_it_said(
    kinds: list[str], version: str | None, grows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The older one leaves a report, of nodes by kind (without one, Ray itself reports single nodes there); the newer one its version."""
    report = json.dumps({"autoscaler_report": {"active_nodes": dict.fromkeys(kinds, 1)}}).encode()
    status: Any = SimpleNamespace(stats=SimpleNamespace(autoscaler_version=version))
    monkeypatch.setattr(nodes, "_internal_kv_get", lambda key: report)
    monkeypatch.setattr(nodes, "get_cluster_status", lambda address: status)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="10.0.0.1:6379"))
    assert nodes._autoscales() == grows
