"""Processes that end without having been asked, or that are asked to: of the job itself, its workers, its machines."""

from __future__ import annotations

import signal

from tests.faults.job import Job
from tests.faults.processes import caught, kill
from tests.faults.trial import Trial


def kill_driver(trial: Trial) -> None:
    """kill -9 of the driver. Its Ray must go by itself, and what it was writing is rubbish."""
    job = trial.lake.segment()
    trial.moment(job)
    trial.struck = job.running()
    job.kill()
    trial.codes.append(job.wait())
    trial.recovery = trial.lake.segment


def terminate(trial: Trial) -> None:
    """SIGTERM or Ctrl-C: what is written is committed, the rest is cleared away, and the code says what came."""
    job = trial.lake.segment()
    trial.moment(job)
    number = trial.random.choice((signal.SIGTERM, signal.SIGINT))
    trial.facts["signal"] = number.name
    job.process.send_signal(number)
    # A process that has not come to its first line dies of the signal itself.
    code = trial.ends(job, 0, 128 + number, -number)
    trial.struck = code != 0
    trial.recovery = trial.lake.segment


def kill_actor(trial: Trial) -> None:
    """kill -9 of a model's process, while it starts or works: the job does not fail."""
    job = trial.lake.segment("--actors", str(trial.random.randint(1, 2)))
    _kill_worker(trial, job, "_SegmentActor")
    trial.ends(job, 0)


def kill_task(trial: Trial) -> None:
    """kill -9 of a process that loads or writes: the job does not fail."""
    job = trial.lake.segment()
    _kill_worker(trial, job, trial.random.choice(("MapBatches(load)", "write")))
    trial.ends(job, 0)


def _kill_worker(trial: Trial, job: Job, name: str) -> None:
    trial.wait_until_begun(job)
    if name == "_SegmentActor" and trial.random.random() < 0.7:
        trial.moment(job, begun=True)
    found = caught(job.workers, name, lambda: not job.running())
    trial.struck = bool(found) and job.running()
    kill(found[:1])
    trial.facts["killed"] = name if found else "nothing: the job was over"


def lose_node(trial: Trial) -> None:
    """kill -9 of everything on one of a cluster's three nodes: the job does not fail."""
    assert trial.cluster
    job = trial.lake.segment("--ray-address", trial.cluster.address, "--actors", "2", environment=trial.cluster.env())
    trial.moment(job, begun=True)
    name = trial.random.choice(trial.cluster.workers())
    trial.struck = job.running()
    trial.cluster.lose(name)
    trial.facts["killed"] = name
    trial.ends(job, 0)


def kill_cluster(trial: Trial) -> None:
    """kill -9 of the whole local Ray (its control store, raylet, workers) under a driver that lives: code 1, and a sentence."""
    job = trial.lake.segment("--actors", "1")
    trial.moment(job, begun=True)
    kill(job.below())
    trial.fails_clearly(job)
    trial.other_way()
    trial.recovery = trial.lake.segment
