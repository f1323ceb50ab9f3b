"""The engine that is this process: the stages in threads beside the model, which has all cores, or the GPU. No Ray is started.

    load threads (each with a decoder's process) -> a queue of bounded length -> the model, two calls at a time -> one thread that writes

On a CPU the model is there twice, with half of the cores each and the same weights in memory: much of a forward, and most of what follows
it, keeps one core busy however many there are (1.5 times the images a second on 2 cores). More than two would wait for the interpreter.

For small work: Ray's start, its workers' and their imports would take longer than the images do.
"""

from __future__ import annotations

import importlib
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pyarrow as pa

from masklake.ordered import in_order
from masklake.segment import patience
from masklake.segment.engine import Flowing, Meter, Resources
from masklake.segment.filling import Fill, Filler, Packet
from masklake.segment.machine import Machine, cores, has_gpus, machine
from masklake.segment.settings import RunConfig
from masklake.segment.stages import Look, Work, load_group, open_segmenter, segment_rows, write_packets

if TYPE_CHECKING:
    from masklake.inference.segmenter import Segmenter

_MOST_LOADERS = 8
_CALLS_AT_ONCE = 2  # of a model, of which one works: rows are made beside the next call
_CPU_MODELS = 2
_ROWS_PER_CALL = 8  # on a CPU, where larger batches gain nothing
_GPU_ROWS = 256  # some batches, also where sizes differ
_WAKE_SECONDS = 0.2  # how often a thread that waits looks whether the work is over


class Local:
    """This process."""

    starting = "starting the model"

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._imported: threading.Thread | None = None

    def start(self) -> None:
        """Begin to import what the model is made of, beside what else is to be done."""
        if self._imported is None:
            self._imported = threading.Thread(target=_import_model_code, name="imports", daemon=True)
            self._imported.start()

    def resources(self, group_rows: int, most_rows: int) -> Resources:
        """The model, or two of it, with all that this machine has.

        Raises:
            Refused: torch does not know the device.
        """
        gpu = has_gpus(self._config)
        on_device = gpu or self._config.device == "mps"
        if on_device:
            from masklake.inference.devices import chosen_device  # torch

            chosen_device("cuda" if gpu else "mps")
        rows_per_call = max(self._config.batch_size or 0, min(most_rows, _GPU_ROWS) if gpu else _ROWS_PER_CALL)
        models = 1 if on_device or self._config.forward == "compiled" else min(_CPU_MODELS, cores())
        return Resources(models, cores() / models, float(gpu), rows_per_call, _CALLS_AT_ONCE)

    def machine(self, work: Work, resources: Resources) -> Machine:
        """This machine."""
        has = {"CPU": resources.actors * resources.cpus_per_actor, "GPU": resources.gpus_per_actor}
        return machine(has, work.device, resources.actors, resources.cpus_per_actor, resources.gpus_per_actor)

    def meter(self, table: str, run_id: str) -> Meter:
        """Nobody scrapes a process without Ray."""
        return lambda totals, oldest: None

    @contextmanager
    def flowing(self, work: Work, resources: Resources) -> Iterator[Flowing]:
        """Start loading at once; the model is loaded beside it."""
        writer = ThreadPoolExecutor(1, "write")
        fill = Fill(self._config.rows_per_file, self._config.commit_seconds)
        filler = Filler[bytes](fill, lambda packets: writer.submit(write_packets, work, packets), at_once=2)
        try:
            with _loading(work) as loading:
                written = filler.written(_packets(work, resources, loading))
                yield Flowing(written, lambda: None, filler.flush, lambda: (loading.taken, filler.sign()), patience.diagnosis_here)
        finally:
            writer.shutdown(wait=True, cancel_futures=True)  # what a write leaves later, nobody would delete

    @contextmanager
    def answering(self, work: Work, resources: Resources, look: Look) -> Iterator[Iterator[bytes]]:
        """The same without writing: the packets of finished rows; `look` is called from the threads that load."""
        with _loading(work, look) as loading:
            yield (packet.content for packet in _packets(work, resources, loading))


def _import_model_code() -> None:
    importlib.import_module("masklake.inference.segmenter")


@contextmanager
def _loading(work: Work, look: Look | None = None) -> Iterator[_Loading]:
    loading = _Loading(work, min(cores(), work.groups, _MOST_LOADERS), look)
    try:
        yield loading
    finally:
        loading.over.set()


class _Loading:
    """Loads all groups, in threads that end once `over` is set or everything is loaded; holds a bounded number of tables."""

    def __init__(self, work: Work, threads: int, look: Look | None) -> None:
        self.over = threading.Event()
        self.taken = 0  # tables
        self._look = look
        self._work, self._groups, self._lock = work, iter(range(work.groups)), threading.Lock()
        self._loaded: queue.Queue[pa.Table | BaseException | None] = queue.Queue(maxsize=2 * threads)
        self._working = threads
        for number in range(threads):
            threading.Thread(target=self._load, name=f"load-{number}", daemon=True).start()

    def calls(self, most_rows: int) -> Iterator[pa.Table]:
        """What is loaded, in tables of at most so many rows: as many as there are, and none that waits where the model could begin.

        Raises:
            BaseException: what loading raised.
        """
        while (table := self._get()) is not None:
            tables = [table]
            while sum(map(len, tables)) < most_rows and not self._loaded.empty():
                if (more := self._get()) is None:
                    self._put(None)  # for the next to see
                    break
                tables.append(more)
            together = pa.concat_tables(tables)
            for first in range(0, len(together), most_rows):
                yield together.slice(first, most_rows)

    def _get(self) -> pa.Table | None:
        while not self.over.is_set():
            with suppress(queue.Empty):
                found = self._loaded.get(timeout=_WAKE_SECONDS)
                if isinstance(found, BaseException):
                    raise found
                self.taken += 1
                return found
        return None

    def _put(self, item: pa.Table | BaseException | None) -> None:
        while not self.over.is_set():
            with suppress(queue.Full):
                self._loaded.put(item, timeout=_WAKE_SECONDS)
                return

    def _next_group(self) -> int | None:
        with self._lock:
            return None if self.over.is_set() else next(self._groups, None)

    def _load(self) -> None:
        try:
            while (index := self._next_group()) is not None:
                for table in load_group(self._work, index, self._look):
                    self._put(table)
                    if self.over.is_set():
                        return
        except BaseException as error:
            self._put(error)
        with self._lock:
            self._working -= 1
            last = not self._working
        if last:
            self._put(None)


def _packets(work: Work, resources: Resources, loading: _Loading) -> Iterator[Packet[bytes]]:
    """Answer what is loaded."""
    segmenter = open_segmenter(work, max(1, int(resources.cpus_per_actor)), resources.actors)
    models = [segmenter, *(segmenter.beside() for _ in range(resources.actors - 1))] if segmenter else [None]
    free: queue.SimpleQueue[Segmenter | None] = queue.SimpleQueue()
    at_once = len(models) * resources.calls_at_once
    for each in models * resources.calls_at_once:
        free.put(each)

    def answer(images: pa.Table) -> bytes:
        model = free.get()
        try:
            return segment_rows(work, model, images)
        finally:
            free.put(model)

    with ThreadPoolExecutor(at_once, "segment") as callers:
        for packet in in_order(answer, loading.calls(resources.rows_per_call), callers, at_once + 1):
            yield Packet(packet, resources.rows_per_call, len(packet))
