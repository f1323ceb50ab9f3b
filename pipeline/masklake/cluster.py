"""The Ray session: joining or starting a cluster, whether it lives, and its errors as one sentence.

Knows nothing of images and tables.
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import re
import secrets
import shutil
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from types import TracebackType
from typing import Any, TypeAlias, TypeVar

import pyarrow as pa

# After an interruption, threads that still wait for results must not start another Ray behind our back; read when ray is imported.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
import ray
from ray._private import ray_constants
from ray._private.node import psutil  # type: ignore[attr-defined]  # a copy of Ray's own
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]
from ray.data import DataContext, Dataset
from ray.exceptions import RayError

from masklake import pandas_later, stopping
from masklake.errors import MasklakeError, Refused, one_line
from masklake.storage.places import VARIABLE as PLACES

pandas_later.let_pyarrow_know()

_OUR_ERROR = re.compile(r"masklake\.[\w.]*\.(?P<name>\w+): (?P<message>.+)")
_ERROR_LINE = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Exit|Refused)\b.*: ")
_LEAST_BYTES = 10_000_000  # with less, a local Ray does not start
_PULSE_SECONDS = 2.0
_LOST_SECONDS = 40.0  # less than the minute after which Ray would end this process without a word
_KNOCKS = (0.5, 1.5)  # seconds between attempts to reach a cluster
_GREETING_SECONDS = 15.0  # a busy head may take some
_OTHER_VERSION = "Version mismatch"  # as Ray begins to say it
_TLS = "RAY_USE_TLS"  # then nobody greets in the open
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
    # Ray's C++ side writes what it thinks of actors to the user's stderr; what ends a run reaches us as an exception.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # A local Ray would end a worker that idles for a second, between two writes say; the next costs seconds of Python's imports.
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "60000")
    # On one CPU, Ray's count is raised: loading and the model then take turns.
    settings: dict[str, Any] = {"include_dashboard": False, "num_cpus": max(2, os.cpu_count() or 2)} if target == "local" else {}
    elsewhere = {name: os.environ[name] for name in (PLACES,) if name in os.environ}
    if elsewhere and target != "local":  # workers of a local Ray have this process's environment
        settings["runtime_env"] = {"env_vars": elsewhere}
    with _among_ourselves() if target == "local" else nullcontext():
        yield from _joined(target, settings)


def _joined(target: str, settings: dict[str, Any]) -> Iterator[dict[str, float]]:
    _refuse_closed(target)
    try:
        with _muffled():
            ray.init(address=target, logging_level=logging.ERROR, log_to_driver=False, **settings)
    except Exception as error:  # Ray raises bare ones, too, as when its node is slow to start
        if target == "local":
            raise MasklakeError(_why_not_started(error)) from None
        raise Refused(f"--ray-address {target}: {_why_not_joined(error)}") from None
    at_once = False
    try:
        stopping.listen()  # Ray has put handlers of its own in place, which end the process in the middle of a line
        with redirect_stdout(sys.stderr):  # where Ray prints what befell its workers: stdout is for lines of JSON
            yield dict(ray.cluster_resources())  # type: ignore[no-untyped-call]
    except stopping.Stopped:
        at_once = target == "local"
        raise
    finally:
        _end(at_once)


def _why_not_joined(error: Exception) -> str:
    """What Ray says in many lines, as one sentence."""
    said = one_line(error)
    if _OTHER_VERSION in said:
        return f"the cluster has another version of Ray or Python than this driver: install the same here ({said})"
    return (
        f"no Ray cluster answers there: {said}; name the head's port, often 6379, and where the cluster wants a token, "
        "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH"
    )


def _refuse_closed(target: str) -> None:
    """Look whether anybody listens there: Ray itself would ask for minutes, and take no stop meanwhile.

    Raises:
        Refused: nobody does.
    """
    if target.startswith(("http://", "https://")):
        raise Refused(
            f"--ray-address {target}: this is the dashboard's, for `ray job submit --address`; a driver joins at the port of the head's "
            "control store, such as 10.0.0.1:6379"
        )
    host, _, port = target.removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        return  # a word of Ray's, such as `auto`
    for wait in (*_KNOCKS, None):
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=5) as asked:
                if _TLS not in os.environ and not _speaks_grpc(asked):
                    raise Refused(
                        f"--ray-address {target}: something listens there, but it is not a Ray cluster: name the head's port, often 6379"
                    )
                return
        except (OSError, OverflowError) as error:
            if wait is None:
                raise Refused(
                    f"--ray-address {target}: no Ray cluster answers there: {getattr(error, 'strerror', None) or error}"
                ) from None
            time.sleep(wait)


def _speaks_grpc(asked: socket.socket) -> bool:
    """Whether a server greets as HTTP/2 does, with a frame of its settings (RFC 9113, 3.4): others would let Ray wait for minutes."""
    asked.settimeout(_GREETING_SECONDS)
    try:
        asked.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + bytes([4]) + bytes(5))
        head = b""
        while len(head) < 9 and (more := asked.recv(9 - len(head))):
            head += more
    except OSError:
        return False
    return len(head) == 9 and head[3] == 4


@contextmanager
def _among_ourselves() -> Iterator[None]:
    """Let a Ray that is started here listen on loopback only, and obey nobody without a token of this process.

    Ray listens on every interface wherever it takes the machine for a possible node of a larger cluster, which on Linux it always does, and
    whoever reaches its ports can run code. Where the user set how Ray knows its clients (`RAY_AUTH_MODE`), that stays.
    """
    settings = {ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}  # for the processes that are started
    if "RAY_AUTH_MODE" not in os.environ:
        settings |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    before = {name: os.environ.get(name) for name in settings}
    may_grow, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False  # for this one, which has read it
    os.environ.update(settings)
    Config.initialize("")  # of the C++ side, which read the environment when it was imported
    AuthenticationTokenLoader.instance().reset_cache()
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = may_grow
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        Config.initialize("")


def _end(at_once: bool) -> None:
    """Leave the cluster; `at_once`, where it is our own and whoever stops us will not wait for its good end."""
    if at_once:
        end_at_once()
    elif _gone.is_set():
        atexit.unregister(ray.shutdown)  # nobody is there to say goodbye to: it would wait, and end this process in its own way
    else:
        ray.shutdown()


def say_no_goodbye() -> None:
    """Leave the cluster without Ray's own way of it, which a thread that still waits for the cluster would not survive; this process must
    end soon. The cluster sees that it is gone, and ends what it had there."""
    _gone.set()


def end_at_once() -> None:
    """Kill a Ray of our own, its workers included; this process must end soon."""
    atexit.unregister(ray.shutdown)
    node = ray._private.worker.global_worker.node
    if not node:
        return
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - to the end: a thread of Ray's would print that it ends
    started = [process for _, process in node.live_processes()]
    below = [child for process in started for child in _children(process.pid)]
    node.kill_all_processes(check_alive=False, allow_graceful=False)
    for child in below:  # workers, which would notice by themselves, in their own time
        with suppress(psutil.Error):
            child.kill()


def end_children() -> None:
    """Kill all that this process has started, as a Ray that is only starting; it must end now.

    The kernel would end a control store and a raylet by itself, but for a minute not the raylet's agents.
    """
    for child in _children(os.getpid()):
        with suppress(psutil.Error):
            child.kill()


def _children(pid: int) -> list[Any]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.Error:  # it is over
        return []


def _why_not_started(error: Exception) -> str:
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or tempfile.gettempdir()  # a full one is passed over by Python only
    if _is_full(folder):
        return f"Ray could not start: {_no_space(folder)}"
    return f"Ray could not start on this machine: {' '.join(str(error).split())}"


def _is_full(folder: str) -> bool:
    with suppress(OSError):  # what is not there is not full
        return shutil.disk_usage(folder).free < _LEAST_BYTES
    return False


def _no_space(folder: str) -> str:
    return f"no space is left in {folder}, where Ray's files go: free some, or name another folder in RAY_TMPDIR"


def target_of(address: str | None) -> str:
    return address or os.environ.get("RAY_ADDRESS") or "local"


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
