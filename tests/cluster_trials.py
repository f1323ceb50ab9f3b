"""What a run does on a cluster whose nodes come and go, and when it is stopped or taken over: too slow for every change, tried by hand.

    python -m tests.cluster_trials                     # all of them, on one cluster of raylets on loopback; 10 minutes
    python -m tests.cluster_trials --only grow,fenced

Each trial prints one JSON line; exit code 1 where one found otherwise than it should be.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from infra.cluster import LocalCluster, submit_command
from masklake import reading, storage
from masklake.demo.lake import upload_model
from masklake.demo.seaweedfs import free_ports
from tests.lakes import ROOT, scene

IMAGES = 600
MODEL = "s3://lake/models/demo"
HEAD = "127.0.0.5"  # of the cluster with an autoscaler: other addresses of loopback are taken by `LocalCluster`
PACE = ("--commit-seconds", "0.5", "--rows-per-file", "16")
Facts = dict[str, Any]


def start(cluster: LocalCluster, table: str, *arguments: str) -> subprocess.Popen[str]:
    """A driver on this machine that joins the cluster."""
    command = [sys.executable, "-m", "masklake", "segment", "--input", "s3://lake/images/", "--output", f"s3://lake/{table}"]
    return subprocess.Popen(
        [*command, "--model", MODEL, *PACE, *arguments],
        cwd=ROOT,
        env=cluster.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def client(cluster: LocalCluster, *command: str) -> str:
    """What a client of the cluster prints."""
    environment = cluster.environment()
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False).stdout


def join(cluster: LocalCluster, table: str, *arguments: str) -> subprocess.Popen[str]:
    """The same, on the cluster and not in its own process."""
    return start(cluster, table, "--ray-address", cluster.address, *arguments)


def rows(table: str) -> int:
    """Rows that are committed."""
    with suppress(Exception):  # no table yet
        return len(reading.open_table(f"s3://lake/{table}").rows(columns=["image_uri"]))
    return 0


def wait_for(what: Callable[[], object], seconds: float = 900) -> float:
    """Wait until something is so; the seconds that it took.

    Raises:
        TimeoutError: it did not become so.
    """
    began = time.monotonic()
    while not what():
        if time.monotonic() - began > seconds:
            raise TimeoutError
        time.sleep(0.2)
    return round(time.monotonic() - began, 1)


def processes(word: str) -> set[int]:
    """Those whose command holds a word, of any node."""
    every = {int(path.name) for path in Path("/proc").glob("[0-9]*")} - {os.getpid()}
    return {pid for pid in every if word in _command(pid)}


def _command(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def actors(cluster: LocalCluster) -> int:
    """Model actors that are alive, as the cluster has it."""
    told = cluster.get("/api/v0/actors?detail=0&limit=1000")["data"]["result"]["result"]
    return sum(each["state"] == "ALIVE" and "_SegmentActor" in str(each) for each in told)


def ended(process: subprocess.Popen[str], seconds: float = 600) -> tuple[int, Mapping[str, Any], str]:
    """The exit code, the last line and stderr."""
    out, err = process.communicate(timeout=seconds)
    return process.returncode, json.loads(out.splitlines()[-1]), err


def wrong_address(cluster: LocalCluster) -> Facts:
    """Addresses at which no cluster answers, or none that would have us: refused in one sentence; a stop meanwhile is taken at once."""
    head = next(node["raylet"] for node in cluster.get("/nodes?view=summary")["data"]["summary"] if node["raylet"]["isHeadNode"])
    (closed,) = free_ports(1)
    with socket.create_server((HEAD, 0)) as silent:
        places = {
            "closed": f"{HEAD}:{closed}",
            "silent": f"{HEAD}:{silent.getsockname()[1]}",
            "dashboard": cluster.dashboard.removeprefix("http://"),
            "raylet": f"{head['nodeManagerAddress']}:{head['nodeManagerPort']}",
        }
        found = {name: _refused(cluster, address) for name, address in places.items()}
        found["no-token"] = _refused(cluster, cluster.address, without=("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"))
        found |= {f"stopped-{name}": _refused(cluster, places[name], stop=3.0) for name in ("silent", "raylet")}
    right = all(
        facts["code"] == (143 if name.startswith("stopped") else 2)
        and facts["seconds"] < (10 if name.startswith("stopped") else 60)
        and facts["lines"] == 1
        for name, facts in found.items()
    )
    return {"ok": right, **found}


def _refused(cluster: LocalCluster, address: str, stop: float | None = None, without: Sequence[str] = ()) -> Facts:
    """How a run ends that is given this address, how soon, and in how many lines; stopped after some seconds, those after the stop."""
    command = ("--input", "s3://lake/images/", "--output", "s3://lake/never", "--model", MODEL, "--ray-address", address)
    own = {name: value for name, value in cluster.environment().items() if name not in without}
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "masklake", "segment", *command],
        cwd=ROOT,
        env=own,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if stop:
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=stop)
        began = time.monotonic()
        process.terminate()
    try:
        code, last, said = ended(process, 240)
    except subprocess.TimeoutExpired:
        process.kill()
        return {"code": None, "seconds": None, "lines": 0, "error": "it does not end"}
    seconds = round(time.monotonic() - began, 1)
    lines = [line for line in said.splitlines() if '"info"' not in line]
    return {"code": code, "seconds": seconds, "lines": len(lines), "error": str(last.get("error"))[:200]}


def no_room(cluster: LocalCluster) -> Facts:
    """Actors that no node can hold are refused before anything is listed."""
    code, last, err = ended(join(cluster, "no-room", "--cpus-per-actor", "2"))
    return {"ok": code == 2 and "comes nearest" in last["error"] and "images," not in err, "code": code, "error": last["error"]}


def stop_job(cluster: LocalCluster) -> Facts:
    """`ray job stop` of a submitted job: its last line is the JSON object, and what was committed is what it says."""
    arguments = ("--input", "s3://lake/images/", "--output", "s3://lake/stopped", "--model", MODEL, *PACE, "--on-overlap", "skip")
    submit = submit_command(cluster.dashboard, *arguments)
    place = submit.index("--")
    job = re.findall(r"raysubmit_\w+", client(cluster, *submit[:place], "--no-wait", *submit[place:]))[0]
    wait_for(lambda: rows("stopped"))
    began = time.monotonic()
    client(cluster, "ray", "job", "stop", "--address", cluster.dashboard, job)
    took = round(time.monotonic() - began, 1)
    log = client(cluster, "ray", "job", "logs", "--address", cluster.dashboard, job)
    last = json.loads(next(line for line in reversed(log.splitlines()) if line.startswith("{")))
    live = storage.list_names("s3://lake/stopped/_masklake/live/")
    right = last.get("outcome") == "stopped" and last["exit_code"] == 143 and last["images"] == rows("stopped") and not live
    return {"ok": right, "seconds": took, "last": {name: last.get(name) for name in ("outcome", "exit_code", "images")}, "markers": live}


def grow(cluster: LocalCluster) -> Facts:
    """A run that starts with one actor gets more as nodes join."""
    slow = ("--resolution", "480x480")  # so that there is work left when the node has joined and its actor has its model
    run = join(cluster, "grown", "--actors", "1:3", "--cpus-per-actor", "1", *slow)
    wait_for(lambda: rows("grown"))
    before, at = actors(cluster), rows("grown")
    cluster.add("worker-2")
    with suppress(TimeoutError):
        wait_for(lambda: run.poll() is not None or actors(cluster) > before, 180)
    after = actors(cluster)
    code, last, _ = ended(run)
    return {
        "ok": code == 0 and after > before,
        "before": before,
        "after": after,
        "rows_by_then": at,
        "code": code,
        "images": last["images"],
    }


def late_node(cluster: LocalCluster) -> Facts:
    """Two actors of a CPU each, on two nodes of one, wait for a third node that comes after a minute; what is missing is said meanwhile."""
    run = join(cluster, "late", "--actors", "2", "--cpus-per-actor", "1")
    time.sleep(60)
    waiting = run.poll() is None and not rows("late")
    cluster.add("worker-2")
    code, last, said = ended(run)
    lines = [line for line in said.splitlines() if "waiting for room" in line]
    right = waiting and code == 0 and last["images"] == IMAGES and len(lines) >= 2
    return {"ok": right, "waited": waiting, "code": code, "images": last.get("images"), "said": lines[-1:], "times": len(lines)}


def gpus_come(cluster: LocalCluster) -> Facts:
    """What a cluster of CPUs has done is nothing to do for the same command when there is a GPU, and when there is none again."""
    table = ("gpus", "--include", "scene-00*")
    done, _, _ = ended(join(cluster, *table))
    plans = [ended(join(cluster, *table, "--dry-run"))[1]["plan"]["todo_images"]]
    cluster.add("worker-2", "--num-gpus=1")
    with_gpus = ended(join(cluster, *table, "--dry-run"))
    plans.append(with_gpus[1]["plan"]["todo_images"])
    other = ended(join(cluster, *table, "--dry-run", "--precision", "bfloat16"))
    plans.append(other[1]["plan"]["todo_images"])
    loud = "ATTENTION" in other[2]
    return {"ok": done == 0 and plans == [0, 0, 10] and loud and "ATTENTION" not in with_gpus[2], "to_do": plans, "loud": loud}


def raylet_ends(cluster: LocalCluster) -> Facts:
    """SIGTERM to the raylet of a node, as of one on spot capacity that goes: its work in flight is done by the others."""
    run = join(cluster, "spot", "--actors", "1:2")
    wait_for(lambda: rows("spot"))
    name = cluster.workers()[-1]
    node = cluster.pids()[name]
    (raylet,) = [pid for pid in processes("raylet/raylet") if os.getpgid(pid) == node]
    os.kill(raylet, signal.SIGTERM)
    struck = run.poll() is None
    code, last, err = ended(run)
    with suppress(ProcessLookupError):
        cluster.lose(name)
    return {
        "ok": struck and code == 0 and rows("spot") == IMAGES,
        "struck": struck,
        "code": code,
        "images": last.get("images"),
        "said": err[-300:],
    }


def fenced(cluster: LocalCluster) -> Facts:
    """A run that is taken over gives its actors back within ten seconds."""
    run = join(cluster, "fenced", "--actors", "1")
    wait_for(lambda: rows("fenced"))
    newer = start(cluster, "fenced", "--local")
    wait_for(lambda: len([name for name in storage.list_names("s3://lake/fenced/_masklake/live/") if name]) > 1 or run.poll() is not None)
    took = wait_for(lambda: actors(cluster) == 0)
    code, last, _ = ended(run)
    newer_code, _, _ = ended(newer)
    right = code == 4 and newer_code == 0 and took <= 10 and rows("fenced") == IMAGES
    return {"ok": right, "seconds_to_no_actor": took, "code": code, "newer": newer_code, "outcome": last["outcome"]}


def _pretence(address: str) -> Facts:
    """The configuration of an autoscaler that starts raylets on this machine, up to two of a CPU each.

    Ray's is started with a file that `ray up` has filled in: one that lacks any of these names ends its monitor, and with it the head.
    """
    size = {"CPU": 1, "object_store_memory": 200_000_000}
    lists = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    return {
        "cluster_name": "pretence",
        "max_workers": 2,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 0.2,
        "provider": {
            "type": "fake_multinode",
            "gcs_address": address,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {"resources": size, "node_config": {}, "min_workers": 0, "max_workers": 2},
        },
        "head_node_type": "ray.head.default",  # the pretence knows its head by this name alone
        **{f"{name}_commands": [] for name in lists},
        **{name: {} for name in ("auth", "docker", "file_mounts")},
        **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
    }


def autoscaler(cluster: LocalCluster) -> Facts:
    """A cluster without any node for work gets some from its autoscaler (Ray's own pretence of one), and loses them again.

    It is the older of Ray's two, which does not say what it can bring: without `--device cpu`, the run would not know whether to wait for
    GPUs, and refuse. The newer one cannot pretend: Ray's wheel lacks a file of it. `tests/flow/test_nodes.py` asks its scheduler.
    """
    folder = Path(tempfile.mkdtemp(prefix="as-", dir="/tmp"))
    gcs, *ports = free_ports(7)
    address = f"{HEAD}:{gcs}"
    (folder / "autoscaling.yaml").write_text(json.dumps(_pretence(address)))
    purposes = ("node-manager", "object-manager", "dashboard-agent-grpc", "dashboard-agent-listen", "runtime-env-agent", "metrics-export")
    options = [f"--{purpose}-port={port}" for purpose, port in zip(purposes, ports, strict=True)]
    options += [f"--port={gcs}", f"--node-ip-address={HEAD}", f"--temp-dir={folder}/ray", f"--autoscaling-config={folder}/autoscaling.yaml"]
    options += ["--num-cpus=0", "--num-gpus=0", "--min-worker-port=0", "--max-worker-port=0", "--object-store-memory=200000000"]
    head = subprocess.Popen(
        ["ray", "start", "--head", "--block", "--include-dashboard=false", *options],
        cwd=folder,
        env={**cluster.environment(), "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"},
        stdout=(folder / "log").open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )

    def nodes() -> int:
        return sum("raylet/raylet" in _command(pid) for pid in processes(str(folder)))

    try:
        wait_for(lambda: head.poll() is not None or (nodes() == 1 and listens(HEAD, gcs)))
        if head.poll() is not None:
            return {"ok": False, "error": (folder / "log").read_text()[-500:]}
        pool = ("--actors", "1:2", "--cpus-per-actor", "0.5", "--device", "cpu")
        run = start(cluster, "scaled", "--ray-address", address, *pool)
        most = 0
        while run.poll() is None:
            most = max(most, nodes())
            time.sleep(0.5)
        code, last, said = ended(run)
        with suppress(TimeoutError):
            wait_for(lambda: nodes() == 1)
        right = code == 0 and most > 1 and nodes() == 1 and rows("scaled") == IMAGES
        waited = next((line for line in said.splitlines() if "waiting for room" in line), "")
        seen = {"nodes_at_most": most, "nodes_later": nodes(), "waited": waited}
        return {"ok": right, "code": code, **seen, "images": last.get("images"), "error": last.get("error")}
    finally:
        for pid in processes(str(folder)) | {head.pid}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        head.wait()
        shutil.rmtree(folder, ignore_errors=True)


def listens(host: str, port: int) -> bool:
    """Whether somebody does."""
    with suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


TRIALS: dict[str, Callable[[LocalCluster], Facts]] = {
    "wrong-address": wrong_address,
    "no-room": no_room,
    "stop-job": stop_job,
    "fenced": fenced,
    "late-node": late_node,
    "gpus-come": gpus_come,
    "grow": grow,
    "raylet-ends": raylet_ends,
    "autoscaler": autoscaler,
}


def main(argv: list[str] | None = None) -> int:
    """Run the trials; exit code 1 where one found otherwise."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster_trials", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", default=",".join(TRIALS), help="which, separated by commas (default: %(default)s)")
    wanted = parser.parse_args(argv).only.split(",")
    right = True
    with LocalCluster() as cluster:
        os.environ |= cluster.s3.env()
        pictures = [scene(index) for index in range(8)]
        for index in range(IMAGES):
            storage.write_bytes(f"s3://lake/images/scene-{index:03d}.jpg", pictures[index % 8])
        upload_model(MODEL)
        for name in wanted:
            began = time.monotonic()
            if "worker-2" in cluster.workers():  # of the trial before
                cluster.lose("worker-2")
            try:
                facts = TRIALS[name](cluster)
            except Exception as error:
                facts = {"ok": False, "error": f"{type(error).__name__}: {error}"}
            print(json.dumps({"trial": name, **facts, "trial_seconds": round(time.monotonic() - began, 1)}), flush=True)
            right &= facts["ok"]
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
