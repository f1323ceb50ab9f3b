"""Every night: the gate creates a RayJob where there is work, and else none. What plans here is a line of shell."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.kubernetes.components.nightly import gate
from tests.unit.infra.kubernetes_api import KubernetesAPI, kubernetes_api
from tests.unit.infra.manifests import (
    KUBERNETES,
    Manifest,
    custom_schema,
    job_spec,
    of_kind,
    ray_pods,
    render,
    settings,
    wrong_fields,
)

NIGHTLY = ["aws-nightly", "on-premise-nightly"]
NAME = "masklake-nightly"
Night = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubernetesAPI]:
    manifests = render("overlays/on-premise-nightly")
    with kubernetes_api(tmp_path_factory.mktemp("account"), of_kind(manifests, "Role")["rules"]) as api:
        yield api


@pytest.fixture
def api(running: KubernetesAPI) -> KubernetesAPI:
    running.objects.clear()
    running.asked.clear()
    running.failing.clear()
    return running


@pytest.fixture
def night(api: KubernetesAPI, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Night:
    """One night's gate, whose plan is an exit code and the text that is printed."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)

    def run(printed: str, code: int = 0, job: str = f"{NAME}-29400120") -> dict[str, Any]:
        manifest = json.loads(json.dumps(of_kind(render("overlays/on-premise-nightly"), "RayCronJob")))
        manifest["metadata"]["uid"] = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
        manifest["spec"]["jobTemplate"]["entrypoint"] = shlex.join(["sh", "-c", f"echo {shlex.quote(printed)}; exit {code}", "plan"])
        api.objects[f"raycronjobs/{NAME}"] = manifest
        monkeypatch.setenv("JOB_NAME", job)
        ended = gate.main([NAME], api.account)
        said: dict[str, Any] = json.loads(capfd.readouterr().out.splitlines()[-1])
        assert said["exit_code"] == ended
        return said

    return run


def plan(images: int) -> str:
    return json.dumps({"outcome": "planned", "planned": images})


def test_nothing_to_do_is_no_job(api: KubernetesAPI, night: Night) -> None:
    assert night(plan(0)) == {"outcome": "nothing to do", "planned": 0, "exit_code": 0}
    assert api.of("rayjobs") == []
    assert api.asked == ["get raycronjobs", "list rayjobs"]


@pytest.mark.slow
@pytest.mark.shared_data
def test_work_is_one_job_as_kuberay_would_have_made_it(api: KubernetesAPI, night: Night) -> None:
    assert night(plan(7)) == {"outcome": "created", "planned": 7, "rayjob": f"{NAME}-29400120", "exit_code": 0}
    (job,) = api.of("rayjobs")
    schedule = api.objects[f"raycronjobs/{NAME}"]
    assert (job["apiVersion"], job["kind"], job["spec"]) == ("ray.io/v1", "RayJob", schedule["spec"]["jobTemplate"])
    assert wrong_fields(job["spec"], custom_schema("RayJob")) == []
    labels = {"app.kubernetes.io/name": "masklake", "kueue.x-k8s.io/queue-name": "masklake", "ray.io/cronjob-name": NAME}
    assert job["metadata"]["labels"] == labels
    (owner,) = job["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("RayCronJob", NAME, schedule["metadata"]["uid"])


def test_a_gate_that_is_tried_again_makes_no_second_job(api: KubernetesAPI, night: Night) -> None:
    night(plan(7))
    api.objects[f"rayjobs/{NAME}-29400120"]["status"] = {"jobDeploymentStatus": "Complete"}
    assert night(plan(3))["outcome"] == "created before"
    assert len(api.of("rayjobs")) == 1


@pytest.mark.parametrize("status", ["", "Initializing", "Running", "Retrying", "Suspended"])
def test_a_run_that_goes_on_is_left_alone_before_anything_is_planned(api: KubernetesAPI, night: Night, status: str) -> None:
    night(plan(7))
    api.objects[f"rayjobs/{NAME}-29400120"]["status"] = {"jobDeploymentStatus": status} if status else {}
    said = night("never printed", 1, job=f"{NAME}-29401560")
    assert said == {"outcome": "skipped", "running": [f"{NAME}-29400120"], "exit_code": 0}
    assert len(api.of("rayjobs")) == 1


@pytest.mark.parametrize("status", ["Complete", "Failed"])
def test_after_one_that_ended_the_next_night_has_a_job_of_its_own(api: KubernetesAPI, night: Night, status: str) -> None:
    night(plan(7))
    api.objects[f"rayjobs/{NAME}-29400120"]["status"] = {"jobDeploymentStatus": status}
    assert night(plan(1), job=f"{NAME}-29401560")["rayjob"] == f"{NAME}-29401560"
    assert len(api.of("rayjobs")) == 2


def test_a_refusal_is_the_gates_own_and_costs_no_job(api: KubernetesAPI, night: Night) -> None:
    refusal = {"outcome": "refused", "error": "no such bucket", "exit_code": 2}
    assert night(json.dumps(refusal), 2) == refusal
    assert api.of("rayjobs") == []


@pytest.mark.parametrize(("printed", "code"), [("Killed", 137), ("", 0), ("7", 0), ('{"outcome": "done"}', 0)])
def test_a_plan_that_is_none_is_a_failure_to_be_tried_again(api: KubernetesAPI, night: Night, printed: str, code: int) -> None:
    said = night(printed, code)
    assert (said["outcome"], said["exit_code"]) == ("failed", 1)
    assert "is not a plan" in said["error"]
    assert api.of("rayjobs") == []


def test_a_name_that_kuberay_would_refuse_is_refused_before(api: KubernetesAPI, night: Night) -> None:
    said = night(plan(7), job="j" * 48)
    assert (said["outcome"], said["exit_code"], api.asked) == ("refused", 2, [])


def test_an_api_that_restarts_is_asked_again(api: KubernetesAPI, night: Night) -> None:
    api.failing += [503, 500]
    assert night(plan(7))["outcome"] == "created"
    api.failing += [503] * 5
    said = night(plan(7), job="another")
    assert (said["outcome"], said["exit_code"]) == ("failed", 1)
    assert "does not answer" in said["error"]


def test_what_the_role_does_not_allow_is_said(api: KubernetesAPI, night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "rules", [{"apiGroups": ["ray.io"], "resources": ["raycronjobs"], "verbs": ["get"]}])
    said = night(plan(7))
    assert (said["outcome"], said["exit_code"]) == ("refused", 2)
    assert "answers 403" in said["error"]
    assert "may not list rayjobs" in said["error"]


def test_outside_a_pod_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("JOB_NAME", "job")
    assert gate.main([NAME], tmp_path) == 2
    assert "runs in a pod" in capsys.readouterr().out


@pytest.fixture(params=NIGHTLY)
def manifests(request: pytest.FixtureRequest) -> tuple[Manifest, ...]:
    return render(f"overlays/{request.param}")


def test_nothing_runs_at_once_and_kuberay_schedules_nothing(manifests: tuple[Manifest, ...]) -> None:
    assert [each["kind"] for each in manifests if each["kind"] in ("RayJob", "RayCronJob")] == ["RayCronJob"]
    assert of_kind(manifests, "RayCronJob")["spec"]["suspend"] is True


def test_the_schedule_is_one_at_a_time_by_the_clock_of_a_place(manifests: tuple[Manifest, ...]) -> None:
    cron, ray = of_kind(manifests, "CronJob")["spec"], of_kind(manifests, "RayCronJob")["spec"]
    assert cron["concurrencyPolicy"] == "Forbid"
    assert cron["startingDeadlineSeconds"] >= 3600
    assert (cron["schedule"], cron["timeZone"]) == (ray["schedule"], ray["timeZone"])
    (rule,) = cron["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [2])


def test_the_pod_runs_the_gate_of_the_schedule_with_its_role_and_the_runs_settings(manifests: tuple[Manifest, ...]) -> None:
    pod = of_kind(manifests, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    program, file, name = container["command"]
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    volumes = {each["name"]: each["configMap"]["name"] for each in pod["volumes"]}
    (text,) = of_kind(manifests, "ConfigMap", volumes["gate"])["data"].items()
    assert (program, file) == ("python", f"{mounts['gate']}/{text[0]}")
    assert text[1] == (KUBERNETES / "components" / "nightly" / "gate.py").read_text(encoding="utf-8")
    schedule = of_kind(manifests, "RayCronJob")
    assert name == schedule["metadata"]["name"]
    head = ray_pods(job_spec(manifests))[0]
    assert mounts["settings"] == head["containers"][0]["volumeMounts"][0]["mountPath"]
    assert volumes["settings"] == head["volumes"][0]["configMap"]["name"]
    (subject,) = of_kind(manifests, "RoleBinding")["subjects"]
    assert (subject["name"], subject["namespace"]) == (pod["serviceAccountName"], schedule["metadata"]["namespace"])
    assert of_kind(manifests, "RoleBinding")["roleRef"]["name"] == of_kind(manifests, "Role")["metadata"]["name"]
    assert "nvidia.com/gpu" not in str(pod)


def test_a_nights_command_plans_with_what_it_runs_with(manifests: tuple[Manifest, ...], tmp_path: Path) -> None:
    run = settings(manifests, tmp_path)
    assert (run.since, run.on_overlap, run.allow_empty, run.dry_run) == ("48h", "wait", True, False)
    planned = settings(manifests, tmp_path, job_spec(manifests)["entrypoint"] + " --dry-run")
    assert planned == run.model_copy(update={"dry_run": True})
