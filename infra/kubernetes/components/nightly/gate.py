"""The gate of every night: plans, and creates the RayJob only where there is work. No GPU for an empty night; a refusal costs a small pod.

    python gate.py masklake-nightly

It runs in a CronJob's pod and does what KubeRay's own controller does for a RayCronJob, once it has seen that there is something to
do: it reads the suspended RayCronJob of the name given, runs its `entrypoint` with `--dry-run`, and creates a RayJob of its
`jobTemplate`, with the name, the label and the owner that the controller would give it. What it knows of masklake is the last line on
stdout.

Standard library only. The environment is a pod's: the service account's token, and JOB_NAME, the name of the pod's own Job, which
becomes the RayJob's: a gate that is tried again makes no second one. The last line on stdout is one JSON object; the exit code is the
plan's, 2 where trying again is in vain, else 1.
"""

from __future__ import annotations

import json
import os
import shlex
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
RAY = "apis/ray.io/v1"
SCHEDULE = "ray.io/cronjob-name"  # KubeRay's label of what a RayCronJob made
FINISHED = {"Complete", "Failed", "ValidationFailed"}
_LONGEST_NAME = 47  # KubeRay's MaxRayJobNameLength
_TRIES = 5  # of a request: the API server may be restarting
_OUR_FAULT = 500

Manifest = dict[str, Any]


class Unusable(Exception):
    """The gate cannot do its work; the message says why. Code 2: nor will it be able to until somebody mends something."""

    def __init__(self, message: str, code: int = 2) -> None:
        super().__init__(message)
        self.code = code


class Kubernetes:
    """The few requests that the gate makes, as the pod's service account."""

    def __init__(self, account: Path = ACCOUNT) -> None:
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        if not host or not (account / "token").exists():
            raise Unusable(f"there is no service account's token in {account}: this program runs in a pod of Kubernetes")
        self.namespace = (account / "namespace").read_text().strip()
        self._url = f"https://{f'[{host}]' if ':' in host else host}:{port}/"
        self._token = account / "token"
        trust = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(account / "ca.crt")))
        self._opener = urllib.request.build_opener(trust, urllib.request.ProxyHandler({}))

    def get(self, kind: str, query: str = "") -> Manifest:
        return self._ask("GET", f"{RAY}/namespaces/{self.namespace}/{kind}{query}")

    def create(self, kind: str, manifest: Manifest) -> bool:
        """Create an object; False where one of its name is there already."""
        try:
            self._ask("POST", f"{RAY}/namespaces/{self.namespace}/{kind}", manifest)
        except urllib.error.HTTPError as error:
            if error.code == 409:
                return False
            raise
        return True

    def _ask(self, method: str, path: str, body: Manifest | None = None) -> Manifest:
        # The token is read anew each time: the kubelet replaces it, and a plan may take longer than one lives.
        headers = {"Authorization": f"Bearer {self._token.read_text().strip()}", "Content-Type": "application/json"}
        data = json.dumps(body).encode() if body else None
        for left in reversed(range(_TRIES)):
            request = urllib.request.Request(self._url + path, data, headers, method=method)  # noqa: S310 - https, above
            try:
                with self._opener.open(request, timeout=30) as answer:
                    found: Manifest = json.load(answer)
                    return found
            except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
                if isinstance(error, urllib.error.HTTPError) and error.code < _OUR_FAULT:
                    raise
                if left == 0:
                    raise Unusable(f"the Kubernetes API at {self._url} does not answer: {error}", 1) from None
                time.sleep(2 ** (_TRIES - left))
        raise AssertionError


def plan(entrypoint: str) -> tuple[int, Manifest]:
    """Run a RayJob's command with `--dry-run`: its exit code, and the JSON object that it ends with."""
    done = subprocess.run([*shlex.split(entrypoint), "--dry-run"], stdout=subprocess.PIPE, text=True, check=False)
    sys.stdout.write(done.stdout)
    try:
        last = json.loads(done.stdout.rstrip().rpartition("\n")[2])
    except ValueError:
        last = None
    if not isinstance(last, dict) or (done.returncode == 0 and type(last.get("planned")) is not int):
        raise Unusable(f"the last line of {entrypoint!r} is not a plan (exit code {done.returncode})", 1)
    return done.returncode, last


def ray_job(schedule: Manifest, name: str) -> Manifest:
    """The RayJob that KubeRay's controller would make of a RayCronJob; Kueue's queue and other labels of it go along."""
    meta = schedule["metadata"]
    owner = {"apiVersion": schedule["apiVersion"], "kind": schedule["kind"], "name": meta["name"], "uid": meta["uid"], "controller": True}
    return {
        "apiVersion": schedule["apiVersion"],
        "kind": "RayJob",
        "metadata": {"name": name, "labels": {**meta.get("labels", {}), SCHEDULE: meta["name"]}, "ownerReferences": [owner]},
        "spec": schedule["spec"]["jobTemplate"],
    }


def night(kubernetes: Kubernetes, name: str, job_name: str) -> tuple[int, Manifest]:
    """One night: the exit code, and what is said of it."""
    if len(job_name) > _LONGEST_NAME:
        raise Unusable(f"{job_name!r} is too long for a RayJob's name, of which KubeRay takes {_LONGEST_NAME} characters")
    schedule = kubernetes.get(f"raycronjobs/{name}")
    jobs = kubernetes.get("rayjobs", f"?labelSelector={SCHEDULE}%3D{name}")["items"]
    running = [job["metadata"]["name"] for job in jobs if job.get("status", {}).get("jobDeploymentStatus", "") not in FINISHED]
    if running:
        return 0, {"outcome": "skipped", "running": running}
    code, planned = plan(schedule["spec"]["jobTemplate"]["entrypoint"])
    if code:
        return code, planned
    if not planned["planned"]:
        return 0, {"outcome": "nothing to do", "planned": 0}
    created = kubernetes.create("rayjobs", ray_job(schedule, job_name))
    return 0, {"outcome": "created" if created else "created before", "planned": planned["planned"], "rayjob": job_name}


def main(arguments: list[str], account: Path = ACCOUNT) -> int:
    """Parse, do, and say it in the last line."""
    try:
        if len(arguments) != 1 or not os.environ.get("JOB_NAME"):
            raise Unusable("usage: JOB_NAME=the-job's-name python gate.py NAME-OF-THE-RAYCRONJOB")
        code, said = night(Kubernetes(account), arguments[0], os.environ["JOB_NAME"])
    except Unusable as error:
        code, said = error.code, {"outcome": "refused" if error.code == 2 else "failed", "error": str(error)}
    except urllib.error.HTTPError as error:
        told = error.read(500).decode(errors="replace")
        code, said = 2, {"outcome": "refused", "error": f"the Kubernetes API answers {error.code} to {error.url}: {told}"}
    print(json.dumps({**said, "exit_code": code}), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
