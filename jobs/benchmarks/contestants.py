"""What the benchmark times: the bare forward, everything through a `Segmenter`, its stages one by one, and transformers' own way.

Each contestant is a function without arguments that does the work for all pictures of a round; the caller holds the watch.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from masklake.errors import ImageFailure
from masklake.inference import hf_postprocess, postprocess
from masklake.inference.family import Answer, ClassMap, Queries
from masklake.inference.preprocess import Size, resize
from masklake.inference.segmenter import ModelInput, Segment, Segmenter

Pixels = NDArray[np.uint8]
Contestant = Callable[[], object]

_TRANSFORMERS = ("Mask2Former", "MaskFormer", "OneFormer")  # processors that all three tasks can be timed with
_CALLERS = 2  # of a Segmenter on a GPU, as in a job
_MIB = 2**20


@dataclass(frozen=True)
class Bench:
    """A loaded model and the pictures uint8 [H, W, 3] of one size that go through it in a round."""

    segmenter: Segmenter
    pictures: Sequence[Pixels]
    tasks: tuple[str, ...]
    batch: int

    @property
    def distinct(self) -> list[Pixels]:
        """The pictures without repetitions."""
        return list({id(picture): picture for picture in self.pictures}.values())

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.segmenter.device

    @cached_property
    def resized(self) -> list[Pixels]:
        """The pictures as the model sees them, before padding."""
        return [resize(picture, self.segmenter.description.resize) for picture in self.pictures]

    @cached_property
    def padded(self) -> Size:
        """The size of the model's input: (height, width)."""
        return self.segmenter.description.frame.padded((self.resized[0].shape[0], self.resized[0].shape[1]))

    def contestants(self, with_transformers: bool) -> dict[str, Contestant]:
        """By name, in the order in which they are first run: those with small peaks of memory first."""
        found: dict[str, Contestant] = {}
        for tasks in self.task_sets():
            if tasks == self.tasks[:1] or self.segmenter.family.forward_per_task:
                found[bare(tasks)] = lambda tasks=tasks: self.forward(tasks)  # type: ignore[misc]
            found[everything(tasks)] = lambda tasks=tasks: self.everything(tasks)  # type: ignore[misc]
        if with_transformers and self.segmenter.family.processor in _TRANSFORMERS:
            for task in self.tasks:
                found[theirs(task)] = lambda task=task: self.transformers(task)  # type: ignore[misc]
        return found

    def task_sets(self) -> list[tuple[str, ...]]:
        """Each task alone, and all at once."""
        alone: list[tuple[str, ...]] = [(task,) for task in self.tasks]
        return [*alone, self.tasks] if len(alone) > 1 else alone

    def turns(self) -> list[Bench]:
        """The parts of a round in which contestants take turns: short ones on a CPU, whose speed drifts; a device must stay busy."""
        if self.device.type != "cpu":
            return [self]
        starts = range(0, len(self.pictures), self.batch)
        return [replace(self, pictures=self.pictures[first : first + self.batch]) for first in starts]

    @cached_property
    def batches(self) -> list[torch.Tensor]:
        """The model's inputs on its device."""
        parts = [self.resized[first : first + self.batch] for first in range(0, len(self.resized), self.batch)]
        with torch.inference_mode():
            return [self.segmenter.pixel_values(part, self.padded) for part in parts]

    def forward(self, tasks: tuple[str, ...]) -> None:
        """The model alone, inputs ready on its device, answers left there."""
        with torch.inference_mode():
            for values in self.batches:
                self.segmenter.family.run(self.segmenter.module, values, tasks)

    def everything(self, tasks: tuple[str, ...]) -> list[dict[str, list[Segment] | ImageFailure]]:
        """From the decoded pictures to segments with run lengths, as a job does it; beside a GPU other threads resize, as other tasks
        of a job do."""
        if self.device.type == "cpu":
            return self.segmenter.segment([self._input(picture, tasks) for picture in self.pictures])
        with ThreadPoolExecutor(os.cpu_count()) as pool, ThreadPoolExecutor(_CALLERS) as callers:
            inputs = [pool.submit(self._input, picture, tasks) for picture in self.pictures]
            batches = [inputs[first : first + self.batch] for first in range(0, len(inputs), self.batch)]
            calls = [callers.submit(lambda batch: self.segmenter.segment([one.result() for one in batch]), batch) for batch in batches]
            return [answer for call in calls for answer in call.result()]

    def _input(self, picture: Pixels, tasks: tuple[str, ...]) -> ModelInput:
        return ModelInput(resize(picture, self.segmenter.description.resize), (picture.shape[0], picture.shape[1]), tasks)

    def stages(self) -> dict[str, float]:
        """Seconds for each stage of all pictures, one after the other and waited for; the forward serves all tasks."""
        spent: dict[str, float] = defaultdict(float)
        for first in range(0, len(self.pictures), self.batch):
            pictures = self.pictures[first : first + self.batch]
            with torch.inference_mode():
                with self._stage("resize", spent):
                    pixels = [resize(picture, self.segmenter.description.resize) for picture in pictures]
                with self._stage("copy and normalise", spent):
                    values = self.segmenter.pixel_values(pixels, self.padded)
                with self._stage("forward", spent):
                    answers = self.segmenter.family.run(self.segmenter.module, values, self.tasks)
                for task in self.tasks:
                    with self._stage(f"{task} and run lengths", spent):
                        for row in range(len(pictures)):
                            self._segments(answers[task], row, task)
        return dict(spent)

    @contextmanager
    def _stage(self, name: str, spent: dict[str, float]) -> Iterator[None]:
        started = time.perf_counter()
        yield
        synchronise(self.device)
        spent[name] += time.perf_counter() - started

    def _segments(self, answer: Answer, row: int, task: str) -> list[Segment]:
        geometry = postprocess.Geometry(self.padded, self._resized_size, self._original_size)
        settings = self.segmenter.description.settings
        if isinstance(answer, ClassMap):
            return postprocess.semantic_from_map(answer.logits[row], geometry, settings)
        assert isinstance(answer, Queries)
        function: Callable[..., list[Segment]] = getattr(postprocess, task)
        return function(answer.class_logits[row], answer.mask_logits[row], geometry, settings)

    @property
    def _resized_size(self) -> Size:
        return self.resized[0].shape[0], self.resized[0].shape[1]

    @property
    def _original_size(self) -> Size:
        return self.pictures[0].shape[0], self.pictures[0].shape[1]

    def transformers(self, task: str) -> None:
        """What transformers' image-segmentation pipeline does for one task, in batches as ours: its processor, the same module, its
        post-processing with our thresholds; then pycocotools' run lengths for each segment."""
        processor, size = self._processor
        for first in range(0, len(self.pictures), self.batch):
            images = [Image.fromarray(picture) for picture in self.pictures[first : first + self.batch]]
            values = processor(images, size=size, return_tensors="pt")["pixel_values"]
            with torch.inference_mode():
                answer = self.segmenter.family.run(self.segmenter.module, values.to(self.device, self.segmenter.dtype), (task,))[task]
                for row in range(len(images)):
                    self._their_segments(processor, answer, row, task)

    def _their_segments(self, processor: Any, answer: Answer, row: int, task: str) -> list[Any]:
        outputs = self.segmenter.family.hf_outputs(answer, row)
        settings = self.segmenter.description.settings
        arguments: dict[str, Any] = {"target_sizes": [self._original_size]}
        if task == "panoptic":
            arguments |= {"threshold": settings.object_threshold, "overlap_mask_area_threshold": settings.overlap_threshold}
            arguments |= {"label_ids_to_fuse": set()}
        found = getattr(processor, f"post_process_{task}_segmentation")(outputs, **arguments)[0]
        ids = (found if task == "semantic" else found["segmentation"]).cpu().numpy()
        wanted = np.unique(ids).tolist() if task == "semantic" else [info["id"] for info in found["segments_info"]]
        return [coco_mask.encode(np.asfortranarray(ids == one).astype(np.uint8)) for one in wanted]

    @cached_property
    def _processor(self) -> tuple[Any, dict[str, int]]:
        """transformers' own image processor for this checkpoint, and its `size`."""
        plan = self.segmenter.description.resize
        names = ("height", "width") if plan.rule == "exact" else ("shortest_edge", "longest_edge")
        processor = hf_postprocess._processor(self.segmenter.family.processor)  # mends OneFormer's where torchvision is absent
        return processor, dict(zip(names, plan.size, strict=True))


def bare(tasks: Sequence[str]) -> str:
    """The name of the bare forward that serves `tasks`."""
    return f"bare forward, {'+'.join(tasks)}"


def everything(tasks: Sequence[str]) -> str:
    """The name of everything for `tasks`."""
    return f"everything, {'+'.join(tasks)}"


def theirs(task: str) -> str:
    """The name of transformers' way to `task`."""
    return f"transformers, {task}"


@dataclass(frozen=True)
class Timing:
    """Seconds a picture takes with each contestant in each round, and in each stage (medians over the rounds), and the peak of memory in
    MiB above the loaded model."""

    rounds: dict[str, list[float]]
    stages: dict[str, float]
    peaks: dict[str, float]

    def seconds(self, name: str) -> float:
        """What a picture takes with a contestant: the median round."""
        return statistics.median(self.rounds[name])

    def ratio(self, names: Sequence[str], other: str) -> float:
        """How many times as long as `other` the contestants `names` take together: the median of the rounds, each against its own."""
        together = [sum(taken) for taken in zip(*(self.rounds[name] for name in names), strict=True)]
        ratios: list[float] = [one / two for one, two in zip(together, self.rounds[other], strict=True)]
        return statistics.median(ratios)


def measure(bench: Bench, rounds: int, with_transformers: bool) -> Timing:
    """Warm up, then run all contestants `rounds` times in turn, each turn starting with another one."""
    contestants = bench.contestants(with_transformers)
    peaks = _warm_up(bench, contestants)
    bench.stages()
    turns = [part.contestants(with_transformers) for part in bench.turns()]
    names = list(contestants)
    taken: dict[str, list[float]] = {name: [0.0] * rounds for name in names}
    stages: dict[str, list[float]] = defaultdict(list)
    begun = 0
    for number in range(rounds):
        for turn in turns:
            first = begun % len(names)
            begun += 1
            for name in names[first:] + names[:first]:
                taken[name][number] += seconds(turn[name], bench.device) / len(bench.pictures)
            _tell(f"round {number + 1} of {rounds}")
        for name, spent in bench.stages().items():
            stages[name].append(spent / len(bench.pictures))
    _tell("")
    return Timing(taken, {name: statistics.median(values) for name, values in stages.items()}, peaks)


def seconds(contestant: Contestant, device: torch.device) -> float:
    """How long a contestant takes, until the device is done."""
    synchronise(device)
    started = time.perf_counter()
    contestant()
    synchronise(device)
    return time.perf_counter() - started


def synchronise(device: torch.device) -> None:
    """Wait until the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _warm_up(bench: Bench, contestants: dict[str, Contestant]) -> dict[str, float]:
    """Run each contestant once; the peak of memory of each, in MiB above what is held now."""
    floor = 0.0
    peaks = {}
    for name, contestant in contestants.items():
        held = _reset_peak(bench.device)
        floor = floor or held
        contestant()
        synchronise(bench.device)
        peaks[name] = (_peak(bench.device) - floor) / _MIB
        _tell(f"warm-up: {name}")
    return peaks


def _reset_peak(device: torch.device) -> float:
    """Give freed memory back and forget the peak so far; returns the bytes in use."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return float(torch.cuda.memory_allocated(device))
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:  # some containers forbid it: peaks are then those since the start
            return _peak(device)
    return _peak(device)


def _peak(device: torch.device) -> float:
    """The most bytes in use since `_reset_peak`: of the GPU, else resident (where Linux does not tell, since the process began)."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return float(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit


def _tell(line: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
