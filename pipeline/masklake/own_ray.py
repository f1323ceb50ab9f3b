"""A Ray of our own: alone on its machine, with time to start, and ended as fast as whoever stops us wants."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray._private import ray_constants, services
from ray._private.node import psutil  # type: ignore[attr-defined]  # a copy of Ray's own
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from masklake import variables

_LOOK_SECONDS = 0.1
_LEAST_BYTES = 10_000_000  # with less, a local Ray does not start


@contextmanager
def alone() -> Iterator[None]:
    """Let a Ray that is started here listen on loopback only, as `variables` says for its processes, obey nobody without a token of this
    process, and take its time.

    Ray listens on every interface wherever it takes the machine for a possible node of a larger cluster, which on Linux it always does, and
    whoever reaches its ports can run code.
    """
    may_grow, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False  # for this process, which has read its variable
    get_node, services.get_node = services.get_node, _patient(services.get_node)
    Config.initialize("")  # of the C++ side, which read the environment when it was imported
    AuthenticationTokenLoader.instance().reset_cache()
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER, services.get_node = may_grow, get_node
        variables.take_back()
        Config.initialize("")


def _patient(get_node: Callable[..., Any]) -> Callable[..., Any]:
    """Ray's question after a node that it has just started, answered once the node is there. Ray itself waits for ten seconds of it, by its
    setting `raylet_start_wait_time_s`: a larger one would do, but for a raylet that is no more.

    Raises:
        ChildProcessError: it will not be.
        TimeoutError: it is not, after a time that is enough on a busy machine.
    """

    def wait(*asked: Any) -> Any:
        deadline = time.monotonic() + variables.START_SECONDS
        while True:
            try:
                return get_node(*asked)
            except RuntimeError as error:
                if not _has_raylet():
                    raise ChildProcessError("its raylet ended while it started") from error
                if time.monotonic() > deadline:
                    raise TimeoutError(
                        f"its node was not there after {variables.START_SECONDS:.0f} s: "
                        "the machine may be too busy; run the same command again"
                    ) from error
            time.sleep(_LOOK_SECONDS)

    return wait


def _has_raylet() -> bool:
    for child in _children(os.getpid()):
        with suppress(psutil.Error):
            if child.name() == "raylet" and child.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


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


def why_not_started(error: Exception) -> str:
    """As one sentence."""
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or tempfile.gettempdir()  # a full one is passed over by Python only
    if is_full(folder):
        return f"Ray could not start: {no_space(folder)}"
    return f"Ray could not start on this machine: {' '.join(str(error).split())}"


def is_full(folder: str) -> bool:
    """Whether a local Ray could not start for lack of space there."""
    with suppress(OSError):  # what is not there is not full
        return shutil.disk_usage(folder).free < _LEAST_BYTES
    return False


def no_space(folder: str) -> str:
    """What to say then."""
    return f"no space is left in {folder}, where Ray's files go: free some, or name another folder in RAY_TMPDIR"
