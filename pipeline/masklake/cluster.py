"""The Ray session: joining or starting a cluster, whether it lives, and its errors as one sentence.

Knows nothing of images and tables.
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import re
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext, redirect_stdout
from types import TracebackType
from typing import Any, TypeAlias, TypeVar

import pyarrow as pa
import ray
from ray.data import DataContext, Dataset
from ray.exceptions import RayError

from masklake import own_ray, pandas_later, stopping, variables
from masklake.addresses import LOCAL, refuse_closed, target_of, why_not_joined
from masklake.errors import MasklakeError, Refused
from masklake.storage.places import VARIABLE as PLACES

pandas_later.let_pyarrow_know()

_OUR_ERROR = re.compile(r"masklake\.[\w.]*\.(?P<name>\w+): (?P<message>.+)")
_ERROR_LINE = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Exit|Refused)\b.*: ")
_PULSE_SECONDS = 2.0
_LOST_SECONDS = 40.0  # less than the minute after which Ray would end this process without a word
_STOP_SECONDS = 0.5  # of the few that whoever stops a job gives it
_BLOCK_BYTES = 16 * 1024 * 1024
_Group = TypeVar("_Group")
_Result = TypeVar("_Result")
Reference: TypeAlias = "ray.ObjectRef[Any]"
"""Where something is in the cluster."""
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
    target = target_of(address)
    variables.prepare(address)  # where whoever began did not
    # On one CPU, Ray's count is raised: loading and the model then take turns.
    settings: dict[str, Any] = {"include_dashboard": False, "num_cpus": max(2, os.cpu_count() or 2)} if target == LOCAL else {}
    elsewhere = {name: os.environ[name] for name in (PLACES,) if name in os.environ}
    if elsewhere and target != LOCAL:  # workers of a local Ray have this process's environment
        settings["runtime_env"] = {"env_vars": elsewhere}
    with own_ray.alone() if target == LOCAL else nullcontext():
        yield from _joined(target, settings)


def _joined(target: str, settings: dict[str, Any]) -> Iterator[dict[str, float]]:
    refuse_closed(target)
    try:
        with _muffled():
            ray.init(address=target, logging_level=logging.ERROR, log_to_driver=False, **settings)
    except Exception as error:  # Ray raises bare ones, too, as when its node is slow to start
        if target == LOCAL:
            raise MasklakeError(own_ray.why_not_started(error)) from None
        raise Refused(f"--ray-address {target}: {why_not_joined(error)}") from None
    at_once = False
    try:
        stopping.listen()  # Ray has put handlers of its own in place, which end the process in the middle of a line
        with redirect_stdout(sys.stderr):  # where Ray prints what befell its workers: stdout is for lines of JSON
            yield dict(ray.cluster_resources())  # type: ignore[no-untyped-call]
    except stopping.Stopped:
        at_once = target == LOCAL
        raise
    finally:
        _end(at_once)


def _end(at_once: bool) -> None:
    """Leave the cluster; `at_once`, where it is our own and whoever stops us will not wait for its good end."""
    if at_once:
        own_ray.end_at_once()
    elif _gone.is_set():
        atexit.unregister(ray.shutdown)  # nobody is there to say goodbye to: it would wait, and end this process in its own way
    else:
        ray.shutdown()


def say_no_goodbye() -> None:
    """Leave the cluster without Ray's own way of it, which a thread that still waits for the cluster would not survive; this process must
    end soon. The cluster sees that it is gone, and ends what it had there."""
    _gone.set()


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

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        if not _gone.is_set():  # nobody may ask Ray while it shuts down
            self._thread.join(_STOP_SECONDS if isinstance(error, stopping.Stopped) else _LOST_SECONDS)

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
            raise MasklakeError(f"{own_ray.no_space(self._folder)}; what was committed stays, run the same command to go on")
        if self._silent > _LOST_SECONDS:
            _gone.set()
            raise ClusterLost("the Ray cluster is gone; what was committed stays, run the same command to go on")

    def _ask(self) -> None:
        while not self._over.wait(_PULSE_SECONDS):
            self._is_full = own_ray.is_full(self._folder)
            try:
                with socket.create_connection(self._control, timeout=5):
                    pass
                nodes = ray.nodes()  # type: ignore[no-untyped-call]
                alive = any(node["NodeID"] == self._node and node["Alive"] for node in nodes)
            except (OSError, RayError):
                alive = False
            self._beats += alive


def batches(dataset: Dataset) -> Iterator[pa.Table]:
    """The blocks of a dataset, each as soon as it is there."""
    with _in_our_words():
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            assert isinstance(batch, pa.Table)
            yield batch


def references(dataset: Dataset) -> Iterator[tuple[Reference, int, int]]:
    """Where the blocks of a dataset are, each as soon as it is there, with its rows and bytes; they stay in the cluster."""
    with _in_our_words():
        for bundle in dataset.iter_internal_ref_bundles():
            for block in bundle.blocks:
                yield block.ref, block.metadata.num_rows or 0, block.metadata.size_bytes or 0


def future_of(function: Callable[..., _Result], pinned: Reference, blocks: Sequence[Reference], **options: Any) -> Future[_Result]:
    """The function of what is at these references, in a task with these options of Ray's.

    The future's exception is a MasklakeError: a task raised it, or the cluster was lost.
    """
    found: Future[_Result] = Future()

    def tell(told: Future[_Result | MasklakeError]) -> None:
        error = told.exception()
        answer = _cause(error) if error else told.result()
        if isinstance(answer, MasklakeError):
            found.set_exception(answer)
        else:
            found.set_result(answer)

    task = _remote().options(name=function.__name__.strip("_"), **options)
    task.remote(function, pinned, *blocks).future().add_done_callback(tell)
    return found


@functools.cache
def _remote() -> Any:
    return ray.remote(_as_values)


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
        task = _remote().options(num_cpus=1)
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

        with _in_our_words():
            for group in groups:
                waiting.append(task.remote(pinned, group))
                collect(most)
            collect(0)
    if not results:
        raise ValueError("there are no groups")
    return results[0]


def _as_values(function: Callable[..., _Result], *arguments: Any) -> _Result | MasklakeError:
    """The job's own exceptions travel as values: Ray's wrapping would say where they were raised, not what is wrong."""
    try:
        return function(*arguments)
    except MasklakeError as error:
        return error


@contextmanager
def _in_our_words() -> Iterator[None]:
    try:
        yield
    except RayError as error:
        raise _cause(error) from error


def _cause(error: BaseException) -> MasklakeError:
    """The job's own exception inside Ray's wrapping, or Ray's as one sentence."""
    current: BaseException | None = error
    while current is not None:
        if isinstance(current, MasklakeError) and not isinstance(current, RayError):  # Ray makes classes that are both, around ours
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
    """Keep what C++ writes straight to stderr from the user; failures come as exceptions. What other threads say meanwhile is shown."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    ours = sys.stderr
    if ours is sys.__stderr__ and ours:  # never closed: another thread may be in the middle of a line
        sys.stderr = open(os.dup(2), "w", buffering=1, encoding=ours.encoding, errors="replace")  # noqa: SIM115, PTH123 - a descriptor
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        sys.stderr = ours
        os.close(kept)
        os.close(nowhere)


def quiet() -> None:
    """Keep Ray Data's own bars and plans out of the user's terminal; progress is ours, from committed rows."""
    warnings.filterwarnings("ignore", "`ray_remote_args_fn` is deprecated", DeprecationWarning)  # pyproject.toml bounds Ray for it
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = _BLOCK_BYTES
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # an error ends the run as an exception, and needs no stack as well
