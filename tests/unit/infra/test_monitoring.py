"""Alerts and dashboard: they name metrics that a run shows, Prometheus understands them, and alerts fire when they should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from masklake.segment.metrics import ACTOR, DRIVER
from tests.lakes import ROOT
from tests.unit.infra.manifests import wrong_fields

FOLDER = ROOT / "infra" / "monitoring"
ALERTS = yaml.safe_load((FOLDER / "alerts.yaml").read_text(encoding="utf-8"))
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
EXPORTED = {f"ray_{name}" + ("_total" if metric.kind == "counter" else ""): metric for name, metric in {**DRIVER, **ACTOR}.items()}
"""The names under which Ray exports them."""


def rules() -> Iterator[dict[str, Any]]:
    for group in ALERTS["groups"]:
        yield from group["rules"]


def queries() -> list[str]:
    """The dashboard's, as Grafana sends them."""
    targets = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return [each.replace("$__rate_interval", "1m").replace("$table", ".*").replace("$run", ".*") for each in targets]


def promtool(*arguments: str) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    done = subprocess.run(["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_they_name_what_a_run_shows_and_nothing_is_shown_in_vain() -> None:
    named = re.findall(r"ray_masklake_\w+", "\n".join([*queries(), *(rule["expr"] for rule in rules())]))
    assert set(named) == set(EXPORTED)


def test_they_ask_for_labels_that_these_metrics_have() -> None:
    for query in (*queries(), *(rule["expr"] for rule in rules())):
        for name, matchers in re.findall(r"(ray_masklake_\w+)\{([^}]*)\}", query):
            assert set(re.findall(r"(\w+)[=!]", matchers)) <= {"table", "run_id", EXPORTED[name].label}


def test_the_operators_rules_are_the_same() -> None:
    assert yaml.safe_load((FOLDER / "prometheusrule.yaml").read_text(encoding="utf-8"))["spec"] == ALERTS


@pytest.mark.parametrize("name", ["podmonitor", "prometheusrule"])
def test_the_operators_resources_have_its_fields(name: str) -> None:
    operator = json.loads(Path(__file__).with_name("prometheus-operator.json").read_text(encoding="utf-8"))
    manifest = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    assert manifest["apiVersion"] == "monitoring.coreos.com/v1"
    assert wrong_fields(manifest["spec"], operator[manifest["kind"]]) == []


def test_a_field_that_the_operator_does_not_have_is_found() -> None:
    operator = json.loads(Path(__file__).with_name("prometheus-operator.json").read_text(encoding="utf-8"))
    wrong = {"selector": {}, "podMetricsEndpoint": [], "podMetricsEndpoints": [{"port": 8080, "relabelings": [{"sourceLabel": []}]}]}
    assert wrong_fields(wrong, operator["PodMonitor"]) == [
        ".podMetricsEndpoint",
        ".podMetricsEndpoints[0].port",
        ".podMetricsEndpoints[0].relabelings[0].sourceLabel",
    ]


def test_panels_are_apart_and_each_says_what_it_shows() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        assert panel["title"]
        assert panel["description"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_prometheus_understands_all_of_it(tmp_path: Path) -> None:
    recorded = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(queries())]
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}), encoding="utf-8")
    promtool("check", "rules", "alerts.yaml", str(tmp_path / "panels.yaml"))
    promtool("check", "config", "prometheus.yaml")


def test_alerts_fire_when_they_should_and_not_before() -> None:
    promtool("test", "rules", "alerts-test.yaml")
