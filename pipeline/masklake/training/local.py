"""Training in this process, without Ray: the wiring of `finetune.work` for one worker.

    step and micro-batch numbers -> threads, each with a process that loads and augments (in order, a bounded number ahead) -> train

What a micro-batch holds and what is learned from it are functions of the step: the weights are those of one worker on Ray, on a CPU bit
for bit where it has as many threads. Loading is in processes, since it would take the interpreter's lock from the training.
"""

from __future__ import annotations

import itertools
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from typing import Any

import torch

from masklake import stopping
from masklake.errors import MasklakeError, Refused, first_line
from masklake.inference import devices
from masklake.inference.limits import is_lost
from masklake.isolated import Ended, Isolated
from masklake.ordered import in_order
from masklake.segment.machine import cores
from masklake.training import batches, finetune
from masklake.training.batches import MicroBatch
from masklake.training.finetune import Prepared
from masklake.training.loop import Tell
from masklake.training.settings import FinetuneConfig
from masklake.training.team import Team

_MOST_LOADERS = 8


def run(prepared: Prepared, tell: Tell) -> dict[str, Any]:
    """Train here; returns the last thing told, that of the finished run.

    Raises:
        Refused: a GPU is asked for that is not there.
        MasklakeError: training cannot go on.
        Stopped: after the state was saved.
    """
    settings = prepared.settings
    last: dict[str, Any] = {}
    device = _device(settings)
    threads = settings.cpus_per_worker or max(1, cores() - 1)  # as on Ray, and so the same bits
    loaders = max(1, min(cores() - (1 if device.type == "cuda" else threads), _MOST_LOADERS, settings.steps * settings.micros))

    def keep(line: dict[str, Any]) -> None:
        last.clear()
        last.update(line)
        tell(line)

    computing = devices.threads(threads) if device.type == "cpu" else nullcontext()
    with _Loaders(prepared, loaders) as loading, computing, ExitStack() as held:

        def feed(first: int) -> Iterator[MicroBatch]:
            made = loading.feed(first)
            begun = [*itertools.islice(made, 1)]
            held.enter_context(stopping.held())  # until now, a stop finds nothing to save, and ends the process at once
            yield from itertools.chain(begun, made)

        try:
            finetune.work(prepared, list(prepared.held_out.examples), feed, Team(), keep, stopping.requested, device)
        except RuntimeError as error:
            if not is_lost(error):
                raise
            raise MasklakeError(f"the GPU is lost ({first_line(error)}); run the same command to go on") from error
    return last


def _device(settings: FinetuneConfig) -> torch.device:
    """The GPU where there is one, and it is not declined."""
    if settings.gpus_per_worker == 0:
        return torch.device("cpu")
    found = finetune.best_device()
    if settings.gpus_per_worker and found.type == "cpu":
        raise Refused(f"--gpus-per-worker {settings.gpus_per_worker:g}: torch finds no GPU on this machine: leave it out, or give 0")
    return found


class _Loaders:
    """Makes micro-batches in `count` processes, which are started as they are needed and end with the context."""

    def __init__(self, prepared: Prepared, count: int) -> None:
        self._prepared, self._count = prepared, count
        self._threads = ThreadPoolExecutor(count, "load")
        self._idle: list[Isolated[MicroBatch | MasklakeError]] = []
        self._lock, self._over = threading.Lock(), False

    def __enter__(self) -> _Loaders:
        return self

    def __exit__(self, *reason: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)  # who stops a job does not wait for a slow store
        with self._lock:
            self._over, idle = True, self._idle
        for process in idle:
            process.close()

    def feed(self, first: int) -> Iterator[MicroBatch]:
        """The micro-batches from step `first` on.

        Raises:
            MasklakeError: one cannot be made.
        """
        settings = self._prepared.settings
        wanted = ((step, index) for step in range(first, settings.steps) for index in range(settings.micros))
        return in_order(lambda place: self._made(*place), wanted, self._threads, self._count + 1)

    def _made(self, step: int, index: int) -> MicroBatch:
        recipe, training = self._prepared.recipe, self._prepared.training
        positions = batches.places(recipe, step, index)
        chosen = [training.examples[each] for each in batches.examples_at(len(training.examples), recipe, positions)]
        made = self._by_a_process(pickle.dumps((recipe, positions, chosen, training.reader.load)))
        if isinstance(made, MasklakeError):
            raise made
        if isinstance(made, Ended):
            images = ", ".join(example.image for example in chosen)
            raise MasklakeError(f"the process that loads examples ended twice at {images}: there may be too little memory")
        return made

    def _by_a_process(self, data: bytes) -> MicroBatch | MasklakeError | Ended:
        with self._lock:
            process = self._idle.pop() if self._idle else Isolated(batches.make_packed, trusted=True)
        try:
            return process(data, None)
        finally:
            with self._lock:
                if self._over:
                    process.close()
                else:
                    self._idle.append(process)
