"""A store that answers badly, or has no room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.faults.proxy import Faults, Request, broken
from tests.faults.trial import Trial, through

_ONCE = ("500", "503", "reset", "lost")


def break_requests(trial: Trial) -> None:
    """A share of all requests gets 500, 503, a slow answer, a reset, half a body, or no answer to what was done: the job ends with 0."""
    faults = Faults(trial.random.randrange(1 << 32))
    with broken(trial.lake.store.endpoint, faults) as endpoint:
        trial.ends(trial.lake.segment(environment=through(endpoint)), 0)
    trial.facts["requests"] = {fault or "unbroken": count for fault, count in sorted(faults.counted.items())}
    trial.struck = any(count for fault, count in faults.counted.items() if fault not in ("", "slow"))


def first_commit(trial: Trial) -> None:
    """The commit that makes the table: the job is killed at it, or the first commits fail or get no answer, and the job ends with 0."""
    if trial.random.random() < 0.5:
        trial.killed_at_request(
            lambda environment: trial.lake.segment(environment=environment), _is_commit, trial.random.randint(1, 2), trial.lake.segment
        )
        return
    faults = _FirstCommits(trial.random.choice(_ONCE), trial.random.randint(1, 3))
    with broken(trial.lake.store.endpoint, faults) as endpoint:
        trial.ends(trial.lake.segment(environment=through(endpoint)), 0)
    trial.facts["moment"] = f"{faults.fault}, {faults.number} times"
    trial.struck = faults.counted[faults.fault] > 0


class _FirstCommits(Faults):
    def __init__(self, fault: str, number: int) -> None:
        super().__init__(0)
        self.fault, self.number = fault, number

    def choose(self, request: Request) -> str:
        """The fault, for each of the first commits."""
        with self._lock:
            fault = self.fault if _is_commit(request) and self.counted[self.fault] < self.number else ""
            self.counted[fault] += 1
            return fault


def _is_commit(request: Request) -> bool:
    return request.conditional and "/_delta_log/" in request.path


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
            trial.struck = job.running()
            disk.fill()
        trial.facts["moment"] = trial.facts.get("moment", "before")
        trial.struck = trial.struck or trial.facts["moment"] == "before"
        trial.fails_clearly(job)
    trial.recovery = trial.lake.segment


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
    trial.recovery = trial.lake.segment


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
