"""The same command as a submitted job, on a Ray cluster of two nodes with a real S3 server beside it, as `make cluster` starts them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infra.cluster import submit_command
from masklake import storage
from masklake.demo.lake import scene_uri
from tests.lakes import ROOT, rows_by_image, scene
from tests.unit.infra.kubernetes_api import KubernetesAPI, kubernetes_api
from tests.unit.infra.manifests import of_kind, render

SCENES = 40
MODEL = "s3://lake/models/demo"

HOLDER = """
import json, time
from infra.cluster import LocalCluster
with LocalCluster(workers=0) as cluster:
    print(json.dumps(cluster.pids()), flush=True)
    time.sleep(600)
"""

pytestmark = pytest.mark.timeout(900)  # the first test's time is the cluster's start, too


@dataclass(frozen=True)
class Cluster:
    """What `up` told of the cluster that it started: on its terminal, and in the folder `state`."""

    state: Path
    said: str
    facts: dict[str, Any]

    @property
    def dashboard(self) -> str:
        return str(self.facts["dashboard"])

    @property
    def folder(self) -> Path:
        return Path(self.facts["folder"])

    @property
    def client(self) -> dict[str, str]:
        """What `env` exports."""
        return dict(self.facts["client"])

    def environment(self) -> dict[str, str]:
        """Of a client, whatever is set here."""
        mine = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_"))}
        return {**mine, **self.client, "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))}

    def get(self, path: str) -> Any:
        """The JSON that the dashboard answers to who has the token."""
        token = Path(self.client["RAY_AUTH_TOKEN_PATH"]).read_text()
        request = urllib.request.Request(self.dashboard + path, headers={"Authorization": f"Bearer {token}"})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster whose bucket `lake` holds scenes in `images/`, and the model; this process's environment points to its server."""
    state = tmp_path_factory.mktemp("cluster")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MASKLAKE_LOG_FORMAT")  # nodes have it from here: a job's lines are JSON, as for its users
        try:
            up = command("up", "--images", str(SCENES), "--state", str(state))
            assert up.returncode == 0, up.stderr
            running = Cluster(state, up.stdout, json.loads((state / "cluster.json").read_text()))
            for name, value in running.client.items():
                if name.startswith("AWS_"):
                    patch.setenv(name, value)
            yield running
        finally:
            command("down", "--state", str(state))


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "infra.cluster", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )


def submit(cluster: Cluster, *arguments: str) -> tuple[int, str]:
    """Submit the job as documented and wait for it; returns the exit code of `ray job submit` and the job's id."""
    done = ray(cluster, *submit_command(cluster.dashboard, *arguments)[1:])
    found = re.search(r"raysubmit_\w+", done.stdout)
    assert found is not None, done.stdout + done.stderr
    return done.returncode, found[0]


def logs(cluster: Cluster, job: str) -> str:
    """What `ray job logs` shows."""
    return ray(cluster, "job", "logs", "--address", cluster.dashboard, job).stdout


def ray(cluster: Cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ray", *arguments], cwd=ROOT, env=cluster.environment(), capture_output=True, text=True, timeout=600, check=False
    )


def last_json(log: str) -> dict[str, Any]:
    lines = [line for line in log.splitlines() if line.startswith("{")]
    assert lines, log
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def nodes_of(cluster: Cluster, job: str, stage: str) -> set[str]:
    """The nodes on which tasks of the stage ran: Ray tells of a task some time after it."""
    driver, deadline = cluster.get(f"/api/jobs/{job}")["job_id"], time.monotonic() + 60
    found: set[str] = set()
    while not found and time.monotonic() < deadline:
        tasks = cluster.get("/api/v0/tasks?detail=1&limit=10000")["data"]["result"]["result"]
        found = {task["node_id"] for task in tasks if task["job_id"] == driver and stage in task["name"] and task["node_id"]}
        time.sleep(0.2)
    return found


def test_up_prints_the_line_to_try(cluster: Cluster) -> None:
    assert (
        f"ray job submit --address {cluster.dashboard} --working-dir pipeline -- python -m masklake segment --input s3://lake/images/"
        in cluster.said
    )
    assert [name for name in ("cluster.json", "env") if (cluster.state / name).stat().st_mode & 0o077] == []  # they hold keys
    assert len(cluster.facts["pids"]) == 3
    assert all(alive(pid) for pid in cluster.facts["pids"].values())
    listing = "ray job list --address " + cluster.dashboard
    shell = ["bash", "-euc", f"export AWS_PROFILE=mine; source {cluster.state / 'env'}; {listing}; echo profile=${{AWS_PROFILE-none}}"]
    sourced = subprocess.run(shell, capture_output=True, text=True, timeout=120, check=False)
    assert sourced.returncode == 0, sourced.stderr
    assert "profile=none" in sourced.stdout


def test_a_submitted_job_fills_the_table(cluster: Cluster) -> None:
    arguments = ("--input", "s3://lake/images/", "--output", "s3://lake/masks", "--model", MODEL, "--tasks", "panoptic")
    code, job = submit(cluster, *arguments, "--actors", "1", "--cpus-per-actor", "1")
    log = logs(cluster, job)
    assert code == 0, log
    summary = last_json(log)
    assert (summary["outcome"], summary["images"], summary["exit_code"]) == ("done", SCENES, 0)

    counted = rows_by_image("s3://lake/masks")
    assert set(counted) == {scene_uri("s3://lake/images/", index) for index in range(SCENES)}
    assert set(counted.values()) == {1}

    # On nodes so small, a load task asks for a tenth of a CPU, and finds room beside the actor as well: where, is Ray's affair.
    assert len(nodes_of(cluster, job, "_SegmentActor")) == 1
    assert nodes_of(cluster, job, "load")
    assert cluster.get(f"/api/jobs/{job}")["status"] == "SUCCEEDED"


def night(folder: Path, api: KubernetesAPI, hour: int) -> dict[str, Any]:
    """One night's gate as its pod would run it: the manifests' own command, program and settings, on the cluster's store."""
    manifests = render("overlays/on-premise-nightly")
    schedule = json.loads(json.dumps(of_kind(manifests, "RayCronJob")))
    spec = schedule["spec"]["jobTemplate"]
    spec["entrypoint"] = spec["entrypoint"].replace("/etc/masklake", str(folder)).replace("python ", f"{sys.executable} ")
    api.objects["raycronjobs/masklake-nightly"] = {**schedule, "metadata": {**schedule["metadata"], "uid": "1"}}
    (folder / "settings.yaml").write_text(
        f"input: s3://lake/images/\noutput: s3://lake/masks\nmodel: {MODEL}\ntasks: [panoptic]\nactors: 1\n"
    )
    gate = f"sys.exit(gate.main(sys.argv[1:], Path({str(api.account)!r})))"
    script = f"import sys; from pathlib import Path; from infra.kubernetes.components.nightly import gate; {gate}"
    pod = of_kind(manifests, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["command"]
    environment = {**os.environ, "JOB_NAME": f"masklake-nightly-{hour}"}
    done = subprocess.run(
        [sys.executable, "-c", script, *pod[2:]], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return last_json(done.stdout)


def test_a_night_makes_no_job_where_nothing_is_to_do_and_one_for_a_new_image(cluster: Cluster, tmp_path: Path) -> None:
    rules = of_kind(render("overlays/on-premise-nightly"), "Role")["rules"]
    with kubernetes_api(tmp_path, rules) as api:
        assert night(tmp_path, api, 1) == {"outcome": "nothing to do", "planned": 0, "exit_code": 0}
        assert api.of("rayjobs") == []
        storage.write_bytes("s3://lake/images/scene-new.jpg", scene(SCENES))
        assert night(tmp_path, api, 2) == {"outcome": "created", "planned": 1, "rayjob": "masklake-nightly-2", "exit_code": 0}
        (job,) = api.of("rayjobs")
    # What KubeRay does with it: its command, submitted to the cluster.
    code, submitted = submit(cluster, *shlex.split(job["spec"]["entrypoint"])[4:])
    assert code == 0, logs(cluster, submitted)
    assert rows_by_image("s3://lake/masks")["s3://lake/images/scene-new.jpg"] == 1


def test_a_refusal_is_readable_in_the_jobs_log(cluster: Cluster) -> None:
    arguments = ("--input", "s3://no-such-bucket/images/", "--output", "s3://lake/never", "--model", MODEL, "--tasks", "panoptic")
    code, job = submit(cluster, *arguments)
    assert code == 1  # `ray job submit` knows only success and failure
    assert cluster.get(f"/api/jobs/{job}")["status"] == "FAILED"

    log = logs(cluster, job)
    summary = last_json(log)
    assert (summary["outcome"], summary["exit_code"]) == ("refused", 2)
    assert "masklake: " not in log
    said = [json.loads(line) for line in log.splitlines() if line.startswith("{")]  # what is not ours is of Ray's job agent
    (sentence,) = [line for line in said if line["event"] == "refused"]
    assert "no-such-bucket" in sentence["message"]
    assert "Traceback" not in log
    assert not storage.exists("s3://lake/never/_delta_log/00000000000000000000.json")


def test_no_log_of_ray_holds_the_secret_key(cluster: Cluster) -> None:
    found = [log for log in cluster.folder.glob("*/session_*/logs/**/*") if log.is_file()]
    assert {log.relative_to(cluster.folder).parts[0] for log in found} == {"head", "worker"}
    assert any("job-driver" in log.name for log in found)
    for log in found:
        assert cluster.client["AWS_SECRET_ACCESS_KEY"] not in log.read_text(errors="replace"), log.name


def test_without_the_token_nothing_is_told_and_nothing_taken(cluster: Cluster) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with pytest.raises(urllib.error.HTTPError) as refused:
        opener.open(cluster.dashboard + "/api/jobs/", timeout=100)
    refused.value.close()
    assert refused.value.code == 401


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def group_alive(leader: int) -> bool:
    """Whether any process of the group is there: a node's raylet and agents are in the group of its `ray start`."""
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True


def gone(alive: Callable[[int], bool], pids: Iterable[int]) -> bool:
    """Wait until none is alive; what was killed stays as a zombie until the system has looked after it."""
    deadline = time.monotonic() + 50
    while time.monotonic() < deadline:
        if not any(alive(pid) for pid in pids):
            return True
        time.sleep(0.2)
    return False


def test_down_ends_what_up_started(cluster: Cluster) -> None:
    facts, state = cluster.facts, ("--state", str(cluster.state))
    down = command("down", *state)
    assert down.returncode == 0, down.stderr
    assert gone(alive, [facts["pid"], *facts["pids"].values()])
    assert gone(group_alive, [facts["pids"]["head"], facts["pids"]["worker"]])
    assert not cluster.folder.exists()
    assert command("status", *state).returncode == 1


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends a killed parent's children on Linux only")
def test_kill_9_leaves_no_process_behind() -> None:
    with tempfile.TemporaryDirectory(prefix="k-", ignore_cleanup_errors=True) as files:  # short: Ray's sockets are below it
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER], cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": files}
        )
        assert holder.stdout is not None
        try:
            pids = list(json.loads(holder.stdout.readline()).values())
        finally:
            holder.kill()
            holder.wait()
            holder.stdout.close()
        assert gone(alive, pids)  # Ray's agents, which only watch their raylet, follow by themselves a minute later
