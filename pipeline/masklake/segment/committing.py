"""From the flow into the table: what was written is committed every few seconds, counted and told."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator

from masklake import stopping
from masklake.errors import Stalled
from masklake.segment.account import Account
from masklake.segment.engine import Flowing
from masklake.segment.patience import Watchdog
from masklake.segment.progress import State
from masklake.segment.settings import Config
from masklake.segment.stages import Written
from masklake.table.append import Table
from masklake.table.write import FileRecord

_MOST_AT_STOP = 64  # writes
_STOP_SECONDS = 1.0  # for those that are under way
_REST = 5  # times as long as a commit took before the next one: delta-rs looks at every file of the table for each
_WAKE_SECONDS = 0.5  # how often the driver looks at the clock while it waits for files


class Committing:
    """Commits the files of a flow to a table. What a write returned is committed whole, so an image's rows are."""

    def __init__(self, config: Config, table: Table, account: Account, tell: Callable[[State], None]) -> None:
        self._config, self._table, self._account, self._tell = config, table, account, tell
        self._watchdog = Watchdog(60 * config.stall_minutes)

    def stream(self, flowing: Flowing, show: Callable[[], None], beside: Callable[[list[FileRecord]], None]) -> None:
        """Commit until the flow is over, or a stop is asked for.

        Args:
            flowing: what comes of the flow.
            show: called after each look.
            beside: called with the files of the last commit before it is made, unless the run is stopped.

        Raises:
            Stalled: nothing has happened for too long.
            Fenced: a newer run took over.
        """
        written = _in_background(flowing.written)
        pending: list[Written] = []
        first_at, committed_at, took, warm = time.monotonic(), time.monotonic(), 0.0, 0
        for part in written:
            if part is not None:
                pending.append(part)
            if stopping.requested():
                pending += _arrived(written, flowing.flush)
                break
            flowing.check()
            now = time.monotonic()
            if still := self._watchdog.check(object() if part is not None else flowing.sign(), now):
                raise Stalled(flowing.diagnose(still))
            if now - committed_at >= max(self._config.commit_seconds, _REST * took):
                if pending:
                    self._commit(pending)
                else:
                    self._table.refuse_if_fenced()  # whoever took over waits for our actors' GPUs
                pending, committed_at = [], time.monotonic()
                took = committed_at - now
                if not warm:  # the model's start is over: from here on the rate means something
                    first_at, warm = committed_at, self._account.totals.images
            self._tell(self._state(now - first_at, warm))
            show()
        else:
            beside([record for part in pending for record in part.records])
        self._commit(pending)
        show()
        self._tell(self._state(time.monotonic() - first_at, warm))

    def _commit(self, pending: list[Written]) -> None:
        started = time.monotonic()
        self._table.commit([record for part in pending for record in part.records])
        totals = self._account.totals
        for part in pending:
            totals = totals.count_images(part.images, part.failed)
            totals = totals.worked(part.busy_seconds, part.halvings, part.read_bytes)
            if part.began is not None:
                totals = totals.began(part.began.at - self._account.started, part.began.images)
            for record in part.records:
                totals = totals.merge(record)
        totals = totals.spend("commit", time.monotonic() - started)
        self._account.totals = totals.committed(self._account.seconds()) if pending else totals

    def _state(self, seconds: float, warm: int) -> State:
        totals = self._account.totals
        phase = "segmenting" if totals.images else "starting the model"
        return State(phase, totals.planned_images, totals.images, totals.failed_images, seconds, warm)


def _arrived(written: Iterator[Written | None], flush: Callable[[], bool]) -> Iterator[Written]:
    """What lies ready, and what is written within a second; no more than a bounded number, however soon others come."""
    more, ends = flush(), time.monotonic() + _STOP_SECONDS
    for part in itertools.islice(written, _MOST_AT_STOP):
        if part is not None:
            yield part
        elif not (more := more and flush()):
            return
        if time.monotonic() > ends:
            return


def _in_background(parts: Iterator[Written]) -> Iterator[Written | None]:
    """The same parts, with None whenever nothing came for a while: the driver can commit and tell while it waits."""
    arrived: queue.Queue[Written | BaseException | None] = queue.Queue(maxsize=64)

    def pump() -> None:
        try:
            for part in parts:
                arrived.put(part)
            arrived.put(None)
        except BaseException as error:
            arrived.put(error)

    threading.Thread(target=pump, name="flow", daemon=True).start()
    while True:
        try:
            part = arrived.get(timeout=_WAKE_SECONDS)
        except queue.Empty:
            yield None
            continue
        if part is None:
            return
        if isinstance(part, BaseException):
            raise part
        yield part
