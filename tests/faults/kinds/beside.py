"""Runs and compactions beside each other on one table."""

from __future__ import annotations

import signal

from tests.faults.job import Job
from tests.faults.lake import DAYS
from tests.faults.log import data_commits
from tests.faults.processes import kill
from tests.faults.proxy import Faults, Request, broken
from tests.faults.trial import Trial, through
from tests.faults.verify import TASKS


def second_run(trial: Trial) -> None:
    """The same command again while the first is at work: the first ends with 4, the second with 0."""
    with broken(trial.lake.store.endpoint, _SlowWrites(0)) as endpoint:  # a run in one process is over before a second one has started
        first = trial.lake.segment(environment=through(endpoint))
        trial.moment(first, begun=True)
        trial.other_way()
        second = trial.lake.segment()
        trial.ends(second, 0)
        trial.struck = _was_fenced(trial, first, second)


class _SlowWrites(Faults):
    def choose(self, request: Request) -> str:
        """Each write waits."""
        return "slow" if request.writes else ""

    def seconds(self) -> float:
        """As long as a second run takes to start, divided by the number of files that the first writes."""
        return 2.0


def pause_run(trial: Trial) -> None:
    """The first run stops (all of it, or its driver alone), a second one does the work, the first comes back: it ends with 4."""
    first = trial.lake.segment()
    trial.moment(first, begun=True)
    below = first.below() if trial.random.random() < 0.5 else []
    trial.facts["paused"] = "all of it" if below else "the driver"
    stopped = [*first.driver(), *below]
    kill(stopped, signal.SIGSTOP)
    trial.other_way()
    try:
        second = trial.lake.segment()
        trial.ends(second, 0)
    finally:
        kill(reversed(stopped), signal.SIGCONT)
    trial.struck = _was_fenced(trial, first, second)


def _was_fenced(trial: Trial, first: Job, second: Job) -> bool:
    log = trial.lake.log()
    begun = next((commit.version for commit in log if commit.event == "begin" and commit.run_id == second.run_id), len(log))
    rows = sum(added.rows for commit in data_commits(log[:begun], first.run_id) for added in commit.adds)
    # One that had committed all before the second began has nothing left that could be refused, whatever the second found out, and when.
    if rows == len(trial.lake.expected.keys(TASKS)):
        trial.ends(first, 0, 4)
        return False
    return trial.ends(first, 4) == 4


def side_by_side(trial: Trial) -> None:
    """Two runs on the folders of two days, into one table, at once: both end with 0."""
    more = ("--actors", "1") if trial.lake.way == "ray" else ()
    runs = [trial.lake.segment(*more, days=f"{day}/") for day in DAYS]
    for run in runs:
        trial.ends(run, 0)
    orders = [commit.run_id for commit in trial.lake.log() if commit.run_id in {run.run_id for run in runs}]
    last_begun = max(orders.index(run.run_id) for run in runs)
    first_over = min(len(orders) - 1 - orders[::-1].index(run.run_id) for run in runs)
    trial.struck = last_begun < first_over


def compact_beside(trial: Trial) -> None:
    """Compactions that delete at once what they replaced, overlapping a run: all end with 0."""
    job = trial.lake.segment()
    trial.wait_until_begun(job)
    compactions = 0
    while job.running():
        trial.moment(job, begun=True)
        trial.struck = trial.struck or job.running()
        trial.ends(trial.lake.compact(), 0)
        compactions += 1
    trial.ends(job, 0)
    trial.ends(trial.lake.compact(), 0)
    trial.facts["compactions"] = compactions + 1
