"""The flow on Ray Data: load tasks -> model actors -> write tasks. What the stages do is in `stages`; the session is in `cluster`.

    ranges of groups -> load (CPU tasks) -> segment (actor pool, own resources) -> write (light tasks) -> file records, to the driver

The three map stages ask for different resources, so that Ray Data fuses none of them: decoding never runs inside a model's actor.
"""

from __future__ import annotations

import itertools
import math
import os
import pickle
import sys
from collections.abc import Iterator, Sequence

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, Dataset

from masklake.cluster import batches, quiet
from masklake.errors import DeviceLost, Refused
from masklake.segment.digests import DIGESTS
from masklake.segment.engine import Resources
from masklake.segment.settings import RunConfig
from masklake.segment.stages import Work, Written, digest_files, load_group, open_segmenter, segment_rows, write_packets
from masklake.table.keys import KeyFile, Wanted

LOAD_CPUS = (0.9, 0.4, 0.2, 0.1)  # different from an actor's, which keeps the stages apart; fewer where nodes are small
WRITE_CPUS = 0.0  # no write ever waits for a CPU: loading would otherwise be preferred until everything is loaded
RETRIES = 20
"""Of a task or call whose worker or node was lost: by default Ray would start the next worker for ever. An error is never retried."""
_MOST_LOAD_TASKS = 2000  # tasks of a run, however many images: the driver keeps a little of each
_SHARE_ROWS = 1_000_000  # of the table, read by one task: about a second's work, so that the cluster ends together
_LOST_DEVICE = 75  # exit code of an actor's process whose GPU answers no more
_GPU_ROWS = 256  # of a call: a model of small images takes them in a few batches, one of sizes that keep the aspect fills some at least


def choose_resources(config: RunConfig, cluster_resources: dict[str, float], group_rows: int, rows_per_file: int) -> Resources:
    """Fill in what the user left open.

    Raises:
        Refused: the cluster cannot hold the actors that were asked for, and a CPU beside them for loading.
    """
    cpus, gpus = cluster_resources.get("CPU", 0.0), cluster_resources.get("GPU", 0.0)
    if config.device == "cuda" and not gpus:
        raise Refused("--device cuda: the cluster has no GPU that Ray knows of: use --device cpu")
    on_gpus = gpus > 0 if config.device == "auto" else config.device == "cuda"
    gpus_per_actor = config.gpus_per_actor if config.gpus_per_actor is not None else float(on_gpus)
    # Without GPUs, an actor for every CPU beside the load tasks of the other half: the system shares out the cores as work comes.
    cpus_per_actor = config.cpus_per_actor or (1.0 if gpus_per_actor else 0.5)
    if config.actors:
        actors = config.actors
    elif gpus_per_actor:
        actors = max(1, int(gpus / gpus_per_actor))
    elif config.device == "mps":
        actors = 1
    else:
        actors = max(1, min(int(cpus), int((cpus - 1) / cpus_per_actor)))
    wants = (
        ("GPUs", "--gpus-per-actor", gpus_per_actor, actors * gpus_per_actor, gpus),
        ("CPUs, one of them for loading", "--cpus-per-actor", cpus_per_actor, actors * cpus_per_actor + 1, cpus),
    )
    for what, flag, each, need, have in wants:
        if need > have + 1e-6:
            raise Refused(f"--actors {actors} and {flag} {each:g} need {need:g} {what}; the cluster has {have:g}: ask for fewer")
    # On a GPU: enough to fill batches, less where the run is small; the next call begins its forward beside this one's last segments.
    rows_per_call = max(config.batch_size or 0, min(rows_per_file, _GPU_ROWS) if gpus_per_actor else min(group_rows, 64))
    calls_at_once = 2 if gpus_per_actor else 1
    return Resources(actors, cpus_per_actor, gpus_per_actor, rows_per_call, calls_at_once, max(1, round(rows_per_file / rows_per_call)))


def done_digests(table_uri: str, wanted: Wanted, files: Sequence[KeyFile]) -> Iterator[pa.RecordBatch]:
    """What the table holds as `digests.DIGESTS`, read by tasks all over the cluster; as it comes, in no order.

    Raises:
        MasklakeError: a file could not be read, or the cluster was lost.
    """
    quiet()

    def read(batch: pa.Table) -> Iterator[pa.Table]:
        for share in batch["files"].to_pylist():
            yield from digest_files(table_uri, wanted, pickle.loads(share))  # noqa: S301 - from this driver

    shares = [pa.table({"files": [pickle.dumps(share)]}) for share in _by_rows(files)]
    if not shares:
        return
    dataset = ray.data.from_arrow(shares).map_batches(
        read, batch_size=1, batch_format="pyarrow", num_cpus=1, ray_remote_args_fn=_task_options
    )
    for batch in batches(dataset):
        yield from batch.cast(DIGESTS).to_batches()


def _by_rows(files: Sequence[KeyFile]) -> Iterator[list[KeyFile]]:
    """The files in shares of about `_SHARE_ROWS` rows."""
    share: list[KeyFile] = []
    rows = 0
    for file in files:
        share.append(file)
        rows += file.rows
        if rows >= _SHARE_ROWS:
            yield share
            share, rows = [], 0
    if share:
        yield share


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
        .map_batches(
            load,
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=load_cpus(resources, _cpus_of_nodes()),
            ray_remote_args_fn=_task_options,
        )
        .map_batches(
            _SegmentActor,
            fn_constructor_args=(work, resources.cpus_per_actor),
            batch_size=resources.rows_per_call,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(
                size=actors_of(work, resources),
                max_concurrent_calls_per_actor=resources.calls_at_once,
                enable_true_multi_threading=True,
            ),
            num_cpus=resources.cpus_per_actor,
            num_gpus=resources.gpus_per_actor,
            ray_remote_args_fn=lambda: {"max_task_retries": RETRIES},
        )
        .map_batches(
            write,
            batch_size=resources.packets_per_write,
            batch_format="pyarrow",
            num_cpus=WRITE_CPUS,
            ray_remote_args_fn=_task_options,
        )
    )


def _task_options() -> dict[str, int]:
    return {"max_retries": RETRIES}


def actors_of(work: Work, resources: Resources) -> int:
    """How many models are started: a small run starts fewer."""
    return min(resources.actors, work.groups)


def load_cpus(resources: Resources, nodes: Sequence[float]) -> float:
    """What a load task asks for, so that there is room for one wherever the actors go, also when the node that matters most is lost.

    Args:
        nodes: the CPUs of each node. Actors are put anywhere, and nothing moves them: on nodes of one CPU, an actor of half a CPU on each
            would leave no node with 0.9, and the run would wait for ever.
    """
    actor = resources.cpus_per_actor
    choices = [cpus if abs(cpus - actor) > 1e-9 else cpus - 0.01 for cpus in LOAD_CPUS]

    def to_block(node: float, cpus: float) -> float:
        """How many actors on a node leave no room for a load task."""
        actors = int((node - cpus) / actor + 1e-9) + 1 if node >= cpus else 0
        return actors if actors * actor <= node + 1e-9 else math.inf

    for lost in (1, 0):
        for cpus in choices:
            blocked = sorted(to_block(node, cpus) for node in nodes)
            if sum(blocked[: len(blocked) - lost]) > resources.actors:
                return cpus
    return choices[0]


def _cpus_of_nodes() -> list[float]:
    return [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


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
    for batch in batches(dataset):
        for pickled in batch["written"].to_pylist():
            yield pickle.loads(pickled)  # noqa: S301 - our own workers made it


class _SegmentActor:
    """One model in one process; answers Arrow batches with packets of finished rows."""

    def __init__(self, work: Work, threads: float) -> None:
        self._work = work
        self._segmenter = open_segmenter(work, threads=max(1, int(threads)))

    def __call__(self, batch: pa.Table) -> pa.Table:
        try:
            return pa.table({"packet": [segment_rows(self._work, self._segmenter, batch)]})
        except DeviceLost as error:  # Ray retries the call in a new process, `RETRIES` times, as it does when a node is lost
            print(f"masklake: {error}; process {os.getpid()} ends, for Ray to start another", file=sys.stderr, flush=True)
            os._exit(_LOST_DEVICE)
