"""One lake on a real S3 server, the jobs that are run on it as real processes, and what its log says, read without the product's code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from masklake.demo.seaweedfs import SeaweedFS
from tests.faults.processes import Process, below, kill
from tests.lakes import MODEL, ROOT, scene

SCENES = 16
"""Different images; the others are copies of them, so that every answer is known from another image."""
TASKS = ("panoptic", "semantic")
DAYS = ("dt=2026-11-21", "dt=2026-11-22")
_MOST_SECONDS = 400.0  # of a job: a trial is bounded, whatever hangs


@dataclass(frozen=True)
class Commit:
    """One entry of the table's log."""

    version: int
    event: str
    run_id: str
    scope: str
    adds: tuple[tuple[str, int], ...]
    """Path and size of each file."""
    removes: tuple[str, ...]


@dataclass
class Lake:
    """A bucket with images below `images/` and a table at `masks`; `environment` leads jobs to the server, or to a proxy before it."""

    store: SeaweedFS
    bucket: str
    images: int
    environment: dict[str, str]
    folder: Path
    jobs: list[Job] = field(default_factory=list)

    @property
    def output(self) -> str:
        return f"s3://{self.bucket}/masks"

    def fill(self) -> None:
        """Upload the images, half of them for each day."""
        self.store.create_bucket(self.bucket)
        for index in range(self.images):
            key = f"images/{DAYS[index * len(DAYS) // self.images]}/{index:04d}.jpg"
            self.store.client.put_object(Bucket=self.bucket, Key=key, Body=_scene(index % SCENES))

    def objects(self, prefix: str) -> dict[str, dict[str, Any]]:
        """The server's own listing: key -> Size, ETag."""
        pages = self.store.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return {found["Key"]: found for page in pages for found in page.get("Contents", ())}

    def read(self, key: str) -> bytes:
        content: bytes = self.store.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return content

    def log(self) -> list[Commit]:
        """The table's log, oldest first; empty where there is no table yet."""
        keys = sorted(key for key in self.objects("masks/_delta_log/") if key.endswith(".json"))
        return [_commit(int(Path(key).stem), self.read(key).decode()) for key in keys]

    def segment(self, *arguments: str, days: str = "", environment: Mapping[str, str] | None = None) -> Job:
        """Start the real job."""
        source = f"s3://{self.bucket}/images/{days}"
        fixed = ["--input", source, "--output", self.output, "--model", str(MODEL), "--tasks", ",".join(TASKS)]
        pace = ["--commit-seconds", "0.1", "--rows-per-file", "32", "--gallery-images", "2", "--no-local"]
        return self._start("masklake", ["segment", *fixed, *pace, *arguments], environment)

    def compact(self, *arguments: str) -> Job:
        """Start the real compaction, vacuum included."""
        return self._start(
            "masklake", ["compact", "--table", self.output, "--vacuum-hours", "0", "--lease-seconds", "20", *arguments], None
        )

    def _start(self, module: str, arguments: Sequence[str], environment: Mapping[str, str] | None) -> Job:
        job = Job(module, arguments, {**_without_own(), **self.environment, **(environment or {})}, self.folder / f"job-{len(self.jobs)}")
        self.jobs.append(job)
        return job

    def end_all(self) -> None:
        """Leave no process of any job behind."""
        for job in self.jobs:
            job.kill_all()


class Job:
    """One process of ours and all that it started."""

    def __init__(self, module: str, arguments: Sequence[str], environment: Mapping[str, str], files: Path) -> None:
        self.module, self.started = module, time.monotonic()
        self._out, self._err = files.with_suffix(".out"), files.with_suffix(".err")
        with self._out.open("wb") as out, self._err.open("wb") as err:
            command = [sys.executable, "-m", module, *arguments]
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        self._seen: list[Process] = []

    def below(self) -> list[Process]:
        """Everything that runs below the driver; remembered, since orphans have other parents."""
        found = below([self.process.pid])
        self._seen = [*{*self._seen, *found}]
        return found

    def workers(self) -> list[Process]:
        """Ray's workers; their command says what each one does."""
        return [process for process in self.below() if process.command.startswith("ray::")]

    def running(self) -> bool:
        return self.process.poll() is None

    def wait(self, seconds: float = _MOST_SECONDS) -> int:
        """The exit code; -9 where it had to be killed because it did not end."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill_all()
        return self.process.returncode

    def kill_all(self) -> None:
        """Kill the driver, what is below it, and what was."""
        if self.running():
            self.below()
            self.process.kill()
        self.process.wait()
        kill(self._seen)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The last line on stdout; empty where that is no JSON object. Ask when the job is over."""
        with suppress(ValueError, IndexError):
            found = json.loads(self._out.read_text().strip().splitlines()[-1])
            return found if isinstance(found, dict) and "exit_code" in found else {}
        return {}

    @property
    def run_id(self) -> str:
        """What the run said that it is called; '' where it did not come so far."""
        lines = [line for line in self.errors.splitlines() if line.startswith("masklake: run ")]
        return lines[0].split()[-1] if lines else ""

    @property
    def errors(self) -> str:
        return self._err.read_text(errors="replace")


@cache
def _scene(index: int) -> bytes:
    return scene(index)


def _commit(version: int, text: str) -> Commit:
    actions = [json.loads(line) for line in text.splitlines() if line.strip()]
    said: dict[str, Any] = next((action["commitInfo"].get("masklake") or {} for action in actions if "commitInfo" in action), {})
    return Commit(
        version,
        said.get("event", ""),
        said.get("run_id", ""),
        said.get("scope", ""),
        tuple((action["add"]["path"], action["add"]["size"]) for action in actions if "add" in action),
        tuple(action["remove"]["path"] for action in actions if "remove" in action),
    )


def _without_own() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_", "MASKLAKE_"))}


def data_commits(log: Sequence[Commit], run_id: str = "") -> Iterator[Commit]:
    """The commits with files of a run, or of any."""
    return (commit for commit in log if commit.event == "data" and run_id in ("", commit.run_id))
