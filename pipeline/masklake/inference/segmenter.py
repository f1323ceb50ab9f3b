"""Batches of resized images through a model to segments: what runs in one worker process, without Ray or storage.

Images are batched by the shape of their padded input, those of all callers that wait together, so that no image is padded for another, and
every image's answer is made from its own logits alone. A failure stays with the image that caused it.

One caller works at a time, in its own thread. On a GPU it begins the next forward, the next caller's first if it has none left, before
it makes segments of the logits at hand, on a stream of higher priority: the device computes while the host counts runs. (Two callers'
threads would do it beside each other, but share one interpreter: measured on an H100, 1.4 times slower.)
"""

from __future__ import annotations

import copy
import gc
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from masklake.errors import DeviceLost, ErrorCode, ImageFailure, Refused, first_line
from masklake.inference import checkpoint, constants, forwards, preprocess, rle
from masklake.inference.answers import Answering, Answers, on_host
from masklake.inference.checkpoint import ModelDescription
from masklake.inference.devices import chosen_device
from masklake.inference.effort import Effort
from masklake.inference.families import FAMILIES, Answer
from masklake.inference.forwards import Forward
from masklake.inference.graphs import Graphs
from masklake.inference.limits import Limit, OutOfMemory, default_batch, is_lost, is_out_of_memory
from masklake.inference.model_input import ModelInput, PixelValues
from masklake.inference.preprocess import Size
from masklake.inference.segments import Segment
from masklake.inference.vino import Vino
from masklake.inference.waiting import Call, Kind, Member, Waiting

__all__ = ["Answers", "ModelInput", "Segment", "Segmenter"]


@dataclass(frozen=True)
class _Logits:
    """What the model says of a batch, by task, and the event after which a GPU holds it."""

    answers: dict[str, Answer]
    ready: Any


_Batch = tuple[list[Member], _Logits | ImageFailure]
"""Images, and their logits or why they have none."""


@dataclass
class Segmenter:
    """A loaded model that answers images, also for several callers at once."""

    module: Any
    description: ModelDescription
    device: torch.device
    dtype: torch.dtype = torch.float32
    batch_size: int | None = None
    forward: Forward = "eager"
    models: int = 1
    """How many work at the same time: this one, and those that `beside` gives."""
    compact: bool = False
    """Whether segments' run lengths are left as numbers: see `rle.compact`."""
    effort: Effort = field(default_factory=Effort)
    _limits: dict[Size, Limit] = field(default_factory=dict)
    _waiting: Waiting = field(default_factory=Waiting)
    _begun: _Batch | None = None
    _singly: deque[tuple[Kind, Member]] = field(default_factory=deque)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def load(
        cls,
        folder: Path,
        description: ModelDescription,
        device: str = "auto",
        dtype: str = "auto",
        batch_size: int | None = None,
        forward: Forward = "eager",
        models: int = 1,
    ) -> Segmenter:
        """Load the checkpoint in `folder`. On a CPU, it works with as many threads as torch is set to.

        Args:
            folder: with the weights as safetensors.
            description: of the same.
            device: auto (cuda where there is one, else cpu), cpu, cuda, cuda:1, mps.
            dtype: auto (bfloat16 on cuda, else float32), float32, bfloat16, float16.
            batch_size: images of a forward pass; None: chosen by device and input size.
            forward: auto: graphs on cuda where the model can, else eager; eager; graphs: replayed from CUDA graphs where a shape of
                batch comes again; compiled: by torch.compile, anew for each size of the model's input, of which it takes a handful;
                openvino: by OpenVINO, of which each size of a batch is converted once on this machine.
            models: how many are to work at the same time, this one and those of `beside`.

        Raises:
            Refused: there is no such device, the weights do not fit the description, or the model cannot run so here.
        """
        device = chosen_device(device)
        if dtype == "auto":
            dtype = "bfloat16" if device.startswith("cuda") else "float32"
        if dtype == "float32":
            torch.backends.cudnn.allow_tf32 = False  # by default, convolutions round float32 to 10 bits of mantissa
        prompted = FAMILIES[description.family].prompted
        forward = forwards.chosen(forward, device, prompted)
        forwards.check(forward, device, dtype, prompted)
        module = checkpoint.load(description, folder, device, dtype)
        if forward != "compiled" and device.startswith("cuda"):
            constants.make_once(module)
        segmenter = cls(module, description, torch.device(device), getattr(torch, dtype), batch_size, forward, models)
        if forward == "compiled":
            segmenter.warm_up_compiled()
        elif forward == "openvino":
            segmenter.warm_up_openvino()
        return segmenter

    def __post_init__(self) -> None:
        self.family = FAMILIES[self.description.family]
        self.pixel_values = PixelValues(self.description.resize, self.description.frame, self.device, self.dtype)
        self.answering = Answering(self.description, self.device)
        self._ahead = self.device.type == "cuda"
        self._answers_on = torch.device("cpu") if self.device.type == "mps" else self.device

    def beside(self) -> Segmenter:
        """Another one, for a caller that works at the same time: the weights are the same in memory, what modules remember is its own."""
        weights = {id(tensor): tensor for tensor in (*self.module.parameters(), *self.module.buffers())}
        module = copy.deepcopy(self.module, weights)
        own: dict[str, Any] = {"_limits": {}, "_waiting": Waiting(), "_singly": deque(), "_turn": threading.Lock()}
        other = replace(self, module=module, effort=Effort(), **own)
        if self.forward == "openvino":
            other.vino = self.vino.beside(module)
        return other

    def warm_up_compiled(self) -> None:
        """Compile the forward, and run it once: what is wrong must be known before images are blamed for it.

        Raises:
            Refused: the compiler is missing, or cannot do it.
        """
        for part in self.family.compiled_parts(self.module):
            part.compile(dynamic=False)
        outcome = self._first()
        if isinstance(outcome, Exception):
            raise Refused(f"--forward compiled: torch.compile cannot compile this model here, leave it out: {outcome}")

    def warm_up_openvino(self) -> None:
        """Open the converted forward, or convert it, and run it once.

        Raises:
            Refused: OpenVINO cannot do it. Where it cannot for some other size later, that one runs eagerly, with a line in the log.
        """
        outcome = self._first()
        if wrong := [*self.vino.failures, *([outcome] if isinstance(outcome, Exception) else [])]:
            raise Refused(f"--forward openvino: OpenVINO cannot run this model here, leave it out: {wrong[0]}")

    def _first(self) -> _Logits | Exception:
        """The forward of a black image of the commonest shape."""
        pixels = preprocess.resize(np.zeros((480, 640, 3), np.uint8), self.description.resize)
        padded = self.description.frame.padded((pixels.shape[0], pixels.shape[1]))
        return self._try([pixels], padded, (self.description.concepts or self.description.tasks)[:1], self._limit(padded).now)

    def segment(self, inputs: Sequence[ModelInput]) -> list[Answers]:
        """Answer every image for its tasks, in order. An answer does not depend on the other images, nor on their order.

        Raises:
            DeviceLost: the device answers nothing any more; end the process.
        """
        call = Call(inputs, self._kind)
        self._waiting.come(call)
        try:
            with self._turn, self.effort.at_work():
                while call.left:
                    if call.error is not None:
                        raise call.error
                    self._step(call)
        except BaseException as error:
            self._waiting.fail(error)
            if is_lost(error):
                raise DeviceLost(f"the device was lost: {first_line(error)}") from error
            raise
        finally:
            self._waiting.go(call)
        return call.answers

    def _kind(self, item: ModelInput) -> Kind:
        padded = self.description.frame.padded((item.pixels.shape[0], item.pixels.shape[1]))
        return Kind(padded, self.description.asked_of(item) if self.family.forward_per_task else ())

    def _step(self, call: Call) -> None:
        """Answer the next batch, the call's own if it has one, beside the forward of the one after it."""
        batch, self._begun = self._begun or self._forward(call), None
        assert batch is not None, "an image without an answer is in a batch, or waits"
        members, outcome = batch
        if self._ahead:
            self._begun = self._forward(call, ahead=True)
        if isinstance(outcome, ImageFailure):
            for member in members:
                member.answer(dict.fromkeys(member.input.tasks, outcome))
            return
        with self._aside(outcome.ready), rle.compact() if self.compact else nullcontext():
            found = self.answering(outcome.answers, [member.input for member in members])
        for member, answers in zip(members, found, strict=True):
            member.answer(answers)

    @contextmanager
    def _aside(self, ready: Any) -> Iterator[None]:
        """On a GPU, on a stream beside the model's, from the event `ready` on; waits for its end, since the logits must stay that long."""
        with torch.inference_mode():
            if ready is None:
                yield
                return
            self._side.wait_event(ready)
            try:
                with torch.cuda.stream(self._side):
                    yield
            finally:
                self._event(self._side).synchronize()

    @cached_property
    def _side(self) -> Any:
        """One stream, since torch's allocator keeps memory for each; before the model's, whose kernels would each be waited for."""
        return torch.cuda.Stream(self.device, priority=-1)  # type: ignore[no-untyped-call]

    def _event(self, stream: Any) -> Any:
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(stream)
        return event

    def _forward(self, first: Call, ahead: bool = False) -> _Batch | None:
        """Run the model over the next batch, of `first` before others; None where nothing waits.

        `ahead`: beside a batch whose logits are held. An image without memory is then left for when they are not: None, too.
        """
        while (chosen := self._chosen(first)) is not None:
            kind, members, alone = chosen
            limit = self._limit(kind.padded)
            tasks = list(dict.fromkeys(asked for member in members for asked in self.description.asked_of(member.input)))
            outcome = self._try([member.input.pixels for member in members], kind.padded, tasks, limit.now)
            if isinstance(outcome, OutOfMemory) and len(members) > 1:
                limit.halve(len(members))
                self.effort.halved()
                self._waiting.put_back(kind, members)
            elif isinstance(outcome, OutOfMemory) and ahead:
                self._waiting.put_back(kind, members)
                return None
            elif isinstance(outcome, Exception) and len(members) > 1:
                self._singly.extend((kind, member) for member in members)  # only the image that raises it alone is to blame
            elif isinstance(outcome, Exception):
                return members, _failure(outcome)
            else:
                if not alone:
                    limit.succeed(len(members))
                return members, outcome
            del outcome  # its memory is for the next
        return None

    def _chosen(self, first: Call) -> tuple[Kind, list[Member], bool] | None:
        """The next batch's images, and whether one is alone since it was in a batch that failed."""
        if self._singly:
            kind, member = self._singly.popleft()
            return kind, [member], True
        if (found := self._waiting.kind(first)) is None:
            return None
        return found, self._waiting.take(found, self._limit(found.padded).now, first), False

    def _limit(self, padded: Size) -> Limit:
        if padded not in self._limits:
            self._limits[padded] = Limit(self.batch_size or default_batch(self.device, padded))
        return self._limits[padded]

    def _try(self, pixels: Sequence[NDArray[np.uint8]], padded: Size, tasks: Sequence[str], full: int) -> _Logits | Exception:
        """One forward pass; an exception is returned, so that its traceback does not keep the batch's memory."""
        try:
            with torch.inference_mode():
                filled = [*pixels, *[pixels[0]] * (self._filled(len(pixels), full) - len(pixels))]
                answers = self.run(self.pixel_values(filled, padded), tasks)
                if self._answers_on != self.device:  # mps has no streams, nor all that post-processing needs; its memory is the CPU's
                    answers = {task: on_host(answer, slice(None)) for task, answer in answers.items()}
                return _Logits(answers, self._event(torch.cuda.current_stream(self.device)) if self.device.type == "cuda" else None)
        except Exception as error:  # whatever the model raises becomes that image's error row
            if is_lost(error):
                raise
            outcome: Exception
            if is_out_of_memory(error):
                outcome = OutOfMemory(first_line(error))
            else:
                outcome = RuntimeError(f"{type(error).__name__}: {first_line(error)}")
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # where the exception was the first sign of a lost device, this is the second
            torch.cuda.empty_cache()
        return outcome

    def run(self, values: torch.Tensor, tasks: Sequence[str]) -> dict[str, Answer]:
        """What the model says of pixel values [N, 3, H, W], run as `forward` says; for one caller at a time."""
        if self.forward == "graphs":
            return self.graphs(values, tasks)
        return self.vino(values, tasks) if self.forward == "openvino" else self.family.run(self.module, values, tasks)

    @cached_property
    def graphs(self) -> Graphs:
        """Those of `forward` graphs."""
        return Graphs(lambda values, tasks: self.family.run(self.module, values, tasks))

    @cached_property
    def vino(self) -> Vino:
        """What runs `forward` openvino."""
        from masklake.inference import source  # which knows storage, and not every machine has that

        return Vino(self.module, self.family, self.description.digest, source.kept("openvino"), self.models)

    def _filled(self, count: int, full: int) -> int:
        """How many images a batch of `count` is filled up to with copies of its first, at most `full`.

        Kernels sum in another order for another number of images, which moves the last bit of a logit, and with it a pixel now and then
        (measured on a CPU: up to 4e-6 between 1, 2 to 3, and 4 or more images). Float32 batches are therefore always full; in half
        precision that bit is lost anyway. What is compiled is so for one size.
        """
        return full if self.dtype == torch.float32 or self.forward == "compiled" else count


def _failure(error: Exception) -> ImageFailure:
    if isinstance(error, OutOfMemory):
        return ImageFailure(ErrorCode.OUT_OF_MEMORY, str(error))
    return ImageFailure(ErrorCode.MODEL_FAILED, str(error))
