"""Images a second: transformers' bare forward, ours, everything to run lengths, and transformers' own way, beside each other."""

from __future__ import annotations

import cProfile
import gc
import pstats
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.profiler import ProfilerActivity, profile

from jobs.benchmarks import models
from jobs.benchmarks.contestants import Bench
from jobs.benchmarks.gpu import part
from jobs.benchmarks.gpu.part import Asked
from jobs.benchmarks.models import PRESETS, Pixels
from masklake.inference import checkpoint, constants, half_precision, preprocess
from masklake.inference.options import Options
from masklake.inference.preprocess import Size
from masklake.inference.segmenter import ModelInput, Segmenter

_CALLERS = ThreadPoolExecutor(2)  # kept, as an actor's are: a thread's first kernels take a while
_KEPT = 25
_ROUNDS = 3
_SIZES: dict[str, Size] = {"640x480": (480, 640), "1920x1080": (1080, 1920), "4000x3000": (3000, 4000)}
_ALL = ("panoptic", "instance", "semantic")


@dataclass(frozen=True)
class Case:
    """A model, how many images it takes at a time, other sizes of batch to try, and the originals."""

    model: str
    batch: int
    batches: Sequence[int]
    sizes: Sequence[str]


CASES = (
    Case("mask2former-swin-tiny-384", 32, (1, 8, 16, 64), ("640x480", "1920x1080", "4000x3000")),
    Case("mask2former-swin-large-800", 8, (1, 2, 4), ("640x480", "1920x1080")),
    Case("oneformer-swin-large-800", 8, (1, 4), ("640x480",)),
    Case("eomt-large-640", 16, (1, 4), ("640x480", "1920x1080")),
)


@dataclass(frozen=True)
class _Loaded:
    """One model three times: as an actor runs it but eagerly, as transformers alone would, and from CUDA graphs."""

    ours: Segmenter
    theirs: Segmenter
    graphs: Segmenter


_held: dict[str, _Loaded] = {}


def _loaded(asked: Asked, case: Case) -> tuple[_Loaded, int]:
    """The model of a case, which replaces the one before it in memory unless it is small, and how many images it takes."""
    batch = 2 if asked.small else case.batch
    if case.model not in _held:
        if not asked.small:
            _held.clear()
        gc.collect()
        torch.cuda.empty_cache()
        _held[case.model] = _load(asked, case.model, batch)
    return _held[case.model], batch


def _load(asked: Asked, name: str, batch: int) -> _Loaded:
    folder = models.write(models.shrunk(PRESETS[name]) if asked.small else PRESETS[name], asked.scratch / name, asked.device)
    tasks = _ALL if asked.device == "cuda" else ("panoptic",)
    description = checkpoint.describe(folder, Options(tasks=tasks))
    dtype = "bfloat16" if asked.device == "cuda" else "float32"
    ours = Segmenter.load(folder, description, asked.device, dtype, batch)
    models.teach(ours, [models.patchwork((480, 640), _KEPT, seed) for seed in range(2 if asked.small else 8)])
    graphs = Segmenter.load(folder, description, asked.device, dtype, batch, forward="auto")
    with _plain():
        theirs = Segmenter.load(folder, description, asked.device, dtype, batch)
    for other in (theirs, graphs):
        other.module.load_state_dict(ours.module.state_dict())
    for one in (ours, graphs):
        one.compact = asked.device == "cuda"  # as an actor's is: strings are made where files are written
    return _Loaded(ours, theirs, graphs)


def _of_size(case: Case, size: str) -> part.Measurement:
    """Everything of originals of a size, beside the forward alone."""

    def measure(asked: Asked) -> dict[str, Any]:
        loaded, batch = _loaded(asked, case)
        pixels = (48, 64) if asked.small else _SIZES[size]
        found = _at(asked, loaded, pixels, batch)
        found["ms an image by stage"] = _stages(loaded.ours, pixels, batch)
        if asked.device == "cuda":
            found["GiB reserved at most"] = round(torch.cuda.max_memory_reserved() / 2**30, 2)
        return found

    return measure


def _details(case: Case) -> part.Measurement:
    """The forward alone by size of batch, of transformers and ours; and where a call's time goes."""

    def measure(asked: Asked) -> dict[str, Any]:
        loaded, batch = _loaded(asked, case)
        counts = [1, 2] if asked.small else [*case.batches, batch]
        values = inputs_of(loaded.ours, (480, 640), max(counts))
        found: dict[str, Any] = {}
        for count in counts:
            work = [partial(forward, one, values[:count]) for one in (loaded.theirs, loaded.ours)]
            found[f"forward alone, ms an image in batches of {count}"] = [round(timed(one, asked.device) * 1000 / count, 2) for one in work]
        if asked.device == "cuda":
            found["kernels of a call"] = _kernels(loaded.ours, (480, 640), batch, ("panoptic",))
            found["kernels of a call, all tasks"] = _kernels(loaded.ours, (480, 640), batch, _ALL)
        return found

    return measure


@contextmanager
def _plain() -> Iterator[None]:
    """Loading a model in half precision as a cast alone makes it: what a user of transformers runs."""
    own = half_precision.cast, constants.make_once
    half_precision.cast, constants.make_once = lambda module, dtype: module.to(dtype=dtype), lambda module: None
    try:
        yield
    finally:
        half_precision.cast, constants.make_once = own


def _at(asked: Asked, loaded: _Loaded, size: Size, batch: int) -> dict[str, Any]:
    """Milliseconds an image of ours, transformers' and ours by CUDA graphs: medians of rounds in turn, and ratios within the rounds."""
    ours, theirs, graphs = loaded.ours, loaded.theirs, loaded.graphs
    pictures = [_picture(size, seed) for seed in range(2 if asked.small else 4)]
    resized = [preprocess.resize(one, ours.description.resize) for one in pictures]
    values = inputs_of(ours, size, batch)
    calls, tasks = (1 if asked.small else 2 if size[0] > 2000 else 4), ours.description.tasks
    rounds: dict[str, list[float]] = {}
    contestants: dict[str, tuple[Callable[[], object], int]] = {
        "transformers' forward": (lambda: forward(theirs, values, calls), calls * batch),
        "our forward": (lambda: forward(ours, values, calls), calls * batch),
        "our forward, graphs": (lambda: forward(graphs, values, calls), calls * batch),
    }
    for wanted in [("panoptic",), tasks] if len(tasks) > 1 else [tasks]:
        inputs = [[ModelInput(resized[index % len(resized)], size, wanted) for index in range(batch)] for _ in range(calls)]
        for callers in (1, 2):
            name = f"everything, {'all tasks' if len(wanted) > 1 else wanted[0]}, {callers} caller{'s' if callers > 1 else ''}"
            contestants[name] = (lambda inputs=inputs, callers=callers: _everything(ours, inputs, callers), calls * batch)  # type: ignore[misc]
        name = f"everything, {'all tasks' if len(wanted) > 1 else wanted[0]}, graphs"
        contestants[name] = (lambda inputs=inputs: _everything(graphs, inputs, 1), calls * batch)  # type: ignore[misc]
    for name, (work, _) in contestants.items():
        work()
        rounds[name] = []
    for _ in range(1 if asked.small else _ROUNDS):
        for name, (work, images) in contestants.items():
            rounds[name].append(timed(work, asked.device, 1) / images)
    found: dict[str, Any] = {name: round(statistics.median(taken) * 1000, 3) for name, taken in rounds.items()}
    bare = rounds["transformers' forward"]
    found["share of transformers' forward"] = {
        name: round(statistics.median(one / other for one, other in zip(bare, taken, strict=True)), 3)
        for name, taken in rounds.items()
        if name.startswith("everything")
    }
    if size[0] < 2000 and ours.description.family != "eomt":  # whose processor in transformers cuts images into windows
        few = Bench(theirs, pictures[:4], ("panoptic",), 4)
        few.transformers("panoptic")
        found["transformers' own way, panoptic"] = round(
            timed(lambda: few.transformers("panoptic"), asked.device, 1) / len(few.pictures) * 1000, 2
        )
    return found


def _picture(size: Size, seed: int) -> Pixels:
    """A large one is a smaller one made larger, which takes less time."""
    if size[0] < 2000:
        return models.patchwork(size, _KEPT, seed).image
    return np.asarray(Image.fromarray(_picture((1080, 1440), seed)).resize(size[::-1]))


def inputs_of(segmenter: Segmenter, size: Size, count: int) -> torch.Tensor:
    """Pixel values of `count` pictures of `size` on the model's device."""
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    pixels = preprocess.resize(picture, segmenter.description.resize)
    padded = segmenter.description.frame.padded((pixels.shape[0], pixels.shape[1]))
    with torch.inference_mode():
        return segmenter.pixel_values([pixels] * count, padded)


def forward(segmenter: Segmenter, values: torch.Tensor, times: int = 1) -> None:
    """The model alone."""
    with torch.inference_mode():
        for _ in range(times):
            segmenter.run(values, segmenter.description.tasks[:1])


def _everything(segmenter: Segmenter, calls: Sequence[Sequence[ModelInput]], callers: int) -> None:
    """Resized images to run lengths, as an actor does it."""
    if callers == 1:
        segmenter.segment([one for call in calls for one in call])
        return
    list(_CALLERS.map(segmenter.segment, calls))


def timed(work: Callable[[], object], device: str, repeats: int = 4) -> float:
    """Seconds of one of some repetitions, after one that is not counted."""
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(repeats):
        work()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / repeats


def _stages(segmenter: Segmenter, size: Size, batch: int) -> dict[str, float]:
    """One batch, stage after stage: the device's time by CUDA events, its waits for the host included; of a CPU, the host's."""
    picture = models.patchwork((480, 640), _KEPT, 0).image if size[0] > 2000 else _picture(size, 0)
    tasks = segmenter.description.tasks
    inputs = [ModelInput(preprocess.resize(picture, segmenter.description.resize), size, tasks)] * batch
    padded = segmenter.description.frame.padded((inputs[0].pixels.shape[0], inputs[0].pixels.shape[1]))
    rounds: dict[str, list[float]] = {}
    for _ in range(_ROUNDS):
        marks = [_mark(segmenter.device)]
        with torch.inference_mode():
            values = segmenter.pixel_values([one.pixels for one in inputs], padded)
            marks.append(_mark(segmenter.device))
            answers = segmenter.run(values, tasks)
            marks.append(_mark(segmenter.device))
            segmenter.answering(answers, inputs)
            marks.append(_mark(segmenter.device))
        for name, begin, end in zip(("to the device", "forward", "segments and run lengths"), marks, marks[1:], strict=False):
            rounds.setdefault(name, []).append(_between(begin, end) / batch)
    return {name: round(statistics.median(taken), 3) for name, taken in rounds.items()}


def _mark(device: torch.device) -> Any:
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def _between(begin: Any, end: Any) -> float:
    """Milliseconds."""
    if isinstance(begin, float):
        return (float(end) - begin) * 1000
    end.synchronize()
    return float(begin.elapsed_time(end))


def _kernels(segmenter: Segmenter, size: Size, batch: int, tasks: Sequence[str]) -> dict[str, Any]:
    """Of one call: where the device's time and the host's go, and how often the host waits."""
    picture = models.patchwork(size, _KEPT, 0).image
    inputs = [ModelInput(preprocess.resize(picture, segmenter.description.resize), size, tuple(tasks))] * batch
    segmenter.segment(inputs)
    with cProfile.Profile() as host:
        segmenter.segment(inputs)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        segmenter.segment(inputs)
        torch.cuda.synchronize()
    averages = seen.key_averages()
    device = sorted((one for one in averages if one.self_device_time_total), key=lambda one: -one.self_device_time_total)
    counts = {one.key: one.count for one in averages if one.key.startswith(("cudaStreamSync", "cudaEventSync", "cudaLaunch", "cudaMemcpy"))}
    kernels = [one for one in device if not one.key.startswith("aten::")]
    return {
        "device ms": round(sum(one.self_device_time_total for one in kernels) / 1000, 2),
        "top ms": {one.key[:70]: round(one.self_device_time_total / 1000, 2) for one in kernels[:14]},
        "calls": counts,
        "host ms, of functions by themselves": _longest(host),
    }


def _longest(host: cProfile.Profile) -> dict[str, float]:
    """The functions in which the host was longest, in milliseconds, which the profiler itself makes longer."""
    spent = pstats.Stats(host).get_stats_profile().func_profiles
    longest = sorted(spent.items(), key=lambda item: -item[1].tottime)[:16]
    return {f"{one.file_name.rsplit('/', 1)[-1]}:{one.line_number} {name}": round(one.tottime * 1000, 2) for name, one in longest}


def _measurements() -> dict[str, part.Measurement]:
    """Every model at its commonest size first: the time may be over before the last."""
    found: dict[str, part.Measurement] = {}
    for case in CASES:
        found[f"{case.model}, {case.sizes[0]}"] = _of_size(case, case.sizes[0])
        found[f"{case.model}, details"] = _details(case)
    for case in CASES:
        found |= {f"{case.model}, {size}": _of_size(case, size) for size in case.sizes[1:]}
    return found


MEASUREMENTS = _measurements()

if __name__ == "__main__":
    sys.exit(part.run(MEASUREMENTS))
