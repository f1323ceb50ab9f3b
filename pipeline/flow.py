"""The flow on Ray Data: load tasks -> model actors -> write tasks. The only place that knows Ray; what the stages do is in `stages`.

    ranges of groups -> load (CPU tasks) -> segment (actor pool, own resources) -> write (light tasks) -> file records, to the driver

The three map stages ask for different resources, so that Ray Data fuses none of them: decoding never runs inside a model's actor.
"""

from __future__ import annotations

import itertools
import logging
import os
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

# After an interruption, threads that still wait for results must not start another Ray behind our back; read when ray is imported.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.exceptions import RayError

from pipeline.config import RunConfig
from pipeline.errors import MasklakeError, Refused
from pipeline.stages import Work, Written, load_group, open_segmenter, segment_rows, write_packets

LOAD_CPUS = 0.9  # different from an actor's, which keeps the stages apart
WRITE_CPUS = 0.0  # no write ever waits for a CPU: loading would otherwise be preferred until everything is loaded
_MOST_LOAD_TASKS = 2000  # tasks of a run, however many images: the driver keeps a little of each
_NVIDIA_GPUS = Path("/proc/driver/nvidia/gpus")
_BLOCK_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class Resources:
    """What the actor pool is given; `rows_per_call` images go to an actor at a time, in `calls_at_once` threads."""

    actors: int
    cpus_per_actor: float
    gpus_per_actor: float
    rows_per_call: int
    calls_at_once: int
    packets_per_write: int


@contextmanager
def cluster(address: str | None) -> Iterator[dict[str, float]]:
    """Join the submitted job's cluster, or the one at `address`, or start a local Ray; yields its resources.

    Raises:
        Refused: there is no cluster at the address.
    """
    target = _target(address)
    # Ray's C++ side writes what it thinks of actors to the user's stderr; what ends a run reaches us as an exception.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # A local Ray would end a worker that idles for a second, between two writes say; the next costs seconds of Python's imports.
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "60000")
    # On one CPU, Ray's count is raised: loading and the model then take turns.
    settings: dict[str, Any] = {"include_dashboard": False, "num_cpus": max(2, os.cpu_count() or 2)} if target == "local" else {}
    try:
        with _muffled():
            ray.init(address=target, logging_level=logging.ERROR, log_to_driver=False, **settings)
    except (ConnectionError, RayError, ValueError, RuntimeError) as error:
        raise Refused(f"--ray-address {target}: no Ray cluster answers there: {error}") from None
    try:
        yield dict(ray.cluster_resources())  # type: ignore[no-untyped-call]
    finally:
        ray.shutdown()


def _target(address: str | None) -> str:
    return address or os.environ.get("RAY_ADDRESS") or "local"


def has_gpus(config: RunConfig) -> bool:
    """Whether the model's actors will get GPUs: as asked for, else as the cluster has them, else this machine; starts nothing.

    Raises:
        Refused: there is no cluster at the address.
    """
    if config.gpus_per_actor is not None:
        return config.gpus_per_actor > 0
    if _target(config.ray_address) != "local":
        with cluster(config.ray_address) as resources:
            return resources.get("GPU", 0.0) > 0
    # As NVIDIA's driver says: asking torch would take seconds, and a run that finds nothing to do takes hardly more.
    return os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1") and any(_NVIDIA_GPUS.glob("*"))


def choose_resources(config: RunConfig, cluster_resources: dict[str, float], group_rows: int, rows_per_file: int) -> Resources:
    """Fill in what the user left open.

    Raises:
        Refused: the cluster cannot hold the actors that were asked for, and a CPU beside them for loading.
    """
    cpus, gpus = cluster_resources.get("CPU", 0.0), cluster_resources.get("GPU", 0.0)
    gpus_per_actor = config.gpus_per_actor if config.gpus_per_actor is not None else float(gpus > 0)
    # Without GPUs, an actor for every CPU beside the load tasks of the other half: the system shares out the cores as work comes.
    cpus_per_actor = config.cpus_per_actor or (1.0 if gpus_per_actor else 0.5)
    if config.actors:
        actors = config.actors
    elif gpus_per_actor:
        actors = max(1, int(gpus / gpus_per_actor))
    else:
        actors = max(1, min(int(cpus), int((cpus - 1) / cpus_per_actor)))
    wants = (
        ("GPUs", "--gpus-per-actor", gpus_per_actor, actors * gpus_per_actor, gpus),
        ("CPUs, one of them for loading", "--cpus-per-actor", cpus_per_actor, actors * cpus_per_actor + 1, cpus),
    )
    for what, flag, each, need, have in wants:
        if need > have + 1e-6:
            raise Refused(f"--actors {actors} and {flag} {each:g} need {need:g} {what}; the cluster has {have:g}: ask for fewer")
    rows_per_call = max(config.batch_size or 0, min(group_rows, 64))
    calls_at_once = 2 if gpus_per_actor else 1  # on a GPU, one call's segments are made beside the next one's forward
    return Resources(actors, cpus_per_actor, gpus_per_actor, rows_per_call, calls_at_once, max(1, round(rows_per_file / rows_per_call)))


def build(work: Work, resources: Resources) -> Dataset:
    """The dataset of file records: nothing runs until it is read."""
    quiet()

    def load(batch: pa.Table) -> Iterator[pa.Table]:
        for share in batch.to_pylist():
            for index in range(share["first"], share["end"]):
                yield from load_group(work, index)

    def write(batch: pa.Table) -> pa.Table:
        return pa.table({"written": [pickle.dumps(write_packets(work, batch["packet"].to_pylist()))]})

    return (
        # Blocks of our own: a read operator would ask for whole CPUs beside the stages', and starve the writing.
        ray.data.from_arrow([pa.table({"first": [first], "end": [end]}) for first, end in _shares(work.groups)])
        .map_batches(load, batch_size=1, batch_format="pyarrow", num_cpus=LOAD_CPUS)
        .map_batches(
            _SegmentActor,
            fn_constructor_args=(work, resources.cpus_per_actor),
            batch_size=resources.rows_per_call,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(
                size=min(resources.actors, work.groups),  # a small run starts fewer models
                max_concurrent_calls_per_actor=resources.calls_at_once,
                enable_true_multi_threading=True,
            ),
            num_cpus=resources.cpus_per_actor,
            num_gpus=resources.gpus_per_actor,
        )
        .map_batches(write, batch_size=resources.packets_per_write, batch_format="pyarrow", num_cpus=WRITE_CPUS)
    )


def _shares(groups: int) -> Iterator[tuple[int, int]]:
    """The groups as at most `_MOST_LOAD_TASKS` ranges of about equal length."""
    tasks = min(groups, _MOST_LOAD_TASKS)
    bounds = [groups * task // tasks for task in range(tasks + 1)]
    yield from itertools.pairwise(bounds)


def stream(dataset: Dataset) -> Iterator[Written]:
    """Run the flow; yields each write as it happens.

    Raises:
        MasklakeError: a stage raised it, or the cluster was lost.
    """
    try:
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            assert isinstance(batch, pa.Table)
            for pickled in batch["written"].to_pylist():
                yield pickle.loads(pickled)  # noqa: S301 - our own workers made it
    except RayError as error:
        raise _cause(error) from error


class _SegmentActor:
    """One model in one process; answers Arrow batches with packets of finished rows."""

    def __init__(self, work: Work, threads: float) -> None:
        self._work = work
        self._segmenter = open_segmenter(work, threads=max(1, int(threads)))

    def __call__(self, batch: pa.Table) -> pa.Table:
        return pa.table({"packet": [segment_rows(self._work, self._segmenter, batch)]})


def _cause(error: BaseException) -> MasklakeError:
    """The job's own exception inside Ray's wrapping, or Ray's as one sentence."""
    current: BaseException | None = error
    while current is not None:
        if isinstance(current, MasklakeError):
            return current
        current = getattr(current, "cause", None) or current.__cause__
    last = str(error).strip().splitlines()
    return MasklakeError(
        f"the cluster ended the work: {last[-1] if last else type(error).__name__}; what was committed stays, run the same command to go on"
    )


@contextmanager
def _muffled() -> Iterator[None]:
    """Keep what C++ writes straight to stderr from the user; failures come as exceptions."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def quiet() -> None:
    """Keep Ray Data's own bars and plans out of the user's terminal; progress is ours, from committed rows."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = _BLOCK_BYTES
    logging.getLogger("ray.data").setLevel(logging.ERROR)
