"""The Segmenter around a fake model: what fails, fails alone; answers do not depend on batch-mates."""

from __future__ import annotations

import time
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from masklake.errors import DeviceLost, ErrorCode, ImageFailure, Refused
from masklake.inference import postprocess
from masklake.inference.checkpoint import ModelDescription
from masklake.inference.geometry import Geometry
from masklake.inference.limits import default_batch
from masklake.inference.model_input import PixelValues
from masklake.inference.preprocess import Frame, ResizePlan
from masklake.inference.segmenter import ModelInput, Segmenter
from masklake.inference.segments import Segment, Settings

LABELS = {0: "dark", 1: "bright"}
POISON, NOT_A_NUMBER = 13, 17  # red values that make the fake model raise, or answer NaN


@dataclass
class FakeModel:
    """Class 1 where a pixel is brighter than half; runs out of memory beyond `capacity` images."""

    capacity: int = 1000
    shapes: list[tuple[int, ...]] = field(default_factory=list)

    def __call__(self, pixel_values: torch.Tensor) -> Any:
        self.shapes.append(tuple(pixel_values.shape))
        if len(pixel_values) > self.capacity:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        red = (pixel_values[:, 0, 0, 0] * 255).round()
        if (red == POISON).any():
            raise ValueError("cannot make sense of this image")
        brightness = pixel_values.mean(dim=1) - 0.5
        brightness[red == NOT_A_NUMBER] = float("nan")
        return SimpleNamespace(logits=torch.stack([-brightness, brightness], dim=1))


def describe(frame: Frame | None = None) -> ModelDescription:
    return ModelDescription(
        name="model",
        family="segformer",
        tasks=("semantic",),
        labels=LABELS,
        named_labels=True,
        thing_ids=frozenset(),
        things_from="",
        dataset="",
        resize=ResizePlan("keep"),
        frame=frame or Frame(),
        settings=Settings(labels=LABELS),
        postprocess="exact",
        asked={},
        digest="",
        licence="",
        notes=(),
    )


def open_fake(model: FakeModel, batch_size: int = 8, frame: Frame | None = None) -> Segmenter:
    return Segmenter(model, describe(frame), torch.device("cpu"), batch_size=batch_size)


def picture(seed: int, size: tuple[int, int] = (16, 16), red: int = 200) -> ModelInput:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    pixels[0, 0, 0] = red
    return ModelInput(pixels, size, ("semantic",))


def codes(answers: list[dict[str, list[Segment] | ImageFailure]]) -> list[str]:
    return [str(answer["semantic"].code) if isinstance(answer["semantic"], ImageFailure) else "ok" for answer in answers]


def test_every_image_is_answered_in_order() -> None:
    inputs = [picture(seed, (16 + seed % 3, 16)) for seed in range(11)]
    answers = open_fake(FakeModel()).segment(inputs)
    for item, answer in zip(inputs, answers, strict=True):
        (segments,) = answer.values()
        assert isinstance(segments, list)
        bright = {segment.label: segment.area for segment in segments}["bright"]
        assert bright == np.count_nonzero(item.pixels.astype(int).sum(axis=2) > 1.5 * 255)


def test_an_answer_does_not_depend_on_batch_mates_or_order() -> None:
    inputs = [picture(seed, (16 + seed % 3, 16)) for seed in range(8)]
    together = open_fake(FakeModel()).segment(inputs)
    assert together == [open_fake(FakeModel()).segment([item])[0] for item in inputs]
    assert together[::-1] == open_fake(FakeModel()).segment(inputs[::-1])


def test_images_are_batched_by_padded_shape_and_batches_are_full() -> None:
    model = FakeModel()
    open_fake(model, batch_size=4, frame=Frame(divisor=8)).segment(
        [picture(seed, size) for seed, size in enumerate([(15, 9), (16, 16), (17, 16), (9, 9)])]
    )
    assert sorted(model.shapes) == [(4, 3, 16, 16), (4, 3, 24, 16)]


def test_padding_is_zero_after_normalisation_or_black() -> None:
    image = picture(0, (3, 5)).pixels
    for black, expected in ((False, 0.0), (True, -1.0)):
        plan = ResizePlan("keep", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        values = PixelValues(plan, Frame(divisor=4, black=black), torch.device("cpu"), torch.float32)([image], (4, 8))
        assert torch.equal(values[0, :, :3, :5], (torch.from_numpy(image).permute(2, 0, 1) / 255 - 0.5) / 0.5)
        assert (values[0, :, 3:] == expected).all()
        assert (values[0, :, :, 5:] == expected).all()


@pytest.mark.slow
def test_out_of_memory_halves_the_batch_and_remembers() -> None:
    model = FakeModel(capacity=3)
    opened = open_fake(model)
    assert codes(opened.segment([picture(seed) for seed in range(10)])) == ["ok"] * 10
    assert [shape[0] for shape in model.shapes] == [8, 4, 2, 2, 2, 2, 2]
    assert opened.effort.take().halvings == 2
    model.shapes.clear()
    opened.segment([picture(seed) for seed in range(4)])
    assert [shape[0] for shape in model.shapes] == [2, 2]


@pytest.mark.slow
def test_the_batch_grows_back_after_out_of_memory() -> None:
    model = FakeModel(capacity=3)
    opened = open_fake(model)
    opened.segment([picture(0)] * 8)
    model.capacity = 1000
    for _ in range(40):
        opened.segment([picture(0)] * 8)
    assert model.shapes[-1][0] == 8


def test_one_image_too_large_for_the_device_is_quarantined_and_the_others_recover() -> None:
    model = FakeModel(capacity=0)
    opened = open_fake(model)
    (failure,) = opened.segment([picture(0)])[0].values()
    assert isinstance(failure, ImageFailure)
    assert failure.code == ErrorCode.OUT_OF_MEMORY
    assert "20.00 GiB" in failure.message
    model.capacity = 1000
    assert codes(opened.segment([picture(seed) for seed in range(9)])) == ["ok"] * 9


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 3, 6])
def test_an_exception_is_the_fault_of_one_image_only(place: int) -> None:
    inputs = [picture(seed) for seed in range(7)]
    expected = open_fake(FakeModel()).segment(inputs)
    inputs[place] = picture(99, red=POISON)
    answers = open_fake(FakeModel()).segment(inputs)
    failure = answers[place]["semantic"]
    assert failure == ImageFailure(ErrorCode.MODEL_FAILED, "ValueError: cannot make sense of this image")
    assert answers[:place] + answers[place + 1 :] == expected[:place] + expected[place + 1 :]


def test_nan_is_an_error_of_its_image_only() -> None:
    inputs = [picture(0), picture(1, red=NOT_A_NUMBER), picture(2)]
    assert codes(open_fake(FakeModel()).segment(inputs)) == ["ok", "not_finite", "ok"]


def test_an_exception_in_post_processing_is_its_images_only(monkeypatch: pytest.MonkeyPatch) -> None:
    real = postprocess.semantic_from_map

    def fragile(logits: torch.Tensor, geometry: Geometry, settings: Settings) -> list[Segment]:
        if geometry.original == (7, 7):
            raise IndexError("no such pixel")
        return real(logits, geometry, settings)

    monkeypatch.setattr(postprocess, "semantic_from_map", fragile)
    odd = ModelInput(picture(1).pixels, (7, 7), ("semantic",))
    assert codes(open_fake(FakeModel()).segment([picture(0), odd, picture(2)])) == ["ok", "model_failed", "ok"]


def test_several_callers_share_a_model_one_batch_at_a_time() -> None:
    inside, most = 0, 0

    class Watched(FakeModel):
        def __call__(self, pixel_values: torch.Tensor) -> Any:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            time.sleep(0.002)
            answer = super().__call__(pixel_values)
            inside -= 1
            return answer

    calls = [[picture(seed), picture(seed + 1, red=NOT_A_NUMBER), picture(seed + 2, (9, 16))] for seed in range(20)]
    expected = [open_fake(FakeModel()).segment(call) for call in calls]
    shared = open_fake(Watched())
    with ThreadPoolExecutor(4) as callers:
        assert list(callers.map(shared.segment, calls)) == expected
    assert most == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        torch.AcceleratorError("CUDA error: out of memory"),  # of pinning memory
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.07 GB)"),
    ],
    ids=lambda error: str(error)[:30],
)
def test_memory_that_runs_out_halves_the_batch_whatever_says_it(error: Exception) -> None:
    class Small(FakeModel):
        def __call__(self, pixel_values: torch.Tensor) -> Any:
            if len(pixel_values) > 3:
                raise error
            return super().__call__(pixel_values)

    model = Small()
    assert codes(open_fake(model).segment([picture(seed) for seed in range(6)])) == ["ok"] * 6
    assert [shape[0] for shape in model.shapes] == [3, 3]


@pytest.mark.parametrize("stage", ["forward", "post-processing"])
def test_a_lost_device_is_nobodys_fault(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be ...")

    opened = open_fake(FakeModel())
    if stage == "forward":
        opened.module = fail
    else:
        monkeypatch.setattr(postprocess, "semantic_from_map", fail)
    for _ in range(2):  # whoever calls next is told as much
        with pytest.raises(DeviceLost, match=r"^the device was lost: CUDA error: an illegal memory access was encountered$"):
            opened.segment([picture(0), picture(1)])


@dataclass
class Steps:
    """What a Segmenter as on a GPU does, in its order."""

    done: list[str] = field(default_factory=list)

    def watch(self, model: FakeModel, monkeypatch: pytest.MonkeyPatch, batch_size: int = 2) -> Segmenter:
        opened, real = open_fake(model, batch_size), postprocess.semantic_from_map
        opened.dtype, opened._ahead = torch.bfloat16, True

        def forward(pixel_values: torch.Tensor) -> Any:
            self.done.append(f"forward of {len(pixel_values)}")
            return model(pixel_values)

        def segments(logits: torch.Tensor, geometry: Geometry, settings: Settings) -> list[Segment]:
            self.done.append("segments")
            return real(logits, geometry, settings)

        opened.module = forward
        monkeypatch.setattr(postprocess, "semantic_from_map", segments)
        return opened


def test_on_a_gpu_the_next_forward_begins_before_segments_are_made_and_no_batch_is_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps()
    inputs = [picture(seed) for seed in range(5)]
    assert steps.watch(FakeModel(), monkeypatch).segment(inputs) == open_fake(FakeModel()).segment(inputs)
    pair = ["segments", "segments"]
    assert steps.done[:8] == ["forward of 2", "forward of 2", *pair, "forward of 1", *pair, "segments"]


def test_a_callers_last_segments_are_made_beside_the_next_callers_first_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    steps, calls = Steps(), [[picture(seed), picture(seed + 1)] for seed in (0, 2, 4)]
    expected = [open_fake(FakeModel()).segment(call) for call in calls]
    opened = steps.watch(FakeModel(), monkeypatch)
    steps.done.clear()
    opened._turn.acquire()
    with ThreadPoolExecutor(3) as callers:
        answers = callers.map(opened.segment, calls)
        while len(opened._waiting) < 3:
            time.sleep(0.001)
        opened._turn.release()
        assert list(answers) == expected
    pair = ["segments", "segments"]
    assert steps.done == ["forward of 2", "forward of 2", *pair, "forward of 2", *pair, *pair]


def together(opened: Segmenter, calls: Sequence[list[ModelInput]]) -> list[list[dict[str, list[Segment] | ImageFailure]]]:
    """The answers of callers that all wait before the first is answered."""
    opened._turn.acquire()
    with ThreadPoolExecutor(len(calls)) as callers:
        answers = [callers.submit(opened.segment, call) for call in calls]
        while len(opened._waiting) < len(calls):
            time.sleep(0.001)
        opened._turn.release()
    return [each.result() for each in answers]


@pytest.mark.parametrize("ahead", [False, True])
def test_batches_are_filled_with_the_images_of_all_callers_that_wait(ahead: bool) -> None:
    """Photographs of six shapes in calls of six: alone, each would be a batch of its own."""
    calls = [[picture(10 * call + shape, (16 + shape, 16)) for shape in range(6)] for call in range(4)]
    model = FakeModel()
    opened = open_fake(model, batch_size=4)
    opened._ahead = ahead
    assert together(opened, calls) == [open_fake(FakeModel(), batch_size=4).segment(call) for call in calls]
    assert len(model.shapes) == 6
    assert len(opened._waiting) == 0


@pytest.mark.slow
def test_an_image_to_blame_leaves_other_callers_images_alone() -> None:
    calls = [[picture(seed), picture(seed + 1)] for seed in (0, 2)]
    expected = [open_fake(FakeModel()).segment(call) for call in calls]
    calls[1][0] = picture(9, red=POISON)
    answers = together(open_fake(FakeModel()), calls)
    assert answers[0] == expected[0]
    assert codes(answers[1]) == ["model_failed", "ok"]
    assert answers[1][1] == expected[1][1]


@pytest.mark.parametrize("error", [torch.AcceleratorError("CUDA error: unspecified launch failure"), KeyError("a mistake of ours")])
def test_what_befalls_a_caller_with_anothers_images_is_told_to_both(error: Exception) -> None:
    opened = open_fake(FakeModel())

    def fail(*_: Any) -> Any:
        raise error

    opened.answering = fail  # type: ignore[assignment]
    with pytest.raises((DeviceLost, KeyError), match=r"the device was lost|a mistake of ours"):
        together(opened, [[picture(0)], [picture(1)]])
    assert len(opened._waiting) == 0
    opened.answering = open_fake(FakeModel()).answering
    if isinstance(error, KeyError):
        assert codes(opened.segment([picture(2)])) == ["ok"]


def test_segments_are_made_on_one_stream_before_the_models_which_is_waited_for_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []
    stream = SimpleNamespace(wait_event=done.append)

    def new_stream(device: torch.device, priority: int) -> SimpleNamespace:
        done.append(priority)
        return stream

    monkeypatch.setattr(torch.cuda, "Stream", new_stream)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(torch.cuda, "Event", lambda: SimpleNamespace(record=done.append, synchronize=lambda: done.append("waited")))
    opened = open_fake(FakeModel())
    with opened._aside("the forward's end"):
        done.append("segments")
    with pytest.raises(IndexError), opened._aside("the next one's"):
        raise IndexError
    assert done == [-1, "the forward's end", "segments", stream, "waited", "the next one's", stream, "waited"]


def test_an_image_without_memory_beside_another_batch_is_tried_again_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    steps, model = Steps(), FakeModel()
    opened = steps.watch(model, monkeypatch, batch_size=1)
    begun = 0

    def crowded(pixel_values: torch.Tensor) -> Any:
        nonlocal begun
        begun += 1
        if begun - steps.done.count("segments") > 2:  # two batches at once, and the one that failed
            raise torch.OutOfMemoryError("CUDA out of memory")
        return model(pixel_values)

    opened.module = crowded
    model.capacity = 1
    assert codes(opened.segment([picture(seed) for seed in range(4)])) == ["ok"] * 4


def test_logits_are_let_go_before_the_next_forward_where_none_is_begun_early() -> None:
    kept: list[weakref.ref[torch.Tensor]] = []

    class Watched(FakeModel):
        def __call__(self, pixel_values: torch.Tensor) -> Any:
            assert not any(logits() is not None for logits in kept)
            answer = super().__call__(pixel_values)
            kept.append(weakref.ref(answer.logits))
            return answer

    assert codes(open_fake(Watched(), batch_size=2).segment([picture(seed) for seed in range(6)])) == ["ok"] * 6
    assert len(kept) == 3


def test_a_limit_counts_what_torch_holds_unused_and_so_stays_for_the_next_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    gigabyte, device = 1 << 30, torch.device("cuda")
    total, model, cached = 80 * gigabyte, 2 * gigabyte, 50 * gigabyte
    for reserved in (model, model + cached):  # before the first batch, and after many
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, reserved=reserved: (total - reserved, total))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _, reserved=reserved: reserved)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: model)
        assert default_batch(device, (800, 1088)) == 8  # 78 GiB * 0.6 / (800 * 1088 * 4096 bytes) = 14.1
        assert default_batch(device, (384, 384)) == 32
    assert default_batch(torch.device("cpu"), (384, 384)) == 1


class Brightness(torch.nn.Module):
    """As `FakeModel`, for the compiler."""

    def forward(self, pixel_values: torch.Tensor) -> Any:
        brightness = pixel_values.mean(dim=1) - 0.5
        return SimpleNamespace(logits=torch.stack([-brightness, brightness], dim=1))


@pytest.mark.slow
def test_a_compiled_model_sees_full_batches_and_answers_as_it_does_otherwise() -> None:
    inputs = [picture(seed) for seed in range(3)]
    compiled = Segmenter(Brightness(), describe(), torch.device("cpu"), batch_size=2, forward="compiled")
    compiled.warm_up_compiled()
    assert compiled.segment(inputs) == open_fake(FakeModel()).segment(inputs)


@pytest.mark.slow
def test_a_machine_without_a_compiler_is_refused_before_any_image(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.compiler.reset()
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    monkeypatch.setattr("torch._inductor.config.force_disable_caches", True)
    segmenter = Segmenter(Brightness(), describe(), torch.device("cpu"), batch_size=2, forward="compiled")
    with pytest.raises(Refused, match="cannot compile this model here, leave it out"):
        segmenter.warm_up_compiled()


def test_no_images_no_answers() -> None:
    assert open_fake(FakeModel()).segment([]) == []
