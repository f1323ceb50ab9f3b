"""What post-processing asks of a GPU and of its host, counted without one: operations, bytes moved, waits, and the host's own time.

    python -m jobs.benchmarks.postprocess_counts --output jobs/benchmarks/results/postprocess_counts.json

The code that a GPU runs works on CPU tensors here, image by image with torch's operations, and together with Triton's kernels. Each of
torch's operations that is not a view counts once, with the bytes that it reads and writes; a kernel counts once, with its maps and codes
(what it writes is made by torch, uncounted). A wait is what blocks the host on a GPU: `nonzero`, a value or array for the host, a copy
from memory that is not page-locked. The host's time is what is left beside torch's operations,
an upper bound: a CPU frees memory in it.

Beside it: SAM 3's answers, the assignment of objects to queries in training, and how full batches of photographs are.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from jobs.benchmarks import gpu_exactness, models
from masklake.inference import batched, dense, fused, postprocess
from masklake.inference.family import Found
from masklake.inference.geometry import Axis, Geometry
from masklake.inference.model_input import ModelInput
from masklake.inference.preprocess import Frame, ResizePlan
from masklake.inference.segments import Settings
from masklake.inference.waiting import Call, Kind, Waiting

_QUERIES, _CLASSES, _COARSE, _INPUT = 100, 133, (96, 96), (384, 384)  # Mask2Former Swin-T at 384, COCO
_KEPT = 25
_SIZES = {"640x480": (480, 640), "1920x1080": (1080, 1920)}
_WAITS = ("aten::nonzero", "aten::_local_scalar_dense", "aten::is_nonzero")


@dataclass
class Counts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts all operations while it is entered."""

    operations: int = 0
    bytes: int = 0
    waits: int = 0
    seconds: float = 0.0
    paused: bool = field(default=False)

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run and count one operation."""
        begin = time.thread_time()
        result = func(*args, **(kwargs or {}))
        took = time.thread_time() - begin
        if not self.paused:
            self.seconds += took
            name = func._schema.name
            self.waits += name in _WAITS
            if not func.is_view and not name.startswith(("aten::empty", "aten::detach", "aten::_local")):
                self.operations += 1
                self.bytes += sum(_bytes(each) for each in (*args, *(kwargs or {}).values(), result))
        return result

    @contextmanager
    def kernel(self, moved: int) -> Iterator[None]:
        """What is done inside is one kernel on a GPU, which moves so many bytes."""
        self.operations += 1
        self.bytes += moved
        self.paused, begin = True, time.thread_time()
        yield
        self.paused = False
        self.seconds += time.thread_time() - begin

    @contextmanager
    def host_copies(self) -> Iterator[None]:
        """Count copies between the host and the device, which are none on a CPU."""
        real_cpu, real_to, real_move = torch.Tensor.cpu, torch.Tensor.to, batched._to_device

        def cpu(tensor: torch.Tensor) -> torch.Tensor:
            self.waits += not self.paused
            return tensor

        def to(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            self.waits += not self.paused and bool(args) and isinstance(args[0], torch.device) and not kwargs.get("non_blocking")
            moved: torch.Tensor = real_to(tensor, *args, **kwargs)
            return moved

        def move(values: Any, device: torch.device) -> torch.Tensor:  # from page-locked memory
            self.operations += 1
            self.bytes += 2 * values.nbytes
            return torch.from_numpy(values)

        torch.Tensor.cpu, torch.Tensor.to, batched._to_device = cpu, to, move  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            torch.Tensor.cpu, torch.Tensor.to, batched._to_device = real_cpu, real_to, real_move  # type: ignore[method-assign]


def _bytes(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return int(value.numel() * value.element_size())
    return sum(_bytes(each) for each in value) if isinstance(value, (list, tuple)) else 0


@contextmanager
def _kernels_by_torch(counts: Counts) -> Iterator[None]:
    """Put torch in the place of each kernel."""
    real = {name: getattr(fused, name) for name in _STAND_INS}
    usable = fused.is_usable, fused.is_usable_for_classes
    for name, stand_in in _STAND_INS.items():
        setattr(fused, name, _counted(counts, stand_in))
    fused.is_usable = lambda maps, axes, padded=False: True
    fused.is_usable_for_classes = lambda maps, axes: True
    try:
        yield
    finally:
        for name, function in real.items():
            setattr(fused, name, function)
        fused.is_usable, fused.is_usable_for_classes = usable


def _counted(counts: Counts, stand_in: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arguments: Any) -> Any:
        maps = arguments[0]
        moved = _bytes(maps if isinstance(maps, torch.Tensor) else maps.values) + _written(stand_in, arguments)
        with counts.kernel(moved):
            return stand_in(*arguments)

    return run


def _written(stand_in: Callable[..., Any], arguments: Any) -> int:
    if stand_in is not _class_values:
        pixels = sum(len(arguments[0].images) * axis[0].original * axis[1].original for axis in [arguments[0].axes])
        return int(pixels * arguments[-1].element_size())
    maps, weights, axes = arguments
    pixels = axes[0].resized * axes[1].resized  # sigmoids are written and read by the product, whose sums are written twice
    return int(4 * pixels * (2 * len(maps) + 3 * weights.shape[1]))


def _images(maps: fused.Maps) -> Iterator[tuple[slice, int, torch.Tensor]]:
    for first, count, begin in maps.images.tolist():
        yield slice(first, first + count), begin, maps.values[first : first + count]


def _panoptic(maps: fused.Maps, cost: torch.Tensor, threshold: float, own: torch.Tensor, codes: torch.Tensor) -> None:
    for part, begin, values in _images(maps):
        for rows, columns, found in dense._strips(values, maps.axes):
            reached = found >= threshold
            own[part] += reached.sum(dim=(1, 2))
            winner = found.neg_().exp_().add_(1).mul_(cost[part, None, None]).argmin(dim=0, keepdim=True)
            code = (2 * winner + reached.gather(0, winner))[0].T.to(codes.dtype)
            _view(codes, begin, maps.axes)[columns, rows] = code


def _leading(maps: fused.Maps, codes: torch.Tensor) -> None:
    for _, begin, values in _images(maps):
        found = dense.leading_class(values, (maps.axes[0].original, maps.axes[1].original))
        _view(codes, begin, maps.axes).copy_(found)


def _instance(maps: fused.Maps, sums: torch.Tensor, words: torch.Tensor) -> None:
    bit = (1 << torch.arange(32, dtype=torch.int64)).to(torch.int32)
    for part, begin, values in _images(maps):
        for rows, columns, found in dense._strips(values, maps.axes):
            inside = found > 0
            word = (inside * bit[: len(found), None, None]).sum(dim=0, dtype=torch.int32)
            _view(words, begin, maps.axes)[columns, rows] = word.T
            sums[part] += (found.sigmoid_() * inside * 2.0**24).sum(dim=(1, 2), dtype=torch.float64).long()


def _view(codes: torch.Tensor, begin: int, axes: tuple[Axis, Axis]) -> torch.Tensor:
    height, width = axes[0].original, axes[1].original
    return codes[begin : begin + height * width].view(width, height)


def _class_values(maps: torch.Tensor, weights: torch.Tensor, axes: tuple[Axis, Axis]) -> torch.Tensor:
    return dense.class_values(maps, weights, axes)


_STAND_INS: dict[str, Callable[..., Any]] = {
    "panoptic_codes": _panoptic,
    "leading_codes": _leading,
    "instance_words": _instance,
    "class_values": _class_values,
}


def logits(size: tuple[int, int], images: int) -> tuple[batched.Logits, Settings]:
    """Of patchworks: 25 queries of an image are sure of a class and of a patch with a wavy edge; the others of nothing."""
    rng = np.random.default_rng(0)
    classes = rng.standard_normal((images, _QUERIES, _CLASSES + 1)).astype(np.float32)
    masks = np.full((images, _QUERIES, *_COARSE), -6, np.float32) + rng.standard_normal((images, _QUERIES, *_COARSE)).astype(np.float32)
    for image in range(images):
        patches = models.patchwork(_COARSE, _KEPT, image).patch
        for patch in range(_KEPT):
            masks[image, patch] += 12 * (patches == patch)
            classes[image, patch, rng.integers(_CLASSES)] += 14
    classes[:, _KEPT:, -1] += 14
    settings = Settings({label: str(label) for label in range(_CLASSES)}, frozenset(range(80)))
    return batched.Logits(torch.from_numpy(classes), torch.from_numpy(masks), [Geometry(_INPUT, _INPUT, size)] * images), settings


def count(task: str, size: tuple[int, int], images: int) -> dict[str, Any]:
    """Figures an image, and waits a batch: `one_by_one`, by torch, and `together`, by kernels."""
    given, settings = logits(size, images)
    _fill_caches(given)
    ways = {
        "one_by_one": lambda: gpu_exactness.one_by_one(task, given, settings),
        "together": lambda: batched.TASKS[task](given, settings),
    }
    found: dict[str, Any] = {"images": images}
    answers = []
    for name, work in ways.items():
        counts = Counts()
        with torch.inference_mode(), counts, counts.host_copies(), _kernels_by_torch(counts):
            begin = time.thread_time()
            answers.append(work())  # type: ignore[no-untyped-call]
            host = time.thread_time() - begin - counts.seconds
        found[name] = _figures(counts, host, images)
    if answers[0] != answers[1]:
        raise SystemExit(f"{task}: the answers differ")
    return found


def _figures(counts: Counts, host: float, images: int) -> dict[str, Any]:
    return {
        "operations": round(counts.operations / images, 1),
        "megabytes": round(counts.bytes / images / 1e6, 1),
        "waits_a_batch": counts.waits,
        "host_ms": round(host / images * 1e3, 2),
    }


def concepts(size: tuple[int, int], images: int) -> dict[str, Any]:
    """The same of SAM 3's answers, 12 instances of two concepts: torch's operations do them, image by image."""
    instances, coarse = 12, (288, 288)
    patches = models.patchwork(coarse, instances, 0).patch
    masks = torch.from_numpy(np.stack([np.where(patches == patch, 6.0, -6.0) for patch in range(instances)]).astype(np.float32))
    half, score = instances // 2, np.linspace(0.9, 0.6, instances // 2)
    whose, finite = np.zeros(half, np.int64), np.ones(1, np.bool_)
    found = {label: Found(whose, score, masks[label * half : (label + 1) * half], finite) for label in range(2)}
    geometry, settings = Geometry((1008, 1008), (1008, 1008), size), Settings({0: "a", 1: "b"}, frozenset({0, 1}))
    postprocess.concepts(found, geometry, settings)
    counts, by_cells = Counts(), postprocess._by_cells
    postprocess._by_cells = lambda maps, geometry: False
    try:
        with torch.inference_mode(), counts, counts.host_copies():
            begin = time.thread_time()
            for _ in range(images):
                answer = postprocess.concepts(found, geometry, settings)
            host = time.thread_time() - begin - counts.seconds
    finally:
        postprocess._by_cells = by_cells
    if len(answer) != instances:
        raise SystemExit(f"concepts: {len(answer)} segments in place of {instances}")
    return {"images": images, "one_by_one": _figures(counts, host, images)}


def matching(images: int = 8, objects: int = 8) -> dict[str, Any]:
    """What one layer's assignment asks for in training, `one_by_one` as transformers does it and `together`: 100 queries, 12,544 points."""
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerHungarianMatcher

    from masklake.training import matching as ours

    matcher: Any = Mask2FormerHungarianMatcher(5.0, 5.0, 5.0)
    module = torch.nn.ModuleList([Mask2FormerHungarianMatcher(5.0, 5.0, 5.0)])
    ours.together(module)
    given, _ = logits((480, 640), images)
    masks = [(given.masks[image, :objects] > 0).float() for image in range(images)]
    labels = [torch.arange(objects)] * images
    found: dict[str, Any] = {"images": images}
    matched = []
    for name, way in (("one_by_one", matcher), ("together", module[0])):
        counts = Counts()
        way(given.masks, given.classes, masks, labels)
        torch.manual_seed(0)
        with counts, counts.host_copies():
            begin = time.thread_time()
            pairs = way(given.masks, given.classes, masks, labels)
            host = time.thread_time() - begin - counts.seconds
        matched.append([(one.tolist(), other.tolist()) for one, other in pairs])
        found[name] = _figures(counts, host, images)
    if matched[0] != matched[1]:
        raise SystemExit("matching: the assignments differ")
    return found


def batches(images: int = 4000, most: int = 8) -> dict[str, Any]:
    """How full batches are of photographs at 800/1333, in calls of 104: those of a call by itself, and of the calls that wait together."""
    rng = np.random.default_rng(0)
    usual = [(480, 640), (640, 480), (427, 640), (640, 427)]
    odd = [(640, int(640 * ratio)) for ratio in rng.uniform(0.5, 2, images)]
    sizes = [
        usual[which] if which < len(usual) else odd[index]
        for index, which in enumerate(rng.choice(5, images, p=[0.4, 0.15, 0.1, 0.05, 0.3]))
    ]
    plan, frame = ResizePlan("edges", (800, 1333)), Frame(divisor=32)
    kinds = [Kind(frame.padded(plan.target(*size))) for size in sizes]
    found: dict[str, Any] = {"images": images, "shapes": len(set(kinds)), "largest": most}
    for name, together in (("one_call", 1), ("four_calls", 4)):
        found[name] = round(images / _forwards(kinds, most, together), 2)
    return found


def _forwards(kinds: Sequence[Kind], most: int, together: int) -> int:
    """Batches that a Segmenter makes of images of these kinds, where so many callers wait."""
    waiting, calls, done = Waiting(), list[Call](), 0
    rest = [kinds[first : first + 104] for first in range(0, len(kinds), 104)][::-1]
    while rest or calls:
        while rest and len(calls) < together:
            mine = iter(rest.pop())
            item = ModelInput(np.zeros((1, 1, 3), np.uint8), (1, 1), ())
            calls.append(Call([item] * 104 if rest else [item] * (len(kinds) % 104 or 104), lambda _, mine=mine: next(mine)))  # type: ignore[misc]
            waiting.come(calls[-1])
        kind = waiting.kind(calls[0])
        assert kind is not None
        for member in waiting.take(kind, most, calls[0]):
            member.answer({})
        done += 1
        for call in [each for each in calls if not each.left]:
            calls.remove(call)
            waiting.go(call)
    return done


def _fill_caches(given: batched.Logits) -> None:
    geometry = given.geometries[0]
    straight = Geometry(geometry.resized, geometry.resized, geometry.original).axes(geometry.resized)
    for axis in (*geometry.axes(given.masks.shape), *straight):
        dense.on_device(axis, False, given.masks.device)
        dense.on_device(axis, True, given.masks.device)
        batched._points(axis, given.masks.device)


def main() -> None:
    """Count all tasks and sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dense._CPU_VALUES = dense._DEVICE_VALUES  # strips as on a device
    found: dict[str, Any] = {"torch": torch.__version__, "queries": _QUERIES, "classes": _CLASSES, "kept": _KEPT}
    for task in batched.TASKS:
        found[task] = {name: count(task, size, 8 if name == "640x480" and task != "semantic" else 2) for name, size in _SIZES.items()}
    found |= {"batches": batches(), "matching": matching(), "concepts": {"640x480": concepts(_SIZES["640x480"], 2)}}
    for counts in (*(each for task in (*batched.TASKS, "concepts") for each in found[task].values()), found["matching"]):
        del counts["one_by_one"]["host_ms"]  # freeing full-size maps outweighs it
    text = json.dumps(found, indent=1) + "\n"
    if arguments.output:
        arguments.output.write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
