"""Every overlay, as kubectl renders it: each field is one of Kubernetes' or KubeRay's, each command the program's."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from masklake.errors import Refused
from tests.lakes import ROOT
from tests.unit.infra.manifests import (
    KUBERNETES,
    OVERLAYS,
    Manifest,
    check_core_kind,
    check_pod,
    containers,
    custom_schema,
    job_spec,
    of_kind,
    pods,
    ray_pods,
    render,
    settings,
    wrong_fields,
)

CUSTOM = ("RayJob", "RayCronJob")


@pytest.fixture(params=OVERLAYS)
def manifests(request: pytest.FixtureRequest) -> tuple[Manifest, ...]:
    return render(f"overlays/{request.param}")


def test_there_is_one_for_each_kind_of_cluster() -> None:
    assert {"aws", "google-cloud", "on-premise", "kueue", "autoscaling"} <= set(OVERLAYS)


@pytest.mark.slow
def test_every_field_of_a_core_kind_and_of_a_pod_is_one_of_kubernetes(manifests: tuple[Manifest, ...]) -> None:
    for manifest in manifests:
        assert manifest["metadata"]["namespace"] == "masklake"
        if manifest["kind"] not in CUSTOM:
            check_core_kind(manifest)
    for pod in pods(manifests):
        check_pod(pod)


def test_a_field_that_does_not_exist_would_be_noticed() -> None:
    pod = ray_pods(job_spec(render("overlays/aws")))[0]
    with pytest.raises(jsonschema.ValidationError, match="serviceAcountName"):
        check_pod(pod | {"serviceAcountName": "masklake"})


@pytest.mark.slow
@pytest.mark.shared_data
def test_every_field_of_a_custom_kind_is_one_of_kuberays(manifests: tuple[Manifest, ...]) -> None:
    for manifest in manifests:
        if manifest["kind"] in CUSTOM:
            assert wrong_fields(manifest["spec"], custom_schema(manifest["kind"])) == []


@pytest.mark.shared_data
def test_a_field_that_kuberay_does_not_have_would_be_noticed() -> None:
    rule = {"policy": "DeletePods", "condition": {"jobStatus": "FAILED", "ttlSeconds": -1}}
    wrong = {"backofLimit": 2, "suspend": "no", "deletionStrategy": {"deletionRules": [rule]}}
    assert wrong_fields(wrong, custom_schema("RayJob")) == [
        ".backofLimit",
        ".suspend",
        ".deletionStrategy.deletionRules[0].policy",
        ".deletionStrategy.deletionRules[0].condition.ttlSeconds",
    ]


def test_its_command_is_the_program_with_settings_that_exist(manifests: tuple[Manifest, ...], tmp_path: Path) -> None:
    found = settings(manifests, tmp_path)
    assert re.match("(s3|gs)://", found.input)
    assert re.match("(s3|gs)://", found.output)


@pytest.mark.parametrize("overlay", ["aws", "google-cloud", "on-premise"])
def test_a_copy_of_an_overlay_asks_for_what_its_own_settings_say(overlay: str, tmp_path: Path) -> None:
    copy = shutil.copytree(KUBERNETES, tmp_path / "kubernetes") / "overlays" / "mine"
    shutil.copytree(KUBERNETES / "overlays" / overlay, copy)
    text = (copy / "settings.yaml").read_text(encoding="utf-8")
    (copy / "settings.yaml").write_text(text.replace("//lake/", "//my-own-lake/"), encoding="utf-8")
    assert settings(render(str(copy)), tmp_path).input.endswith("://my-own-lake/images/")


def test_a_setting_that_does_not_exist_would_be_noticed(tmp_path: Path) -> None:
    manifests = render("overlays/aws")
    with pytest.raises(Refused, match="did you mean --gpus-per-actor") as stopped:
        settings(manifests, tmp_path, job_spec(manifests)["entrypoint"] + " --gpu-per-actor 1")
    assert stopped.value.exit_code == 2


def test_nothing_that_pod_security_restricted_refuses(manifests: tuple[Manifest, ...]) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/, Restricted."""
    user = re.search(r"^USER (\d+)$", (ROOT / "infra" / "Containerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert user is not None
    for pod in pods(manifests):
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] == int(user[1])
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert {kind for volume in pod.get("volumes", ()) for kind in volume.keys() - {"name"}} <= {"configMap", "emptyDir", "projected"}
    for container in containers(manifests):
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert container["resources"]["requests"].keys() == container["resources"]["limits"].keys() >= {"cpu", "memory"}


def test_keys_stand_nowhere_and_a_secret_is_asked_for_only_where_no_service_account_has_a_role(manifests: tuple[Manifest, ...]) -> None:
    spec = job_spec(manifests)
    accounts = [each["metadata"].get("annotations") for each in manifests if each["kind"] == "ServiceAccount"]
    asked = [container.get("envFrom") for pod in ray_pods(spec) for container in pod["containers"]]
    assert asked == ([None] * 3 if all(accounts) else [[{"secretRef": {"name": "masklake-s3"}}]] * 3)
    (submitter,) = spec["submitterPodTemplate"]["spec"]["containers"]
    assert not {"env", "envFrom"} & submitter.keys()
    assert "runtimeEnvYAML" not in spec
    assert not re.search("(?i)secret_?access_?key|password", str([container.get("env") for container in containers(manifests)]))
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_only_what_asks_the_kubernetes_api_has_a_token_for_it(manifests: tuple[Manifest, ...]) -> None:
    spec = job_spec(manifests)
    assert of_kind(manifests, "ServiceAccount", "masklake")["automountServiceAccountToken"] is False
    head, *workers = ray_pods(spec)
    assert {pod["serviceAccountName"] for pod in (head, *workers)} == {"masklake"}
    assert head.get("automountServiceAccountToken", False) is spec["rayClusterSpec"].get("enableInTreeAutoscaling", False)
    assert not any(pod.get("automountServiceAccountToken") for pod in (*workers, spec["submitterPodTemplate"]["spec"]))


def test_a_stopped_run_has_time_to_commit(manifests: tuple[Manifest, ...]) -> None:
    head = ray_pods(job_spec(manifests))[0]
    (wait,) = [int(each["value"]) for each in head["containers"][0]["env"] if each["name"] == "RAY_JOB_STOP_WAIT_TIME_S"]
    assert 30 <= wait < head["terminationGracePeriodSeconds"]


def test_the_workers_have_what_the_actors_ask_for_and_cpus_left_to_load(manifests: tuple[Manifest, ...], tmp_path: Path) -> None:
    found = settings(manifests, tmp_path)
    gpu, decode = job_spec(manifests)["rayClusterSpec"]["workerGroupSpecs"]
    limits = gpu["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert found.actors is not None
    assert found.gpus_per_actor is not None
    assert found.cpus_per_actor is not None
    assert found.actors.most * found.gpus_per_actor == gpu["maxReplicas"] * int(limits["nvidia.com/gpu"])
    assert found.actors.most * found.cpus_per_actor <= gpu["maxReplicas"] * (int(limits["cpu"]) - 1)
    assert "nvidia.com/gpu" not in str(decode)
    for group in (gpu, decode):
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_the_head_runs_no_tasks(manifests: tuple[Manifest, ...]) -> None:
    head = job_spec(manifests)["rayClusterSpec"]["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert "nvidia.com/gpu" not in str(head)


def test_it_ends_gives_its_nodes_back_and_keeps_what_explains_a_failure(manifests: tuple[Manifest, ...]) -> None:
    """The rules of KubeRay's ValidateRayJobSpec, which are not in its schema."""
    spec = job_spec(manifests)
    assert spec["activeDeadlineSeconds"] > spec["preRunningDeadlineSeconds"] > 0
    assert spec["backoffLimit"] >= 1
    queued = "kueue.x-k8s.io/queue-name" in str([each["metadata"].get("labels") for each in manifests])
    assert spec.get("shutdownAfterJobFinishes", False) is queued
    assert ("deletionStrategy" in spec) is not queued
    assert ("ttlSecondsAfterFinished" in spec) is queued
    if queued:
        assert not spec["rayClusterSpec"].get("enableInTreeAutoscaling")
        return
    seconds: dict[str, dict[str, int]] = {}
    for rule in spec["deletionStrategy"]["deletionRules"]:
        condition: dict[str, Any] = dict(rule["condition"])
        ttl = condition.pop("ttlSeconds")
        (state,) = condition.values()  # one of the two
        assert rule["policy"] not in seconds.setdefault(state, {})
        seconds[state][rule["policy"]] = ttl
    assert ("DeleteWorkers" in str(seconds)) is not spec["rayClusterSpec"].get("enableInTreeAutoscaling", False)
    assert seconds["SUCCEEDED"]["DeleteCluster"] <= 300
    assert seconds["Failed"].get("DeleteWorkers", 0) == 0
    assert 3600 <= seconds["Failed"]["DeleteCluster"] <= seconds["Failed"]["DeleteSelf"]
    assert seconds["SUCCEEDED"]["DeleteSelf"] < seconds["Failed"]["DeleteSelf"]


def test_its_ray_is_the_one_in_the_image(manifests: tuple[Manifest, ...]) -> None:
    constraints = (ROOT / "infra" / "constraints.txt").read_text(encoding="utf-8")
    assert f"\nray=={job_spec(manifests)['rayClusterSpec']['rayVersion']}\n" in constraints
    images = {container["image"] for container in containers(manifests) if "image" in container}
    assert len(images) == 1
    assert re.fullmatch(r"\S+/masklake:\d\S+", images.pop())


def test_spot_capacity_is_for_workers_and_never_for_the_head() -> None:
    head, *workers = ray_pods(job_spec(render("overlays/autoscaling")))
    (term,) = head["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    kept_off = {(each["key"], *each["values"]) for each in term["matchExpressions"] if each["operator"] == "NotIn"}
    for pod in workers:
        preferred = pod["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
        asked = [each for term in preferred for each in term["preference"]["matchExpressions"]]
        assert {(each["key"], *each["values"]) for each in asked if each["operator"] == "In"} == kept_off
        tolerated = {(each["key"], each.get("value")) for each in pod["tolerations"]}
        assert {("cloud.google.com/gke-spot", "true"), ("kubernetes.azure.com/scalesetpriority", "spot")} <= tolerated
    assert "tolerations" not in head
