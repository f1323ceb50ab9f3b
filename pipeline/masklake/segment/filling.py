"""How much goes into one write: what the model answered is gathered, from all actors, until it fills a file or has waited long enough.

A file of a few megabytes is slow to read and a line in the table's log for ever; work that waits to be written is lost with the driver. So
a write begins as soon as it makes files of `FILE_BYTES`, and before that when its first rows have waited: `--commit-seconds` at first,
later a sixteenth of the time that the run has been at it, up to a minute. A fast run's files are large from the start; a slow one's grow
with what there is to lose.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from masklake.segment.patience import StageSign
from masklake.segment.stages import Began, Written
from masklake.spelling import plural

FILE_BYTES = 64 * 1024 * 1024
"""Of a file that is large enough, as it is stored."""

_WRITE_BYTES = 192 * 1024 * 1024  # of packets in one write, which are in its process's memory two or three times
_LONGEST_SECONDS = 60.0
_SHARE = 16  # of the run's time may be at risk
_SHRUNK = 0.5  # of packets' bytes as files, before anything is known
_TICK_SECONDS = 0.1
_AHEAD = 16  # packets that have come and are not looked at

P = TypeVar("P")


@dataclass(frozen=True)
class Packet(Generic[P]):
    """Finished rows of about so many images, or where they are."""

    content: P
    images: int
    size: int
    """Bytes."""


class Fill:
    """Tells when what is gathered is enough for a write; learns from the files how much that is."""

    def __init__(self, images: int | None, least_seconds: float) -> None:
        """Decide by the number of images where one is given, else by bytes and time.

        Args:
            images: of one write.
            least_seconds: that rows may wait at the start of a run.
        """
        self._images, self._least = images, least_seconds
        self._began: float | None = None
        self._packed, self._stored, self._files, self._writes = 0, 0, 0, 0

    def __str__(self) -> str:
        """In words."""
        if self._images:
            return f"a file holds {plural(self._images, 'row')} (--rows-per-file), before partitioning"
        return (
            f"a file is written at {FILE_BYTES >> 20} MB, or when its first rows have waited {self._least:g} s, "
            f"later up to {max(self._least, _LONGEST_SECONDS):g} s"
        )

    def enough(self, images: int, size: int, since: float, now: float) -> bool:
        """Whether so many images, of so many bytes as packets, of which the first came at `since`, are to be written at `now`."""
        self._began = since if self._began is None else self._began
        if self._images:
            return images >= self._images
        longest = max(self._least, min(_LONGEST_SECONDS, (since - self._began) / _SHARE))
        return now - since >= longest or size >= _WRITE_BYTES or size * self._file_share() >= FILE_BYTES

    def learn(self, packed: int, sizes: Sequence[int]) -> None:
        """What became of a write's packets: the sizes of its files."""
        self._packed += packed
        self._stored += sum(sizes)
        self._files += len(sizes)
        self._writes += 1

    def _file_share(self) -> float:
        """The bytes of a file for each byte of a write's packets."""
        if not (self._packed and self._files):
            return _SHRUNK
        return self._stored / self._packed * self._writes / self._files


class Filler(Generic[P]):
    """Gathers packets and has them written, some writes at a time."""

    def __init__(self, fill: Fill, write: Callable[[list[P]], Future[Written]], at_once: int) -> None:
        self._fill, self._write, self._at_once = fill, write, at_once
        self._gathered: list[P] = []
        self._images, self._size, self._began = 0, 0, Began(0.0, 0)
        self._under_way: deque[tuple[int, Began, Future[Written]]] = deque()
        self._finished = 0
        self._flush = threading.Event()

    def flush(self) -> bool:
        """Have what is gathered written now, from another thread; whether anything is under way then."""
        self._flush.set()
        return bool(self._gathered or self._under_way)

    def sign(self) -> StageSign:
        """How far the writing is."""
        return StageSign("write", len(self._under_way), self._finished, len(self._gathered))

    def written(self, packets: Iterator[Packet[P]]) -> Iterator[Written]:
        """Each write as soon as it is done, in no order.

        Raises:
            BaseException: what the packets' iterator, or a write, raised.
        """
        arrived, over = queue.Queue[Packet[P] | BaseException | None](maxsize=_AHEAD), threading.Event()
        threading.Thread(target=_pump, args=(packets, arrived, over), name="packets", daemon=True).start()
        try:
            while self._take(arrived):
                yield from self._done()
            self._start()
            while self._under_way:
                wait([future for *_, future in self._under_way], _TICK_SECONDS, FIRST_COMPLETED)
                yield from self._done()
        finally:
            over.set()

    def _take(self, arrived: queue.Queue[Packet[P] | BaseException | None]) -> bool:
        """Wait a moment for a packet, or for room; False when there are no more."""
        if len(self._under_way) >= self._at_once:
            wait([future for *_, future in self._under_way], _TICK_SECONDS, FIRST_COMPLETED)
            return True
        try:
            packet = arrived.get(timeout=_TICK_SECONDS)
        except queue.Empty:
            pass
        else:
            if packet is None:
                return False
            if isinstance(packet, BaseException):
                raise packet
            self._began = self._began if self._gathered else Began(time.monotonic(), packet.images)
            self._gathered.append(packet.content)
            self._images, self._size = self._images + packet.images, self._size + packet.size
        if self._flush.is_set() or (self._gathered and self._fill.enough(self._images, self._size, self._began.at, time.monotonic())):
            self._start()
        return True

    def _start(self) -> None:
        if self._gathered:
            self._under_way.append((self._size, self._began, self._write(self._gathered)))
            self._gathered, self._images, self._size = [], 0, 0

    def _done(self) -> Iterator[Written]:
        for packed, began, future in [each for each in self._under_way if each[-1].done()]:
            self._under_way.remove((packed, began, future))
            self._finished += 1
            written = future.result()
            self._fill.learn(packed, [record.size for record in written.records])
            yield replace(written, began=began)


def _pump(packets: Iterator[Packet[P]], arrived: queue.Queue[Packet[P] | BaseException | None], over: threading.Event) -> None:
    def put(item: Packet[P] | BaseException | None) -> None:
        while not over.is_set():
            with suppress(queue.Full):
                arrived.put(item, timeout=_TICK_SECONDS)
                return

    try:
        for packet in packets:
            put(packet)
            if over.is_set():
                return
        put(None)
    except BaseException as error:
        put(error)
