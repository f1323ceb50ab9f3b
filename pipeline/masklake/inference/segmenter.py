"""Batches of resized images through a model to segments: what runs in one worker process, without Ray or storage.

Images are batched by the shape of their padded input, so that no image is padded for another, and every image's answer is made from its
own logits alone. A failure stays with the image that caused it.

On an accelerator the model's batches queue up on one stream, and each caller turns logits into segments on a stream of its own: with two
callers, transfer, post-processing and run lengths of one happen beside the forward of the other.
"""

from __future__ import annotations

import gc
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from masklake.errors import ErrorCode, ImageFailure, Refused, first_line
from masklake.inference import checkpoint, postprocess, preprocess
from masklake.inference.checkpoint import ModelDescription
from masklake.inference.devices import chosen_device
from masklake.inference.families import FAMILIES, Answer, ClassMap, Queries
from masklake.inference.postprocess import Geometry
from masklake.inference.preprocess import Size
from masklake.inference.segments import NotFinite, Segment

__all__ = ["ModelInput", "Segment", "Segmenter"]

Answers = dict[str, list[Segment] | ImageFailure]
"""Task -> its segments, or why there are none."""

_CPU_PIXELS_PER_BATCH = 2**18  # beyond, a batch on a CPU gains nothing over single images and costs memory
_CPU_LARGEST = 8
_CUDA_LARGEST = 32
_GROW_AFTER = 16  # batches that went well before a larger one is tried again


@dataclass(frozen=True, eq=False)
class ModelInput:
    """One image for the model."""

    pixels: NDArray[np.uint8]
    """[h, w, 3], resized by `preprocess.resize`."""
    size: Size
    """Of the original: the segments' masks have it."""
    tasks: tuple[str, ...]


@dataclass
class _Limit:
    """How many images of one shape go together; halved when memory runs out, grown back when it goes well."""

    most: int
    now: int = 0
    went_well: int = 0

    def __post_init__(self) -> None:
        self.now = self.now or self.most

    def halve(self, failed: int) -> None:
        self.now, self.went_well = max(1, failed // 2), 0

    def succeed(self, count: int) -> None:
        if self.now < self.most and count >= self.now:
            self.went_well += 1
            if self.went_well >= _GROW_AFTER:
                self.now, self.went_well = min(self.most, self.now * 2), 0


@dataclass(frozen=True)
class _Logits:
    """What the model says of a batch, by task, and the event after which the device holds it."""

    answers: dict[str, Answer]
    ready: Any


@dataclass
class Segmenter:
    """A loaded model that answers images, also for several callers at once: the model takes one batch at a time."""

    module: Any
    description: ModelDescription
    device: torch.device
    dtype: torch.dtype = torch.float32
    batch_size: int | None = None
    compiled: bool = False
    _limits: dict[Size, _Limit] = field(default_factory=dict)
    _model_lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def load(
        cls,
        folder: Path,
        description: ModelDescription,
        device: str = "auto",
        dtype: str = "auto",
        batch_size: int | None = None,
        threads: int | None = None,
        compiled: bool = False,
    ) -> Segmenter:
        """Load the checkpoint in `folder`.

        Args:
            folder: with the weights as safetensors.
            description: of the same.
            device: auto (cuda where there is one, else cpu), cpu, cuda, cuda:1, mps.
            dtype: auto (bfloat16 on cuda, else float32), float32, bfloat16, float16.
            batch_size: images of a forward pass; None: chosen by device and input size.
            threads: of the CPU for this process.
            compiled: by torch.compile, anew for each size of the model's input, of which it takes a handful.

        Raises:
            Refused: there is no such device, the weights do not fit the description, or the model cannot be compiled here.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        device = chosen_device(device)
        if dtype == "auto":
            dtype = "bfloat16" if device.startswith("cuda") else "float32"
        module = checkpoint.load(description, folder, device, dtype)
        segmenter = cls(module, description, torch.device(device), getattr(torch, dtype), batch_size, compiled)
        if compiled:
            segmenter.warm_up_compiled()
        return segmenter

    def __post_init__(self) -> None:
        self.family = FAMILIES[self.description.family]
        plan = self.description.resize
        self._mean = torch.tensor(plan.mean, device=self.device).view(3, 1, 1)
        self._std = torch.tensor(plan.std, device=self.device).view(3, 1, 1)
        self._table = torch.from_numpy((np.arange(256, dtype=np.float64) * plan.rescale).astype(np.float32)).to(self.device)
        self._divides = bool((self._table.cpu() == torch.arange(256).float() / 255).all())
        self._answers_on = torch.device("cpu") if self.device.type == "mps" else self.device
        self._device_module = torch.get_device_module(self._answers_on)

    def warm_up_compiled(self) -> None:
        """Compile the forward, and run it once: what is wrong must be known before images are blamed for it.

        Raises:
            Refused: the compiler is missing, or cannot do it.
        """
        for part in self.family.compiled_parts(self.module):
            part.compile(dynamic=False)
        pixels = preprocess.resize(np.zeros((480, 640, 3), np.uint8), self.description.resize)
        padded = self.description.frame.padded((pixels.shape[0], pixels.shape[1]))
        outcome = self._try([pixels], padded, self.description.tasks, self._limit(padded).now)
        if isinstance(outcome, Exception):
            raise Refused(f"--compile: torch.compile cannot compile this model here, leave it out: {outcome}")

    def segment(self, inputs: Sequence[ModelInput]) -> list[Answers]:
        """Answer every image for its tasks, in order. An answer does not depend on the other images, nor on their order."""
        answers: list[Answers] = [{} for _ in inputs]
        for batch, outcome in self._forwards(inputs):
            if isinstance(outcome, ImageFailure):
                for index in batch:
                    answers[index] = dict.fromkeys(inputs[index].tasks, outcome)
                continue
            with self._aside(outcome.ready):
                for row, index in enumerate(batch):
                    item = inputs[index]
                    answers[index] = {task: self._answer(outcome.answers[task], row, item, task) for task in item.tasks}
        return answers

    @contextmanager
    def _aside(self, ready: Any) -> Iterator[None]:
        """A stream of its own, from the event `ready` on; waits for its end, since the logits must stay that long."""
        stream = self._device_module.Stream(self._answers_on)
        stream.wait_event(ready)
        with torch.inference_mode(), self._device_module.stream(stream):
            yield
        self._event(stream).synchronize()

    def _event(self, stream: Any) -> Any:
        event = self._device_module.Event()
        event.record(stream)
        return event

    def _forwards(self, inputs: Sequence[ModelInput]) -> Iterator[tuple[list[int], _Logits | ImageFailure]]:
        """Run the model over all images: yields indices of a batch and its logits, or why that one image has none."""
        groups: dict[tuple[Size, tuple[str, ...]], list[int]] = defaultdict(list)
        for index, item in enumerate(inputs):
            padded = self.description.frame.padded((item.pixels.shape[0], item.pixels.shape[1]))
            groups[padded, item.tasks if self.family.forward_per_task else ()].append(index)
        for (padded, _), members in groups.items():
            tasks = list(dict.fromkeys(task for index in members for task in inputs[index].tasks))
            limit = self._limit(padded)
            queue = list(members)
            while queue:
                batch = queue[: limit.now]
                outcome = self._try([inputs[index].pixels for index in batch], padded, tasks, limit.now)
                if isinstance(outcome, _OutOfMemory) and len(batch) > 1:
                    limit.halve(len(batch))
                    continue
                del queue[: len(batch)]
                if isinstance(outcome, Exception) and len(batch) > 1:
                    yield from self._one_by_one(inputs, batch, padded, tasks, limit.now)
                elif isinstance(outcome, Exception):
                    yield batch, _failure(outcome)
                else:
                    limit.succeed(len(batch))
                    yield batch, outcome

    def _limit(self, padded: Size) -> _Limit:
        return self._limits.setdefault(padded, _Limit(self.batch_size or self._default_batch(padded)))

    def _one_by_one(
        self, inputs: Sequence[ModelInput], batch: Sequence[int], padded: Size, tasks: Sequence[str], full: int
    ) -> Iterator[tuple[list[int], _Logits | ImageFailure]]:
        """After an exception: only the image that raises it alone is to blame."""
        for index in batch:
            outcome = self._try([inputs[index].pixels], padded, tasks, full)
            yield [index], _failure(outcome) if isinstance(outcome, Exception) else outcome

    def _try(self, pixels: Sequence[NDArray[np.uint8]], padded: Size, tasks: Sequence[str], full: int) -> _Logits | Exception:
        """One forward pass; an exception is returned, so that its traceback does not keep the batch's memory."""
        try:
            with self._model_lock, torch.inference_mode():
                filled = [*pixels, *[pixels[0]] * (self._filled(len(pixels), full) - len(pixels))]
                answers = self.family.run(self.module, self.pixel_values(filled, padded), tasks)
                if self._answers_on != self.device:  # mps has no streams, nor all that post-processing needs; its memory is the CPU's
                    answers = {task: _on_host(answer, slice(None)) for task, answer in answers.items()}
                return _Logits(answers, self._event(self._device_module.current_stream(self._answers_on)))
        except (torch.OutOfMemoryError, MemoryError) as error:
            outcome: Exception = _OutOfMemory(first_line(error))
        except _DEVICE_LOST:
            raise
        except Exception as error:  # whatever the model raises becomes that image's error row
            outcome = RuntimeError(f"{type(error).__name__}: {first_line(error)}")
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return outcome

    def _filled(self, count: int, full: int) -> int:
        """How many images a batch of `count` is filled up to with copies of its first, at most `full`.

        Kernels sum in another order for another number of images, which moves the last bit of a logit, and with it a pixel now and then
        (measured on a CPU: up to 4e-6 between 1, 2 to 3, and 4 or more images). Float32 batches are therefore always full; the others,
        where that bit is lost anyway, have few sizes only. What is compiled is so for one size.
        """
        return full if self.dtype == torch.float32 or self.compiled else min(full, 1 << (count - 1).bit_length())

    def pixel_values(self, pixels: Sequence[NDArray[np.uint8]], padded: Size) -> torch.Tensor:
        """Normalised model input [N, 3, *padded] of images uint8 [h, w, 3] no larger than `padded`."""
        exact = all(image.shape[:2] == padded for image in pixels)
        if exact:
            stacked = np.stack(pixels)
        else:
            stacked = np.zeros((len(pixels), *padded, 3), np.uint8)
            for row, image in zip(stacked, pixels, strict=True):
                row[: image.shape[0], : image.shape[1]] = image
        batch = torch.from_numpy(stacked)
        if self.device.type == "cuda":
            batch = batch.pin_memory().to(self.device, non_blocking=True)
        elif self.device.type != "cpu":
            batch = batch.to(self.device)
        batch = batch.permute(0, 3, 1, 2)  # channels last in memory, as it came
        values = batch.float().div_(255) if self._divides else self._table[batch.long()]
        values = values.sub_(self._mean).div_(self._std)
        if not exact and not self.description.frame.black:
            for value, image in zip(values, pixels, strict=True):
                value[:, image.shape[0] :] = 0
                value[:, :, image.shape[1] :] = 0
        return values.to(self.dtype)

    def _default_batch(self, padded: Size) -> int:
        area = padded[0] * padded[1]
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            per_image = area * 4096  # bytes of activations for each pixel: above what Swin-L needs in bfloat16
            return max(1, min(_CUDA_LARGEST, 1 << max(0, int(free * 0.6 / per_image).bit_length() - 1)))
        return max(1, min(_CPU_LARGEST, _CPU_PIXELS_PER_BATCH // area))

    def _answer(self, answer: Answer, row: int, item: ModelInput, task: str) -> list[Segment] | ImageFailure:
        try:
            try:
                return self._segments(answer, row, item, task)
            except torch.OutOfMemoryError:
                if self.device.type == "cpu":
                    raise
            torch.cuda.empty_cache()  # and out of the handler, whose traceback keeps memory
            return self._segments(_on_host(answer, slice(row, row + 1)), 0, item, task)
        except NotFinite as error:
            return ImageFailure(ErrorCode.NOT_FINITE, str(error) or "the model answered NaN or infinity")
        except (torch.OutOfMemoryError, MemoryError) as error:
            return ImageFailure(ErrorCode.OUT_OF_MEMORY, f"post-processing: {first_line(error)}")
        except _DEVICE_LOST:
            raise
        except Exception as error:  # a row says so, its batch-mates go on
            return ImageFailure(ErrorCode.MODEL_FAILED, f"post-processing: {type(error).__name__}: {first_line(error)}")

    def _segments(self, answer: Answer, row: int, item: ModelInput, task: str) -> list[Segment]:
        resized = (item.pixels.shape[0], item.pixels.shape[1])
        if self.description.postprocess == "hf":
            from masklake.inference import hf_postprocess

            return hf_postprocess.segments(self.description, answer, row, task, item.size)
        geometry = Geometry(self.description.frame.padded(resized), resized, item.size)
        settings = self.description.settings
        if isinstance(answer, ClassMap):
            return postprocess.semantic_from_map(answer.logits[row], geometry, settings)
        class_logits, mask_logits = answer.class_logits[row], answer.mask_logits[row]
        return _BY_TASK[task](class_logits, mask_logits, geometry, settings)


_BY_TASK: dict[str, Callable[..., list[Segment]]] = {
    "panoptic": postprocess.panoptic,
    "instance": postprocess.instance,
    "semantic": postprocess.semantic,
}

# a CUDA context that an earlier kernel broke: no image is to blame, and this process can do no more
_DEVICE_LOST: tuple[type[BaseException], ...] = tuple(
    kind for kind in (getattr(torch, "AcceleratorError", None),) if kind is not None and kind is not torch.OutOfMemoryError
)


class _OutOfMemory(Exception):
    """The device's memory was too small for a batch."""


def _on_host(answer: Answer, rows: slice) -> Answer:
    """The logits of some images on the CPU."""
    if isinstance(answer, ClassMap):
        return ClassMap(answer.logits[rows].cpu())
    return Queries(answer.class_logits[rows].cpu(), answer.mask_logits[rows].cpu())


def _failure(error: Exception) -> ImageFailure:
    if isinstance(error, _OutOfMemory):
        return ImageFailure(ErrorCode.OUT_OF_MEMORY, str(error))
    return ImageFailure(ErrorCode.MODEL_FAILED, str(error))
