"""One fault on one lake: what a kind of fault needs in order to strike, and to say whether it did."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from infra.cluster import LocalCluster
from tests.faults.job import Job
from tests.faults.lake import WAYS, Lake
from tests.faults.log import data_commits
from tests.faults.proxy import Request, Strike, broken

_BUSY = ("could not start on this machine", "nothing came within")


class NotTriedError(Exception):
    """The machine was too busy for a job to begin: nothing can be said of it."""


@dataclass
class Trial:
    """One fault on one lake. `codes` are exit codes in the order in which jobs ended; `problems` what went otherwise than promised."""

    lake: Lake
    random: random.Random
    codes: list[int] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    cluster: LocalCluster | None = None
    struck: bool = False
    """Whether the fault came at a time at which it could do harm: what did not is not a trial."""
    ray: bool = True
    """Whether runs that need no Ray may nevertheless do their work on it."""
    recovery: Callable[[], Job] | None = None
    """What is to end with 0 after the fault: the same command again. None where the trial has seen a run end so."""
    lost: list[str] = field(default_factory=list)
    """What should be there that no table holds, such as a trained model."""

    def other_way(self) -> None:
        """Let further runs do their work by whichever way."""
        self.lake.way = chosen_way(self.random, self.ray)
        self.facts["second way"] = self.lake.way

    def ends(self, job: Job, *promised: int) -> int:
        """Wait for a job and compare its exit code with those promised; a job that ends by itself says so in JSON, without a stack.

        Raises:
            NotTriedError: Ray could not start within its three minutes, or the server did not answer the first question within seconds.
        """
        code = job.wait()
        if any(words in str(job.summary.get("error")) for words in _BUSY):
            raise NotTriedError(str(job.summary["error"]))
        self.codes.append(code)
        tail = job.errors.strip()[-600:]
        if code not in promised:
            self.problems.append(f"{job.command} {job.run_id} ended with {code} instead of {promised}: {tail}")
        if code >= 0 and job.summary.get("exit_code") != code:
            self.problems.append(f"{job.command} {job.run_id} ended with {code} and the last line {job.summary}: {tail}")
        if "Traceback" in job.errors:
            self.problems.append(f"{job.command} {job.run_id} shows a stack trace: {tail}")
        return code

    def fails_clearly(self, job: Job) -> None:
        """Wait for a job that cannot go on: code 1, and one sentence that says why."""
        if self.ends(job, 0, 1) == 1:
            self.struck = True
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
            self._sleep(job, 3 * later)
            return
        while job.running() and sum(1 for _ in data_commits(self.lake.log(), job.run_id)) < commits:
            time.sleep(0.05)
        self._sleep(job, 0.3 * later)

    def wait_until_begun(self, job: Job) -> None:
        """Wait for the commit with which a run begins."""
        while job.running() and not any(entry.event == "begin" and entry.run_id == job.run_id for entry in self.lake.log()):
            time.sleep(0.1)

    def killed_at_request(
        self, start: Callable[[Mapping[str, str]], Job], matches: Callable[[Request], bool], most: int, again: Callable[[], Job]
    ) -> None:
        """kill -9 of a job at one of its first `most` requests of some sort: before the store sees it, or before the job has its answer."""
        number, after = self.random.randint(1, most), self.random.random() < 0.5
        strike = Strike(number, matches, after)
        with broken(self.lake.store.endpoint, strike) as endpoint:
            job = start(through(endpoint))
            strike.aim(job.kill)
            code = job.wait()
        self.struck = strike.struck and code == -9
        self.facts |= {"moment": f"{'after' if after else 'before'} request {number}: {strike.at}"}
        if self.struck:
            self.codes.append(code)
        else:
            self.ends(job, 0)
        self.recovery = again

    def _sleep(self, job: Job, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while job.running() and time.monotonic() < deadline:
            time.sleep(0.02)


def chosen_way(chance: random.Random, ray: bool) -> str:
    """A way in which runs may do their work; seldom Ray, whose start takes most of a trial's time, or never."""
    way = chance.choices(sorted(WAYS), (4, 1))[0]  # drawn in any case, so that the rest of a trial is the same
    return way if ray else "one process"


def through(endpoint: str) -> dict[str, str]:
    """The environment of a job that reaches its store by a proxy."""
    return {"AWS_ENDPOINT_URL": endpoint, "AWS_ENDPOINT_URL_S3": endpoint}
