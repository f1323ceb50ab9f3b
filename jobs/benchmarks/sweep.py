"""What lowers the bare forward on a CPU: threads, memory format, bfloat16, torch.compile, and processes beside each other.

Every variant sees the same picture; they take turns in rounds. A variant that this machine cannot run is left out with the reason.
"""

from __future__ import annotations

import copy
import multiprocessing
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from jobs.benchmarks import models as benchmark_models
from jobs.benchmarks.contestants import Bench
from masklake.inference import checkpoint
from masklake.inference.families import ClassMap
from masklake.inference.options import Options
from masklake.inference.preprocess import Size
from masklake.inference.segmenter import Segmenter

_SIDE_BY_SIDE_SECONDS = 20.0


@dataclass(frozen=True)
class Variant:
    """One way to run the forward."""

    threads: int
    channels_last: bool = True
    dtype: torch.dtype = torch.float32
    compiled: bool = False

    @property
    def name(self) -> str:
        """For a table's row."""
        words = [
            f"{self.threads} thread{'s' * (self.threads > 1)}",
            "channels last" if self.channels_last else "contiguous",
            str(self.dtype).removeprefix("torch."),
        ]
        return ", ".join(words + ["torch.compile"] * self.compiled)


def sweep(folder: Path, size: Size, rounds: int) -> dict[str, Any]:
    """Time the forward of the checkpoint in `folder` on a picture of `size` in every variant; prints a table, returns its figures."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    bench = _load(folder, size)
    runs: dict[Variant, Callable[[], torch.Tensor]] = {}
    left_out: dict[str, str] = {}
    for variant in _variants(cores):
        try:
            runs[variant] = _prepare(bench, variant)
        except Exception as error:  # a compiler may be missing, a kernel may not exist
            left_out[variant.name] = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
    taken: dict[Variant, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for variant, run in runs.items():
            taken[variant].append(_seconds(variant, run))
    results = _compare(runs, {variant: statistics.median(times) for variant, times in taken.items()})
    _print(results, left_out)
    return {"variants": results, "left_out": left_out, "side_by_side": _side_by_side(folder, size, cores)}


def _variants(cores: int) -> list[Variant]:
    """The one that a worker uses comes first."""
    threads = dict.fromkeys((cores, 1))
    formats = [(True, torch.float32), (False, torch.float32), (True, torch.bfloat16), (False, torch.bfloat16)]
    found = [Variant(count, last, dtype) for count in threads for last, dtype in formats]
    return [*found, *[Variant(count, True, torch.float32, compiled=True) for count in threads]]


def _load(folder: Path, size: Size) -> Bench:
    description = checkpoint.describe(folder, Options(tasks=()))
    segmenter = Segmenter.load(folder, description, "cpu", "float32")
    return Bench(segmenter, benchmark_models.scenes(size, 1), description.tasks[:1], 1)


def _prepare(bench: Bench, variant: Variant) -> Callable[[], torch.Tensor]:
    """The variant's forward, warm; returns one of the model's answers."""
    torch.set_num_threads(variant.threads)
    memory = torch.channels_last if variant.channels_last else torch.contiguous_format
    module = copy.deepcopy(bench.segmenter.module).to(dtype=variant.dtype, memory_format=memory)
    (values,) = bench.batches
    values = values.to(variant.dtype).contiguous(memory_format=memory)
    if variant.compiled:
        torch._dynamo.reset()
        module.forward = torch.compile(module.forward)

    def run() -> torch.Tensor:
        with torch.inference_mode():
            answer = bench.segmenter.family.run(module, values, bench.tasks)[bench.tasks[0]]
        return (answer.logits if isinstance(answer, ClassMap) else answer.mask_logits).float()

    run()
    return run


def _seconds(variant: Variant, run: Callable[[], torch.Tensor]) -> float:
    torch.set_num_threads(variant.threads)
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _compare(runs: dict[Variant, Callable[[], torch.Tensor]], taken: dict[Variant, float]) -> list[dict[str, Any]]:
    """Seconds, speed against the first variant, and the share of logits whose sign, and with it a mask's pixel, is another."""
    first = next(iter(runs))
    expected = runs[first]() > 0
    rows = []
    for variant, run in runs.items():
        torch.set_num_threads(variant.threads)
        changed = float(((run() > 0) != expected).float().mean())
        rows.append({"variant": variant.name, "seconds": taken[variant], "speed": taken[first] / taken[variant], "changed_signs": changed})
    return rows


def _side_by_side(folder: Path, size: Size, cores: int) -> list[dict[str, Any]]:
    """Images per second of all cores when 1 process uses all, and when as many processes use one thread each."""
    rows = []
    context = multiprocessing.get_context("spawn")
    for processes in dict.fromkeys((1, cores)):
        ready = context.Barrier(processes)
        counts: Any = context.Queue()
        arguments = (folder, size, cores // processes, ready, counts)
        workers = [context.Process(target=_work, args=arguments) for _ in range(processes)]
        for worker in workers:
            worker.start()
        rate = sum(counts.get() for _ in workers)
        for worker in workers:
            worker.join()
        rows.append({"processes": processes, "threads": cores // processes, "images_per_second": rate})
        print(f"{processes} processes with {cores // processes} threads each: {rate:.3f} images/s")
    return rows


def _work(folder: Path, size: Size, threads: int, ready: Any, counts: Any) -> None:
    """One process: forwards for a while, beginning together with the others."""
    torch.set_num_threads(threads)
    bench = _load(folder, size)
    bench.forward(bench.tasks)
    ready.wait()
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < _SIDE_BY_SIDE_SECONDS:
        bench.forward(bench.tasks)
        count += 1
    counts.put(count / (time.perf_counter() - started))


def _print(rows: list[dict[str, Any]], left_out: dict[str, str]) -> None:
    print(f"\n{'bare forward on the CPU':<52}{'ms':>9}{'speed':>8}{'changed signs':>15}")
    for row in rows:
        print(f"{row['variant']:<52}{row['seconds'] * 1000:>9.1f}{row['speed']:>8.2f}{row['changed_signs']:>15.5%}")
    for name, reason in left_out.items():
        print(f"{name:<52} left out: {reason}")
