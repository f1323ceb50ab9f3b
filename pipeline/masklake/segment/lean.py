"""A Ray of our own without the processes that serve many users: each costs a second of CPU or more, just when a run begins.

Left out are the server of Ray's dashboard, for which `ray.init` would wait, the monitor that would start nodes, what would carry workers'
output here, and two actors of Ray Data's: one keeps figures for the dashboard, one shares out a cluster among datasets. These names are
private to Ray, whose version pyproject.toml bounds; where one is not there, all of its processes are. Workers that would start before there
is work for them are left out by `variables`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any

import ray
from ray._private.node import Node

_STATS, _SCALING = "ray.data._internal.stats", "ray.data._internal.cluster_autoscaler.rate_based_cluster_autoscaler"


@contextmanager
def starting() -> Iterator[None]:
    """Within, `ray.init` starts a control store and a raylet, which has agents of its own."""
    with ExitStack() as afterwards:
        _replace(afterwards, Node, "start_api_server", _no_server)
        for name in ("start_monitor", "start_log_monitor"):
            _replace(afterwards, Node, name, _nothing)
        yield


@contextmanager
def data() -> Iterator[None]:
    """Within, datasets need no actors but those of their stages: they have the machine for themselves."""
    with ExitStack() as afterwards:
        _replace(afterwards, _module(_STATS), "get_or_create_stats_actor", _Nobody)
        _replace(afterwards, _module(_SCALING), "DefaultAutoscalingCoordinator", _Alone)
        yield


def _module(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _replace(afterwards: ExitStack, owner: Any, name: str, value: Any) -> None:
    """Until then, the owner's attribute has this value, if it has one at all."""
    kept = getattr(owner, name, None)
    if kept is not None:
        setattr(owner, name, value)
        afterwards.callback(setattr, owner, name, kept)


def _no_server(node: Any, **_asked: Any) -> None:
    node._webui_url = ""  # as where the server has no pages


def _nothing(*_arguments: Any) -> None:
    pass


class _Nobody:
    """Takes every call of an actor."""

    def __getattr__(self, name: str) -> _Nobody:
        return self

    def remote(self, *_arguments: Any) -> None:
        """Nothing comes of it."""


class _Alone:
    """Coordinates a dataset with no other one: it has all that there is."""

    def __init__(self, *_arguments: Any, **_named: Any) -> None:
        pass

    def request_resources(self, *_arguments: Any, **_named: Any) -> None:
        """No node will come."""

    def cancel_request(self) -> None:
        """There is none."""

    def get_reserved_resources(self) -> dict[str, dict[str, float]]:
        """Of each node, what it has."""
        return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
