"""What a scheduler needs to know of a run on Kubernetes: the RayJob to create, when it is over, and what came of it. It knows no scheduler.

The RayJob is that of the cluster's RayCronJob (`infra/kubernetes/components/nightly`), with another command. Standard library only.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

GROUP, VERSION, JOBS, DESCRIPTIONS = "ray.io", "v1", "rayjobs", "raycronjobs"
_FINISHED = {"Complete", "Failed", "ValidationFailed"}
_LONGEST_NAME = 47  # KubeRay's MaxRayJobNameLength
_HOPELESS = {2: "refused", 3: "more images failed than --max-error-rate allows"}
_FENCED = 4

Manifest = dict[str, Any]
Verdict = Literal["done", "skipped", "hopeless", "again"]


@dataclass(frozen=True)
class Ending:
    """What came of a run: `hopeless` stays so until somebody mends something, `again` may succeed when it is tried again."""

    verdict: Verdict
    sentence: str
    summary: Manifest


def name_of(description: str, partition: str, run: str, attempt: int) -> str:
    """A RayJob's name: the same for the same attempt, however often it is asked for, and another for every other one.

    Raises:
        ValueError: KubeRay would refuse it.
    """
    name = f"{description}-{partition.lower()}-{hashlib.sha256(run.encode()).hexdigest()[:8]}-{attempt}"
    if len(name) > _LONGEST_NAME:
        raise ValueError(f"{name!r} is too long: KubeRay takes {_LONGEST_NAME} characters")
    return name


def ray_job(description: Manifest, name: str, entrypoint: str) -> Manifest:
    """The RayJob of a RayCronJob with another command. The scheduler tries again, not KubeRay, which would delete the attempt's log."""
    labels = {**description["metadata"].get("labels", {}), "app.kubernetes.io/managed-by": "scheduler"}
    spec = {**description["spec"]["jobTemplate"], "entrypoint": entrypoint, "backoffLimit": 0}
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": "RayJob", "metadata": {"name": name, "labels": labels}, "spec": spec}


def is_finished(job: Manifest) -> bool:
    """Whether KubeRay is done with a RayJob."""
    return job.get("status", {}).get("jobDeploymentStatus") in _FINISHED


def submitters(name: str) -> str:
    """The label selector of the pods whose log is that of the run."""
    return f"job-name={name}"


def summary_of(log: str) -> Manifest | None:
    """The JSON object that the run ended with. Ray's own lines follow it."""
    for line in reversed(log.splitlines()):
        if line.startswith("{"):
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict) and {"outcome", "exit_code"} <= found.keys():
                return found
    return None


def ending(job: Manifest, log: str) -> Ending:
    """What came of a finished RayJob, by its run's own last line; where there is none, by what KubeRay says."""
    summary, status = summary_of(log), job.get("status", {})
    if summary is None:
        said = f"no last line of the run; KubeRay says {status.get('jobStatus') or status.get('jobDeploymentStatus')}"
        why = ": ".join(part for part in (status.get("reason"), status.get("message")) if part)
        verdict: Verdict = "done" if status.get("jobStatus") == "SUCCEEDED" else "again"
        return Ending(verdict, f"{said} ({why})" if why else said, {})
    code, outcome = summary["exit_code"], summary["outcome"]
    if code == 0:
        return Ending("skipped" if outcome == "skipped" else "done", f"{outcome}: {summary.get('images', 0)} images", summary)
    if code == _FENCED:
        return Ending("skipped", "a newer run on overlapping input took over", summary)
    sentence = f"exit code {code}, {_HOPELESS.get(code, outcome)}: {summary.get('error', 'see the log')}"
    return Ending("hopeless" if code in _HOPELESS else "again", sentence, summary)
