"""The Kubernetes manifest and the container file call the program as it is: its command, its settings, the tested versions."""

from __future__ import annotations

import re
import shlex
import tomllib
from typing import Any

import pytest
import yaml

from masklake.config import resolve
from masklake.errors import Refused
from masklake.segment.settings import PROGRAM, Config
from tests.lakes import MODEL, ROOT
from tests.shared import shared_folder

INFRA = ROOT / "infra"
CONSTRAINTS = (INFRA / "constraints.txt").read_text(encoding="utf-8")


@pytest.fixture
def spec() -> dict[str, Any]:
    manifest = yaml.safe_load((INFRA / "rayjob.yaml").read_text(encoding="utf-8"))
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayJob")
    found: dict[str, Any] = manifest["spec"]
    return found


def settings(spec: dict[str, Any]) -> Config:
    """The settings as the program itself reads them from the manifest's command."""
    program, arguments = shlex.split(spec["entrypoint"])[:4], shlex.split(spec["entrypoint"])[4:]
    assert program == ["python", "-m", "masklake", "segment"]
    return resolve(arguments, PROGRAM)


def pods(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod specs: the head's, then the worker groups'."""
    cluster = spec["rayClusterSpec"]
    return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [container for pod in pods(spec) for container in pod["containers"]]


def names_of(container: dict[str, Any]) -> list[str]:
    return [variable["name"] for variable in container.get("env", ())]


def unknown_fields(value: Any, schema: dict[str, Any], path: str = "") -> list[str]:
    """The places in an object whose name or type its custom resource's schema does not have."""
    if schema.get("x-kubernetes-int-or-string"):
        return [] if isinstance(value, int | str) else [path]
    types: dict[str, Any] = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "number": (int, float)}
    if not isinstance(value, types[schema["type"]]):
        return [path]
    if isinstance(value, list):
        return [found for index, each in enumerate(value) for found in unknown_fields(each, schema["items"], f"{path}[{index}]")]
    if not isinstance(value, dict):
        return []
    known, others = schema.get("properties", {}), schema.get("additionalProperties")
    missing = [f"{path}.{name} is missing" for name in schema.get("required", ()) if name not in value]
    return missing + [
        found
        for name, each in value.items()
        for found in (
            unknown_fields(each, known.get(name, others), f"{path}.{name}")
            if known.get(name) or isinstance(others, dict)
            else [f"{path}.{name}"]
        )
    ]


@pytest.mark.shared_data
def test_every_field_is_one_of_kuberays(spec: dict[str, Any]) -> None:
    resource = yaml.safe_load((shared_folder("data", "kuberay-crds") / "ray.io_rayjobs.yaml").read_text(encoding="utf-8"))
    (version,) = [each for each in resource["spec"]["versions"] if each["name"] == "v1"]
    schema = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert unknown_fields(spec, schema) == []
    assert unknown_fields(spec | {"backofLimit": 2, "suspend": "no"}, schema) == [".backofLimit", ".suspend"]


def test_a_stopped_run_has_time_to_commit(spec: dict[str, Any]) -> None:
    head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    (wait,) = [int(each["value"]) for each in head["containers"][0]["env"]]
    assert 30 <= wait < head["terminationGracePeriodSeconds"]


def test_its_command_is_the_program_with_settings_that_exist(spec: dict[str, Any]) -> None:
    found = settings(spec)
    assert found.input.startswith("s3://")
    assert found.output.startswith("s3://")


def test_a_setting_that_does_not_exist_would_be_noticed(spec: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="did you mean --gpus-per-actor") as stopped:
        settings({"entrypoint": spec["entrypoint"] + " --gpu-per-actor 1"})
    assert stopped.value.exit_code == 2


def test_the_workers_have_what_the_actors_ask_for_and_cpus_left_to_load(spec: dict[str, Any]) -> None:
    found = settings(spec)
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert group["minReplicas"] == group["replicas"] == group["maxReplicas"]
    assert found.actors is not None
    assert found.gpus_per_actor is not None
    assert found.cpus_per_actor is not None
    assert found.actors.most * found.gpus_per_actor == group["replicas"] * int(limits["nvidia.com/gpu"])
    assert found.actors.most * found.cpus_per_actor <= group["replicas"] * (int(limits["cpu"]) - 1)


def test_the_head_runs_no_tasks(spec: dict[str, Any]) -> None:
    head = spec["rayClusterSpec"]["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert "nvidia.com/gpu" not in head["template"]["spec"]["containers"][0]["resources"]["limits"]


def test_it_ends_and_gives_its_nodes_back(spec: dict[str, Any]) -> None:
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["activeDeadlineSeconds"] > 0
    assert spec["backoffLimit"] >= 1


def test_keys_come_from_a_secret_into_every_container_and_stand_nowhere_in_the_manifest(spec: dict[str, Any]) -> None:
    assert [container["envFrom"] for container in containers(spec)] == [[{"secretRef": {"name": "masklake-s3", "optional": True}}]] * 2
    assert [name for container in containers(spec) for name in names_of(container)] == ["RAY_JOB_STOP_WAIT_TIME_S"]
    (submitter,) = spec["submitterPodTemplate"]["spec"]["containers"]
    assert not {"env", "envFrom"} & submitter.keys()
    assert "runtimeEnvYAML" not in spec
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_nothing_runs_as_root(spec: dict[str, Any]) -> None:
    user = re.search(r"--uid (\d+)", containerfile())
    assert user is not None
    submitter = spec["submitterPodTemplate"]["spec"]
    assert submitter["restartPolicy"] == "Never"
    for pod in (*pods(spec), submitter):
        assert all(container["securityContext"]["allowPrivilegeEscalation"] is False for container in pod["containers"])
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == int(user[1])
    assert f"\nUSER {user[1]}\n" in containerfile()


def test_its_ray_is_the_one_in_the_image(spec: dict[str, Any]) -> None:
    assert f"\nray=={spec['rayClusterSpec']['rayVersion']}\n" in CONSTRAINTS
    assert len({container["image"] for container in containers(spec)}) == 1


def containerfile() -> str:
    return (INFRA / "Containerfile").read_text(encoding="utf-8")


def test_the_image_starts_a_program_that_the_project_installs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    entry = re.search(r'^ENTRYPOINT \["(.+)"\]$', containerfile(), re.MULTILINE)
    assert entry is not None
    assert entry[1] in project["scripts"]
    python = re.search(r"^FROM python:(\d+)\.(\d+)-slim$", containerfile(), re.MULTILINE)
    assert python is not None
    assert project["requires-python"] == f">={python[1]}.{python[2]}"


def test_what_the_image_copies_is_there_and_holds_no_model_but_the_demos() -> None:
    sources = [source for line in re.findall(r"^COPY (.+)$", containerfile(), re.MULTILINE) for source in line.split()[:-1]]
    assert {"pipeline", "infra/constraints.txt", "pyproject.toml"} <= set(sources)
    for source in sources:
        found = list(ROOT.glob(source))
        assert found, source
        weights = [file for path in found for file in path.rglob("*.safetensors")]
        assert not [file for file in weights if file.parent != MODEL], source


def test_the_image_installs_the_tested_torch_by_itself() -> None:
    assert len(re.findall(r"^torch==", CONSTRAINTS, re.MULTILINE)) == 1
    assert "grep '^torch==' infra/constraints.txt" in containerfile()
    assert "pip install --constraint infra/constraints.txt ." in containerfile()
