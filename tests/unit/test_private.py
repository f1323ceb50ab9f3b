"""Private parts of other packages: each is named here, used in one place, and bounded in pyproject.toml."""

from __future__ import annotations

import importlib
import re
import sys
import tomllib

import pytest

from masklake.training import flow
from tests.lakes import ROOT

SOURCE = ROOT / "pipeline" / "masklake"
USES: list[tuple[str, ...]] = [  # distribution, module, name there, the files that use it
    ("ray", "ray._private.worker", "global_worker", "cluster.py", "own_ray.py"),
    ("ray", "ray._private.node", "psutil", "own_ray.py"),
    ("ray", "ray._private.services", "get_node", "own_ray.py"),
    ("ray", "ray._private.ray_constants", "ENABLE_RAY_CLUSTER", "own_ray.py"),
    ("ray", "ray._private.node", "Node.start_api_server", "segment/lean.py"),
    ("ray", "ray._private.node", "Node.start_monitor", "segment/lean.py"),
    ("ray", "ray._private.node", "Node.start_log_monitor", "segment/lean.py"),
    ("ray", "ray.data._internal.stats", "get_or_create_stats_actor", "segment/lean.py"),
    (
        "ray",
        "ray.data._internal.cluster_autoscaler.rate_based_cluster_autoscaler",
        "DefaultAutoscalingCoordinator",
        "segment/lean.py",
    ),
    ("ray", "ray._private.state", "state.get_cluster_config", "segment/nodes.py"),
    ("ray", "ray._private.state", "state.actor_table", "segment/nodes.py"),
    ("ray", "ray.experimental.internal_kv", "_internal_kv_get", "segment/nodes.py"),
    (
        "ray",
        "ray.data._internal.execution.execution_callback",
        "ExecutionCallback.on_execution_step",
        "segment/flow.py",
        "training/flow.py",
    ),
    ("s3fs", "s3fs", "S3FileSystem._call_s3", "storage/s3.py"),
    ("pyiceberg", "pyiceberg.io.pyarrow", "compute_statistics_plan", "export/iceberg/mirror.py"),
]


@pytest.mark.parametrize("use", USES, ids=lambda use: use[2])
def test_a_private_part_is_where_it_is_used(use: tuple[str, ...]) -> None:
    _, module, name, *files = use
    found = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    word = re.compile(rf"\b{name.rpartition('.')[2]}\b")
    users = [str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py") if word.search(path.read_text(encoding="utf-8"))]
    assert sorted(users) == files


@pytest.mark.parametrize("distribution", sorted({use[0] for use in USES} | {"aiobotocore", "deltalake"}))
def test_its_package_has_an_upper_bound(distribution: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    (line,) = [line for line in wanted if re.match(rf"{distribution}\b(?!-)", line)]
    assert "<" in line, line


def test_nothing_else_of_rays_inside_is_imported() -> None:
    pattern = re.compile(r"ray\.[\w.]*\b_\w+")
    private = {(str(path.relative_to(SOURCE)), name) for path in SOURCE.rglob("*.py") for name in pattern.findall(path.read_text("utf-8"))}
    assert {file for file, _ in private} == {file for distribution, _, _, *files in USES if distribution == "ray" for file in files}


def test_a_ray_that_moved_its_callback_costs_pace_and_not_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(flow._rests()) == 1
    monkeypatch.setitem(sys.modules, "ray.data._internal.execution.execution_callback", None)
    assert flow._rests() == []
