"""Airflow and Dagster: a day's RayJob, and what its last line means. The DAG runs where MASKLAKE_AIRFLOW names a Python with Airflow."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.schedules.masklake_rayjob import ending, name_of, ray_job
from masklake.config import resolve
from masklake.segment.settings import PROGRAM
from tests.lakes import ROOT
from tests.unit.infra.kubernetes_api import TOKEN, kubernetes_api
from tests.unit.infra.manifests import KUBERNETES, of_kind, render

SCHEDULES = ROOT / "infra" / "schedules"
DONE = {"status": {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}}
FAILED = {"status": {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed", "message": "see the log"}}
ENDS = [
    (0, "done", "done"),
    (0, "nothing to do", "done"),
    (0, "skipped", "skipped"),
    (4, "fenced", "skipped"),
    (2, "refused", "hopeless"),
    (3, "done", "hopeless"),
    (1, "failed", "again"),
    (5, "stalled", "again"),
    (143, "stopped", "again"),
]

TRIAL = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
assert not bag.import_errors, bag.import_errors
import pendulum
run = bag.dags["masklake"].test(logical_date=pendulum.datetime(2026, 11, 22, 2))
print(json.dumps({task.task_id: str(task.state) for task in run.get_task_instances()}))
"""


def log(**summary: Any) -> str:
    return f"listing\n{json.dumps(summary)}\n2026-11-22 02:10:00 SUCC cli.py:63 -- Job 'raysubmit_1' ended\n"


@pytest.mark.parametrize(("code", "outcome", "verdict"), ENDS)
def test_the_last_line_decides(code: int, outcome: str, verdict: str) -> None:
    end = ending(FAILED if code else DONE, log(outcome=outcome, exit_code=code, images=3))
    assert (end.verdict, end.summary["exit_code"]) == (verdict, code)


def test_without_a_last_line_kuberay_decides() -> None:
    assert ending(DONE, "").verdict == "done"
    lost = ending(FAILED, "Killed")
    assert (lost.verdict, lost.summary) == ("again", {})
    assert "AppFailed: see the log" in lost.sentence


def test_an_attempt_has_one_name_and_another_one_another() -> None:
    name = name_of("masklake-nightly", "20261122", "a run", 1)
    assert re.fullmatch(r"masklake-nightly-20261122-[0-9a-f]{8}-1", name)
    assert len({name_of("masklake-nightly", "20261122", run, attempt) for run in ("a run", "b") for attempt in (1, 1, 2)}) == 4
    with pytest.raises(ValueError, match="47 characters"):
        name_of("masklake-every-single-night-of-all", "20261122", "run", 1)


def test_the_rayjob_is_the_descriptions_with_another_command_and_no_second_try() -> None:
    described = of_kind(render("overlays/on-premise-nightly"), "RayCronJob")
    job = ray_job(described, "name", "command")
    assert job["spec"] == described["spec"]["jobTemplate"] | {"entrypoint": "command", "backoffLimit": 0}
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "masklake"


@pytest.mark.parametrize("file", ["masklake_dag.py", "masklake_dagster.py"])
def test_its_command_is_the_program_with_settings_that_exist(file: str) -> None:
    text = (SCHEDULES / file).read_text(encoding="utf-8")
    (command,) = re.findall(r'"python -m masklake segment ([^"]+)"', text)
    arguments = shlex.split(command.replace("{DAY}", "2026-11-22"))
    arguments[arguments.index("--config") + 1] = str(KUBERNETES / "overlays" / "aws" / "settings.yaml")
    found = resolve(arguments, PROGRAM)
    assert (found.on_overlap, found.allow_empty, found.since) == ("wait", True, None)


@pytest.mark.skipif("MASKLAKE_AIRFLOW" not in os.environ, reason="MASKLAKE_AIRFLOW names no Python with Airflow 3 and cncf-kubernetes")
@pytest.mark.parametrize(("code", "outcome", "state"), [(0, "done", "success"), (0, "skipped", "skipped"), (2, "refused", "failed")])
def test_the_dag_runs_a_day_and_ends_as_the_run_did(tmp_path: Path, code: int, outcome: str, state: str) -> None:
    rules = yaml.safe_load((SCHEDULES / "rbac.yaml").read_text(encoding="utf-8"))["rules"]
    for folder, names in {"account": [], "dags": ["masklake_dag.py"], "plugins": ["masklake_rayjob.py", "masklake_airflow.py"]}.items():
        (tmp_path / folder).mkdir()
        for name in names:
            shutil.copy(SCHEDULES / name, tmp_path / folder / name)
    with kubernetes_api(tmp_path / "account", rules) as api:
        api.objects["raycronjobs/masklake-nightly"] = of_kind(render("overlays/aws-nightly"), "RayCronJob")
        api.log, api.status = log(outcome=outcome, exit_code=code), (FAILED if code else DONE)["status"]
        authority = base64.b64encode((api.account / "ca.crt").read_bytes()).decode()
        server = {"server": f"https://127.0.0.1:{os.environ['KUBERNETES_SERVICE_PORT']}", "certificate-authority-data": authority}
        contexts = [{"name": "c", "context": {"cluster": "c", "user": "u"}}]
        users, clusters = [{"name": "u", "user": {"token": TOKEN}}], [{"name": "c", "cluster": server}]
        config = {"apiVersion": "v1", "kind": "Config", "current-context": "c", "clusters": clusters, "users": users, "contexts": contexts}
        environment = {
            "PATH": os.environ["PATH"],
            "AIRFLOW_HOME": str(tmp_path),
            "PYTHONPATH": str(tmp_path / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW_CONN_KUBERNETES_DEFAULT": json.dumps({"conn_type": "kubernetes", "extra": {"kube_config": json.dumps(config)}}),
        }
        for command in (["-m", "airflow", "db", "migrate"], ["-c", TRIAL, str(tmp_path / "dags")]):
            line = [os.environ["MASKLAKE_AIRFLOW"], *command]
            done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=240, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout.splitlines()[-1]) == {"segment": state}, done.stdout + done.stderr
        (job,) = api.of("rayjobs")
    assert "--input s3://lake/images/dt=2026-11-22/" in job["spec"]["entrypoint"]
    assert job["metadata"]["name"].startswith("masklake-nightly-20261122-")
    assert api.asked == ["get raycronjobs", "create rayjobs", "get rayjobs"]
