"""The flow on Ray Data: load tasks -> model actors; then write tasks. What the stages do is in `stages`; the session is in `cluster`.

    ranges of groups -> load (CPU tasks) -> segment (actor pool, own resources) -> write (light tasks) -> file records, to the driver

The two map stages ask for different resources, so that Ray Data does not fuse them: decoding never runs inside a model's actor. Of the
packets that come out, the driver has the references alone: `filling` gathers those of all actors, and a task writes what is enough for a
file. Ray Data's own batches are of one size from the start of a run to its end.
"""

from __future__ import annotations

import itertools
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext, Dataset, TaskPoolStrategy

from masklake.cluster import Reference, batches, future_of, quiet, references
from masklake.errors import DeviceLost, Refused, Say
from masklake.inference import sparing
from masklake.segment import placement
from masklake.segment.digests import DIGESTS
from masklake.segment.engine import Resources
from masklake.segment.filling import Fill, Filler, Packet
from masklake.segment.metrics import ActorMeter
from masklake.segment.nodes import asked_for
from masklake.segment.patience import Cluster, StageSign, refuse_what_can_never_be, wait_for_nodes
from masklake.segment.placement import Node, Pool
from masklake.segment.settings import RunConfig
from masklake.segment.stages import Work, Written, digest_files, load_group, open_segmenter, packet_facts, segment_rows, write_packets
from masklake.table.keys import KeyFile, Wanted

WRITE_CPUS = 0.0  # no write ever waits for a CPU: loading would otherwise be preferred until everything is loaded
MOST_LOAD_TASKS = 2000
"""Of a run, however many images: the driver keeps a little of each. One whose node is lost begins anew."""
RETRIES = 20
"""Of a task or call whose worker or node was lost: by default Ray would start the next worker for ever. An error is never retried."""
_WRITES_AT_ONCE = 8  # of up to 200 MB each: of the store's time, not of the driver's
_SHARE_ROWS = 1_000_000  # of the table, read by one task: about a second's work, so that the cluster ends together
_LATER_SECONDS = 600.0  # by which Ray Data's own limit is later than the run's
_SIGNS: dict[str, tuple[StageSign, ...]] = {}
_LOST_DEVICE = 75  # exit code of an actor's process whose GPU answers no more
_GPU_ROWS = 256  # of a call: images are batched by shape within one, and where sizes keep the aspect there are many shapes
_CALL_BYTES = 256 * 1024 * 1024  # of its pixels: calls of large ones are smaller, and more of them wait together


def has_gpus(config: RunConfig, there: Cluster) -> bool:
    """Whether the model's actors will get GPUs: as asked for, else as the cluster has or may get them.

    Raises:
        Refused: the cluster has none just now and may grow, nobody knows by what.
    """
    if config.gpus_per_actor is not None:
        return config.gpus_per_actor > 0
    if config.device != "auto":
        return config.device == "cuda"
    if there.grows and there.kinds is None and not any(node.gpus for node in there.nodes):
        raise Refused(
            "the cluster has no GPU just now, and an autoscaler that does not say what it can bring: "
            "with --gpus-per-actor 1 the run waits for GPUs, with --device cpu it runs without"
        )
    return any(node.gpus for node in _possible(there))


def refuse_at_once(config: RunConfig, there: Cluster) -> None:
    """Before anything is listed.

    Raises:
        Refused: the actors that are asked for can never be on the nodes that are there or may come.
    """
    refuse_what_can_never_be(there, pool_of(config, there), config.wait_for_nodes)


@contextmanager
def room_for_actors(config: RunConfig, look: Callable[[], Cluster], say: Say, group_rows: int, most_rows: int) -> Iterator[Resources]:
    """What the user left open filled in, once the nodes are there; an autoscaler is asked for them within.

    Raises:
        Refused: the actors can never be there.
        Stalled: they did not come in time.
    """
    there = look()
    if config.device == "cuda" and config.gpus_per_actor is None and not any(node.gpus for node in _possible(there)):
        raise Refused("--device cuda: the cluster has no GPU that Ray knows of: use --device cpu, or --gpus-per-actor 1 to wait for one")
    pool = pool_of(config, there)
    with asked_for(pool, there):
        there = wait_for_nodes(look, pool, config.wait_for_nodes, say)
        yield choose_resources(config, there, group_rows, most_rows)


def choose_resources(config: RunConfig, there: Cluster, group_rows: int, most_rows: int) -> Resources:
    """Fill in what the user left open."""
    pool = pool_of(config, there)
    # On a GPU: enough to fill batches, less where the run is small; the next call begins its forward beside this one's last segments.
    rows_per_call = max(config.batch_size or 0, min(most_rows, _GPU_ROWS) if pool.gpus else min(group_rows, 64))
    load_cpus = placement.load_cpus(there.nodes, pool)
    return Resources(
        actors=pool.most,
        cpus_per_actor=pool.cpus,
        gpus_per_actor=pool.gpus,
        rows_per_call=rows_per_call,
        calls_at_once=2 if pool.gpus else 1,
        least=pool.least,
        first=min(pool.most, max(pool.least, placement.capacity(there.nodes, pool))),
        load_cpus=load_cpus,
        load_tasks=placement.load_tasks(_possible(there), load_cpus),
    )


def pool_of(config: RunConfig, there: Cluster) -> Pool:
    """The actors that are wanted, as the settings say or as the nodes, present and possible ones, suggest."""
    nodes = _possible(there)
    on_gpus = any(node.gpus for node in nodes) if config.device == "auto" else config.device == "cuda"
    gpus = config.gpus_per_actor if config.gpus_per_actor is not None else float(on_gpus)
    cpus = config.cpus_per_actor or placement.cpus_of_an_actor(nodes, gpus)
    if config.actors:
        return Pool(config.actors.least, config.actors.most, cpus, gpus)
    most = 1 if config.device == "mps" else placement.most_by_default(nodes, cpus, gpus)
    return Pool(1 if there.grows else most, most, cpus, gpus)


def _possible(there: Cluster) -> Sequence[Node]:
    """The nodes that there can be, as far as is known."""
    return there.nodes if there.kinds is None else there.kinds


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
    dataset = ray.data.from_blocks(shares).map_batches(
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


def build(work: Work, resources: Resources, stall_seconds: float = 1800.0) -> Dataset:
    """The dataset of packets: nothing runs until it is read.

    Args:
        work: what is to be done.
        resources: what there is for it.
        stall_seconds: after which the run itself ends work that stands still; Ray Data's own limit is set above it.
    """
    quiet()
    context = DataContext.get_current()
    context.execution_no_progress_timeout_s = stall_seconds + _LATER_SECONDS
    context.custom_execution_callback_classes = _watched()

    def load(batch: pa.Table) -> Iterator[pa.Table]:
        for share in batch.to_pylist():
            for index in range(share["first"], share["end"]):
                yield from load_group(work, index)

    flow: Dataset = (
        # Blocks of our own: a read operator would ask for whole CPUs beside the stages', and starve the writing. Each of `from_arrow`'s
        # would be looked at by a task, for which a worker must start first.
        ray.data.from_blocks([pa.table({"first": [first], "end": [end]}) for first, end in _shares(work.groups)])
        .map_batches(
            load,
            batch_size=1,
            batch_format="pyarrow",
            compute=TaskPoolStrategy(resources.load_tasks),
            num_cpus=resources.load_cpus,
            ray_remote_args_fn=_task_options,
        )
        .map_batches(
            _SegmentActor,
            fn_constructor_args=(work, resources.cpus_per_actor),
            batch_size=rows_per_call(work, resources),
            batch_format="pyarrow",
            compute=ActorPoolStrategy(
                min_size=min(resources.least, actors_of(work, resources)),
                initial_size=min(resources.first, actors_of(work, resources)),
                max_size=actors_of(work, resources),
                max_concurrent_calls_per_actor=calls_at_once(work, resources),
                enable_true_multi_threading=True,
            ),
            num_cpus=placement.ASKED * resources.cpus_per_actor,
            num_gpus=resources.gpus_per_actor,
            ray_remote_args_fn=lambda: {"max_task_retries": RETRIES},
        )
    )
    return flow


def signs() -> tuple[StageSign, ...]:
    """How far each stage of the flow under way is; another value whenever something has happened."""
    return _SIGNS.get("", ())


def _watched() -> list[type]:
    """A callback that keeps `signs`; none where Ray has moved its private name: then commits alone are signs of life."""
    try:
        from ray.data._internal.execution.execution_callback import ExecutionCallback
    except ImportError:
        return []

    class Watch(ExecutionCallback):
        """Looks at the stages after each round of Ray Data's loop, in this process."""

        def on_execution_step(self, executor: Any) -> None:
            """Called by Ray after each round."""
            with suppress(AttributeError):
                _SIGNS[""] = tuple(_sign(stage, state) for stage, state in executor._topology.items())

    return [Watch]


def _sign(stage: Any, state: Any) -> StageSign:
    pools = stage.get_autoscaling_actor_pools()
    return StageSign(
        stage.name,
        stage.num_active_tasks(),
        stage.metrics.num_tasks_finished,
        state.total_enqueued_input_blocks(),
        sum(pool.num_running_actors() for pool in pools),
        sum(pool.num_pending_actors() for pool in pools),
    )


def _task_options() -> dict[str, int]:
    return {"max_retries": RETRIES}


def rows_per_call(work: Work, resources: Resources) -> int:
    """How many images go to an actor at a time: fewer where those of a usual shape (4 to 3) would take too much memory."""
    height, width = work.description.resize.target(480, 640)
    return max(min(resources.rows_per_call, 64), work.batch_size or 0, min(resources.rows_per_call, _CALL_BYTES // (3 * height * width)))


def calls_at_once(work: Work, resources: Resources) -> int:
    """How many calls wait in an actor: twice as many where images keep their aspect, since batches of one shape are filled from all."""
    return resources.calls_at_once * (2 if resources.calls_at_once > 1 and work.description.resize.rule != "exact" else 1)


def actors_of(work: Work, resources: Resources) -> int:
    """How many models are started: a small run starts fewer."""
    return min(resources.actors, work.groups)


def _shares(groups: int) -> Iterator[tuple[int, int]]:
    """The groups as at most `MOST_LOAD_TASKS` ranges of about equal length."""
    tasks = min(groups, MOST_LOAD_TASKS)
    bounds = [groups * task // tasks for task in range(tasks + 1)]
    yield from itertools.pairwise(bounds)


def packets(dataset: Dataset, images: int) -> Iterator[Packet[Reference]]:
    """Run the flow; yields where packets are, each of about so many images, as soon as they are there.

    Raises:
        MasklakeError: a stage raised it, or the cluster was lost.
    """
    for reference, rows, size in references(dataset):
        yield Packet(reference, images * rows, size)


def filler(work: Work, fill: Fill) -> Filler[Reference]:
    """Has packets written by tasks, which run where most of them are."""
    pinned = ray.put(work)

    def write(blocks: list[Reference]) -> Future[Written]:
        return future_of(_write, pinned, blocks, num_cpus=WRITE_CPUS, max_retries=RETRIES)

    return Filler(fill, write, _WRITES_AT_ONCE)


def _write(work: Work, *blocks: pa.Table) -> Written:
    return write_packets(work, [packet.as_buffer() for block in blocks for packet in block["packet"]])


class _SegmentActor:
    """One model in one process; answers Arrow batches with packets of finished rows."""

    def __init__(self, work: Work, threads: float) -> None:
        self._work = work
        sparing.allow(work.forward)
        self._segmenter = open_segmenter(work, threads=max(1, int(threads)))
        self._meter = ActorMeter(work.table_uri, work.stamp.run_id)

    def __call__(self, batch: pa.Table) -> pa.Table:
        try:
            packet = segment_rows(self._work, self._segmenter, batch)
        except DeviceLost as error:  # Ray retries the call in a new process, `RETRIES` times, as it does when a node is lost
            print(f"masklake: {error}; process {os.getpid()} ends, for Ray to start another", file=sys.stderr, flush=True)
            os._exit(_LOST_DEVICE)
        facts = packet_facts(packet)
        self._meter.add(facts["busy"], round(facts["halvings"]), round(facts["bytes"]))
        return pa.table({"packet": [packet]})
