"""The kinds of fault. Each is a function that starts the real job, breaks something at a random moment, and says how the job must end.

What a kind expects of exit codes and words is checked there; what must hold of the table afterwards is the same for all: see `verify`.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from infra.cluster import LocalCluster
from tests.faults.lake import DAYS, Job, Lake, data_commits
from tests.faults.processes import caught, kill
from tests.faults.proxy import Faults, broken


@dataclass
class Trial:
    """One fault on one lake. `codes` are exit codes in the order in which jobs ended; `problems` what went otherwise than promised."""

    lake: Lake
    random: random.Random
    codes: list[int] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    cluster: LocalCluster | None = None

    def anywhere(self) -> str:
        """On Ray, or in the job's own process, by chance."""
        self.facts["engine"] = self.random.choice(("--local", "--no-local"))
        return str(self.facts["engine"])

    def ends(self, job: Job, *promised: int) -> int:
        """Wait for a job and compare its exit code with those promised; a job that ends by itself says so in JSON, without a stack."""
        code = job.wait()
        self.codes.append(code)
        tail = job.errors.strip()[-600:]
        if code not in promised:
            self.problems.append(f"{job.module} {job.run_id} ended with {code} instead of {promised}: {tail}")
        if code >= 0 and job.summary.get("exit_code") != code:
            self.problems.append(f"{job.module} {job.run_id} ended with {code} and the last line {job.summary}: {tail}")
        if "Traceback" in job.errors:
            self.problems.append(f"{job.module} {job.run_id} shows a stack trace: {tail}")
        return code

    def fails_clearly(self, job: Job) -> None:
        """Wait for a job that cannot go on: code 1, and one sentence that says why."""
        if self.ends(job, 0, 1) == 1:
            reason = str(job.summary.get("error", ""))
            self.facts["said"] = reason
            if not reason or "\n" in reason or f"masklake: {reason}" not in job.errors:
                self.problems.append(f"{job.run_id} does not say in one sentence why it ended: {job.errors.strip()[-600:]}")

    def moment(self, job: Job, *, begun: bool = False) -> None:
        """Wait for a random moment of a job's life; where it must have `begun`, of the part in which it could write."""
        point = self.random.choice(("begun", "commit") if begun else ("start", "begun", "commit"))
        commits, later = self.random.randint(1, 2), self.random.uniform(0, 1)
        self.facts["moment"] = f"{point} {commits}" if point == "commit" else point
        if point == "start":
            self._sleep(job, 12 * later)
            return
        self.wait_until_begun(job)
        if point == "begun":
            self._sleep(job, 10 * later)
            return
        while job.running() and sum(1 for _ in data_commits(self.lake.log(), job.run_id)) < commits:
            time.sleep(0.05)
        self._sleep(job, 0.5 * later)

    def wait_until_begun(self, job: Job) -> None:
        """Wait for the commit with which a run begins."""
        while job.running() and not any(entry.event == "begin" and entry.run_id == job.run_id for entry in self.lake.log()):
            time.sleep(0.1)

    def _sleep(self, job: Job, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while job.running() and time.monotonic() < deadline:
            time.sleep(0.02)


def kill_driver(trial: Trial) -> None:
    """kill -9 of the driver. Its Ray must go by itself, and what it was writing is rubbish."""
    job = trial.lake.segment(trial.anywhere())
    trial.moment(job)
    job.below()
    job.process.kill()
    trial.codes.append(job.wait())


def kill_actor(trial: Trial) -> None:
    """kill -9 of a model's process, while it starts or works: the job does not fail."""
    job = trial.lake.segment("--actors", str(trial.random.randint(1, 2)))
    _kill_worker(trial, job, "_SegmentActor")
    trial.ends(job, 0)


def kill_task(trial: Trial) -> None:
    """kill -9 of a process that loads or writes: the job does not fail."""
    job = trial.lake.segment()
    _kill_worker(trial, job, trial.random.choice(("MapBatches(load)", "MapBatches(write)")))
    trial.ends(job, 0)


def _kill_worker(trial: Trial, job: Job, name: str) -> None:
    trial.wait_until_begun(job)
    if name == "_SegmentActor" and trial.random.random() < 0.7:
        trial.moment(job, begun=True)
    found = caught(job.workers, name, lambda: not job.running())
    kill(found[:1])
    trial.facts["killed"] = name if found else "nothing: the job was over"


def lose_node(trial: Trial) -> None:
    """kill -9 of everything on one of a cluster's three nodes: the job does not fail."""
    assert trial.cluster
    job = trial.lake.segment("--ray-address", trial.cluster.address, "--actors", "2", environment=trial.cluster.env())
    trial.moment(job, begun=True)
    name = trial.random.choice(trial.cluster.workers())
    trial.cluster.lose(name)
    trial.facts["killed"] = name
    trial.ends(job, 0)
    trial.cluster.add(name)


def kill_cluster(trial: Trial) -> None:
    """kill -9 of the whole local Ray (its control store, raylet, workers) under a driver that lives: code 1, and a sentence."""
    job = trial.lake.segment()
    trial.moment(job, begun=True)
    kill(job.below())
    trial.fails_clearly(job)


def break_requests(trial: Trial) -> None:
    """A share of all requests gets 500, 503, a slow answer, a reset, half a body, or no answer to what was done: the job ends with 0."""
    faults = Faults(trial.random.randrange(1 << 32))
    with broken(trial.lake.store.endpoint, faults) as endpoint:
        job = trial.lake.segment(trial.anywhere(), environment={"AWS_ENDPOINT_URL": endpoint, "AWS_ENDPOINT_URL_S3": endpoint})
        trial.ends(job, 0)
    trial.facts["requests"] = {fault or "unbroken": count for fault, count in sorted(faults.counted.items())}


def second_run(trial: Trial) -> None:
    """The same command again while the first is at work: the first ends with 4, the second with 0."""
    first = trial.lake.segment(trial.anywhere())
    trial.moment(first, begun=True)
    second = trial.lake.segment(trial.anywhere())
    _hand_over(trial, first, second)


def pause_run(trial: Trial) -> None:
    """The first run stops (all of it, or its driver alone), a second one does the work, the first comes back: it ends with 4."""
    first = trial.lake.segment(trial.anywhere())
    trial.moment(first, begun=True)
    stopped = first.below() if trial.random.random() < 0.5 else []
    trial.facts["paused"] = "all of it" if stopped else "the driver"
    first.process.send_signal(signal.SIGSTOP)
    kill(stopped, signal.SIGSTOP)
    try:
        second = trial.lake.segment()
        trial.ends(second, 0)
    finally:
        kill(reversed(stopped), signal.SIGCONT)
        first.process.send_signal(signal.SIGCONT)
    trial.ends(first, 4)


def _hand_over(trial: Trial, first: Job, second: Job) -> None:
    trial.ends(second, 0)
    # One that had committed all before the second began has nothing left that could be refused.
    log = trial.lake.log()
    begun = next((commit.version for commit in log if commit.event == "begin" and commit.run_id == second.run_id), len(log))
    whole = len(list(data_commits(log[:begun], first.run_id))) and second.summary.get("outcome") == "nothing to do"
    trial.ends(first, 0 if whole else 4)


def side_by_side(trial: Trial) -> None:
    """Two runs on the folders of two days, into one table, at once: both end with 0."""
    runs = [trial.lake.segment("--actors", "1", days=f"{day}/") for day in DAYS]
    for run in runs:
        trial.ends(run, 0)


def compact_beside(trial: Trial) -> None:
    """Compactions that delete at once what they replaced, overlapping a run: all end with 0."""
    job = trial.lake.segment()
    trial.wait_until_begun(job)
    compactions = 0
    while job.running():
        trial.moment(job, begun=True)
        trial.ends(trial.lake.compact(), 0)
        compactions += 1
    trial.ends(job, 0)
    trial.ends(trial.lake.compact(), 0)
    trial.facts["compactions"] = compactions + 1


def fill_scratch(trial: Trial) -> None:
    """The driver's disk for temporary files fills up, its Ray's included: code 1, and a sentence."""
    with small_disk(trial.lake.folder / "scratch", 200) as disk:
        where = {"TMPDIR": str(disk.folder)} if trial.random.random() < 0.5 else {"TMPDIR": str(disk.folder), "RAY_TMPDIR": "/tmp"}
        trial.facts["ray there as well"] = "RAY_TMPDIR" not in where
        if trial.random.random() < 0.5:
            disk.fill()
        job = trial.lake.segment(environment=where)
        if not disk.full:
            trial.moment(job)
            disk.fill()
        trial.facts["moment"] = trial.facts.get("moment", "before")
        trial.fails_clearly(job)


def fill_store(trial: Trial) -> None:
    """The S3 server's disk fills up: code 1, and a sentence; a run after there is room again does the rest."""
    disk = Disk(trial.lake.folder / "store")
    job = trial.lake.segment()
    trial.moment(job)
    disk.fill()
    trial.fails_clearly(job)
    disk.free()
    trial.lake.store.stop()  # SeaweedFS marks volumes for reading only, and looks again when it starts
    trial.lake.store.start()
    trial.lake.environment = trial.lake.store.env()


@dataclass
class Disk:
    """A small file system of its own."""

    folder: Path
    full: bool = False

    def fill(self) -> None:
        """Leave not a byte of room."""
        with (self.folder / "ballast").open("ab", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                try:
                    while True:
                        file.write(b"\0" * size)
                except OSError:
                    continue
        self.full = True

    def free(self) -> None:
        """Make room again."""
        (self.folder / "ballast").unlink(missing_ok=True)
        self.full = False


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Disk]:
    """A file system in memory, mounted at a folder while it is needed; only root may do so."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "masklake-faults", str(folder)], check=True)
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def can_mount() -> bool:
    """Whether this user may mount a file system here."""
    if os.geteuid():
        return False
    probe = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "masklake-faults", "/mnt"], capture_output=True, check=False)
    return probe.returncode == 0


KINDS: dict[str, Callable[[Trial], None]] = {
    kind.__name__.replace("_", "-"): kind
    for kind in (
        *(kill_driver, kill_actor, kill_task, lose_node, kill_cluster, break_requests),
        *(second_run, pause_run, side_by_side, compact_beside, fill_scratch, fill_store),
    )
}
NEED_ROOT = ("fill-scratch", "fill-store")
