"""A Ray session that starts beside other work, in a thread of its own: images are listed meanwhile, and a stop is taken at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, ExitStack, nullcontext
from types import TracebackType
from typing import TypeVar

from masklake import leaving, variables
from masklake.addresses import LOCAL, target_of

_Entered = TypeVar("_Entered")


class Session:
    """`cluster.cluster`, begun when somebody says so, until this context manager is left.

    Where the process ends with its job, nobody waits for a start that is still under way, for what it has started ends with the process;
    nor for the good end of a Ray of our own: its processes are killed, after the last line where the work was done.
    """

    def __init__(self, address: str | None, lean_data: bool = True) -> None:
        """`lean_data`: a Ray of our own does without all that `lean` knows, for datasets that run one after the other."""
        self._address, self._lean_data = address, lean_data
        self._opened = ExitStack()
        self._resources: Future[dict[str, float]] = Future()
        self._thread: threading.Thread | None = None
        self._over = threading.Event()
        self._end_at_once: Callable[[], None] | None = None  # where it is our own
        self._end_start: Callable[[], None] = lambda: None

    def begin(self) -> None:
        """Begin to start Ray, or to join the cluster; may be said again."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._open, name="ray", daemon=True)
            self._thread.start()

    def resources(self) -> dict[str, float]:
        """What the cluster has, once it is there.

        Raises:
            Refused: there is no cluster at the address.
            MasklakeError: a local Ray could not be started.
        """
        self.begin()
        return self._resources.result()

    def enter(self, context: AbstractContextManager[_Entered]) -> _Entered:
        """Enter what needs the cluster, and leave it before that goes."""
        return self._opened.enter_context(context)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._thread is None:
            return
        if leaving.is_with_job() and not self._resources.done():
            leaving.finally_do(self._end_start)
            return
        wait([self._resources])
        if leaving.is_with_job() and self._end_at_once:
            if kind is None:
                leaving.finally_do(self._end_at_once)
            else:
                self._end_at_once()  # nothing may be written after what the run does at its end
            return
        try:
            self._opened.__exit__(kind, error, trace)
        finally:
            self._over.set()

    def _open(self) -> None:
        try:
            variables.prepare(self._address, self._lean_data)  # where whoever began did not
            from masklake import cluster, own_ray  # which take seconds to be imported
            from masklake.segment import lean

            self._end_start = own_ray.end_children
            ours = target_of(self._address) == LOCAL
            with lean.starting() if ours and self._lean_data else nullcontext():
                resources = self._opened.enter_context(cluster.cluster(self._address))
            if ours:
                if self._lean_data:
                    self._opened.enter_context(lean.data())
                self._end_at_once = own_ray.end_at_once
            self._resources.set_result(resources)
        except BaseException as error:
            self._resources.set_exception(error)
        self._over.wait()  # Linux ends a process whose parent's thread ends, where that asked for it: Ray's processes do
