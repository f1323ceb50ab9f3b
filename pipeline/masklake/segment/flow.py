"""The flow on Ray Data: load tasks -> model actors -> write tasks. The only place that knows Ray; what the stages do is in `stages`.

    ranges of groups -> load (CPU tasks) -> segment (actor pool, own resources) -> write (light tasks) -> file records, to the driver

The three map stages ask for different resources, so that Ray Data fuses none of them: decoding never runs inside a model's actor.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import logging
import math
import os
import pickle
import re
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

# After an interruption, threads that still wait for results must not start another Ray behind our back; read when ray is imported.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.exceptions import RayError

from masklake.config import RunConfig
from masklake.errors import MasklakeError, Refused
from masklake.segment.digests import DIGESTS
from masklake.segment.stages import Work, Written, digest_files, load_group, open_segmenter, segment_rows, write_packets
from masklake.table.keys import KeyFile, Wanted

LOAD_CPUS = (0.9, 0.4, 0.2, 0.1)  # different from an actor's, which keeps the stages apart; fewer where nodes are small
WRITE_CPUS = 0.0  # no write ever waits for a CPU: loading would otherwise be preferred until everything is loaded
_MOST_LOAD_TASKS = 2000  # tasks of a run, however many images: the driver keeps a little of each
_SHARE_ROWS = 1_000_000  # of the table, read by one task: about a second's work, so that the cluster ends together
_NVIDIA_GPUS = Path("/proc/driver/nvidia/gpus")
_BLOCK_BYTES = 16 * 1024 * 1024
_OUR_ERROR = re.compile(r"masklake\.[\w.]*\.(?P<name>\w+): (?P<message>.+)")
_ERROR_LINE = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Exit|Refused)\b.*: ")
_LEAST_BYTES = 10_000_000  # with less, a local Ray does not start
_PULSE_SECONDS = 2.0
_LOST_SECONDS = 40.0  # less than the minute after which Ray would end this process without a word

_Group = TypeVar("_Group")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Resources:
    """What the actor pool is given; `rows_per_call` images go to an actor at a time, in `calls_at_once` threads."""

    actors: int
    cpus_per_actor: float
    gpus_per_actor: float
    rows_per_call: int
    calls_at_once: int
    packets_per_write: int


_gone = threading.Event()  # the cluster of this process was lost


class ClusterLost(MasklakeError):
    """Ray is gone, or this machine's part of it."""


@contextmanager
def cluster(address: str | None) -> Iterator[dict[str, float]]:
    """Join the submitted job's cluster, or the one at `address`, or start a local Ray; yields its resources.

    Raises:
        Refused: there is no cluster at the address.
        MasklakeError: a local Ray could not be started.
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
    except Exception as error:  # Ray raises bare ones, too, as when its node is slow to start
        if target == "local":
            raise MasklakeError(_why_not_started(error)) from None
        raise Refused(f"--ray-address {target}: no Ray cluster answers there: {error}") from None
    try:
        with redirect_stdout(sys.stderr):  # where Ray prints what befell its workers: stdout is for lines of JSON
            yield dict(ray.cluster_resources())  # type: ignore[no-untyped-call]
    finally:
        if _gone.is_set():
            atexit.unregister(ray.shutdown)  # nobody is there to say goodbye to: it would wait, and end this process in its own way
        else:
            ray.shutdown()


def _why_not_started(error: Exception) -> str:
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or tempfile.gettempdir()  # a full one is passed over by Python only
    if _is_full(folder):
        return f"Ray could not start: {_no_space(folder)}"
    return f"Ray could not start on this machine: {' '.join(str(error).split())}"


def _is_full(folder: str) -> bool:
    return shutil.disk_usage(folder).free < _LEAST_BYTES


def _no_space(folder: str) -> str:
    return f"no space is left in {folder}, where Ray's files go: free some, or name another folder in RAY_TMPDIR"


@contextmanager
def cluster_when_asked(address: str | None) -> Iterator[Callable[[], dict[str, float]]]:
    """`cluster`, as a function that opens it the first time it is called: starting Ray takes longer than finding nothing to do."""
    with ExitStack() as opened:
        yield functools.cache(lambda: opened.enter_context(cluster(address)))


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
    dataset = ray.data.from_arrow(shares).map_batches(read, batch_size=1, batch_format="pyarrow", num_cpus=1)
    for batch in _batches(dataset):
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
        .map_batches(load, batch_size=1, batch_format="pyarrow", num_cpus=load_cpus(resources, _cpus_of_nodes()))
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


class Pulse:
    """Tells when the cluster is gone: Ray itself would wait for a minute, and then end the driver's process in the middle of a line. And
    when its disk is full: Ray would wait for ever for workers that cannot start.

    Asked in a thread of its own, since the question may hang, while this context manager is open. Time in which nobody calls `check`, as
    when the process is stopped, does not count.
    """

    def __init__(self) -> None:
        context = ray.get_runtime_context()
        host, _, port = context.gcs_address.rpartition(":")
        self._control, self._node = (host, int(port)), context.get_node_id()
        self._beats, self._seen = 0, 0
        self._silent, self._checked = 0.0, time.monotonic()
        node = ray._private.worker.global_worker.node  # no public name tells the folder
        self._folder = node.get_session_dir_path() if node else tempfile.gettempdir()
        self._is_full, self._full = False, 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="pulse", daemon=True)

    def __enter__(self) -> Pulse:
        self._thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._over.set()
        if not _gone.is_set():
            self._thread.join(_LOST_SECONDS)  # nobody may ask Ray while it shuts down

    def check(self) -> None:
        """Call every second or so.

        Raises:
            ClusterLost: there was no sign of life for 40 s.
            MasklakeError: for 40 s, no space was left for Ray's files on this machine.
        """
        now, beats = time.monotonic(), self._beats
        passed = min(now - self._checked, 5.0)
        self._silent = 0.0 if beats > self._seen else self._silent + passed
        self._full = self._full + passed if self._is_full else 0.0
        self._seen, self._checked = beats, now
        if self._full > _LOST_SECONDS:
            raise MasklakeError(f"{_no_space(self._folder)}; what was committed stays, run the same command to go on")
        if self._silent > _LOST_SECONDS:
            _gone.set()
            raise ClusterLost("the Ray cluster is gone; what was committed stays, run the same command to go on")

    def _ask(self) -> None:
        while not self._over.wait(_PULSE_SECONDS):
            self._is_full = _is_full(self._folder)
            try:
                with socket.create_connection(self._control, timeout=5):
                    pass
                nodes = ray.nodes()  # type: ignore[no-untyped-call]
                alive = any(node["NodeID"] == self._node and node["Alive"] for node in nodes)
            except (OSError, RayError):
                alive = False
            self._beats += alive


def stream(dataset: Dataset) -> Iterator[Written]:
    """Run the flow; yields each write as it happens.

    Raises:
        MasklakeError: a stage raised it, or the cluster was lost.
    """
    for batch in _batches(dataset):
        for pickled in batch["written"].to_pylist():
            yield pickle.loads(pickled)  # noqa: S301 - our own workers made it


def _batches(dataset: Dataset) -> Iterator[pa.Table]:
    """The blocks of a dataset, each as soon as it is there."""
    try:
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            assert isinstance(batch, pa.Table)
            yield batch
    except RayError as error:
        raise _cause(error) from error


def map_reduce(
    function: Callable[[_Group], _Result], groups: Iterable[_Group], merge: Callable[[_Result, _Result], _Result], address: str | None
) -> _Result:
    """The function of each group, in tasks of the cluster of `cluster(address)`, its results merged as they come, in any order.

    At most two groups for each CPU are under way, so that the driver reads no faster than the tasks work.

    Raises:
        ValueError: there are no groups.
        MasklakeError: a task raised it, or the cluster was lost.
    """
    with cluster(address) as resources:
        task: Any = ray.remote(num_cpus=1)(_as_values)
        pinned = ray.put(function)
        waiting: list[ray.ObjectRef[Any]] = []
        results: list[_Result] = []
        most = 2 * max(1, int(resources.get("CPU", 1)))

        def collect(until: int) -> None:
            while len(waiting) > until:
                done, waiting[:] = ray.wait(waiting, num_returns=1)
                answer = ray.get(done[0])
                if isinstance(answer, MasklakeError):
                    raise answer
                results[:] = [merge(results[0], answer) if results else answer]

        try:
            for group in groups:
                waiting.append(task.remote(pinned, group))
                collect(most)
            collect(0)
        except RayError as error:
            raise _cause(error) from error
    if not results:
        raise ValueError("there are no groups")
    return results[0]


def _as_values(function: Callable[[_Group], _Result], group: _Group) -> _Result | MasklakeError:
    """The job's own exceptions travel as values: Ray's wrapping would say where they were raised, not what is wrong."""
    try:
        return function(group)
    except MasklakeError as error:
        return error


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
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    ours = [found for found in map(_OUR_ERROR.match, lines) if found]
    if ours:  # wrapped by Ray Data, a stage's exception arrives as text
        return (Refused if ours[-1]["name"] == Refused.__name__ else MasklakeError)(ours[-1]["message"])
    named = [line for line in lines if _ERROR_LINE.match(line)]  # the end of a stack; Ray appends advice of its own
    reason = (named or lines or [type(error).__name__])[-1].rstrip(".")
    return MasklakeError(f"the cluster ended the work: {reason}; what was committed stays, run the same command to go on")


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
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # an error ends the run as an exception, and needs no stack as well
