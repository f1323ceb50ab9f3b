"""Whether a GPU answers as a CPU does: every family, every precision, in any company, with too little memory, and after its end."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pycocotools import mask as coco_mask

from jobs.benchmarks import gpu_exactness, models
from jobs.benchmarks.gpu import part
from jobs.benchmarks.gpu.part import Asked
from masklake.demo import MODEL as DEMO
from masklake.inference import checkpoint, deformable, preprocess
from masklake.inference.options import Options
from masklake.inference.preprocess import Size
from masklake.inference.segmenter import ModelInput, Segment, Segmenter
from tests.unit.inference import tiny_checkpoints, tiny_sam3

_LEAST = 0.2  # of the scores of a small SAM 3 with random weights
_DTYPES = ("float32", "float16", "bfloat16")


def families(asked: Asked) -> dict[str, Any]:
    """Every family's tiny checkpoint: segments of the device in each precision, against a CPU's in float32."""
    found: dict[str, Any] = {}
    sizes = [(90, 70), (70, 90), (121, 77)]
    for family in ("mask2former", "upernet") if asked.small else tiny_checkpoints.FAMILY_NAMES:
        folder = tiny_checkpoints.write(family, asked.scratch)
        tasks = ("panoptic", "instance", "semantic") if family in tiny_checkpoints.MASK_FAMILIES else ("semantic",)
        found[family] = _compared(folder, Options(tasks), asked.device, sizes)
    concepts = Options(("instance",), score_threshold=_LEAST, concepts=("dog", "person"))
    found["sam3"] = _compared(tiny_sam3.write(asked.scratch), concepts, asked.device, sizes)
    return found


def demo(asked: Asked) -> dict[str, Any]:
    """The trained demo model on scenes; `moved` is the share of pixels of its masks that differ."""
    return _compared(DEMO, Options(("panoptic", "instance", "semantic")), asked.device, [(120, 160)] if asked.small else [(480, 640)] * 12)


def _compared(folder: Path, options: Options, device: str, sizes: Sequence[Size]) -> dict[str, Any]:
    description, tasks = checkpoint.describe(folder, options), options.tasks
    pictures = [models.scenes(size, index + 1)[-1] for index, size in enumerate(sizes)]
    inputs = [ModelInput(preprocess.resize(one, description.resize), (one.shape[0], one.shape[1]), tasks) for one in pictures]
    expected = Segmenter.load(folder, description, "cpu", "float32").segment(inputs)
    found: dict[str, Any] = {}
    for dtype in _DTYPES:
        segmenter = Segmenter.load(folder, description, device, dtype)
        answers = segmenter.segment(inputs)
        alone = segmenter.segment(inputs[:1])
        found[dtype] = {
            **_difference(expected, answers, sizes),
            "same alone": all(_counts(alone[0][task]) == _counts(answers[0][task]) for task in tasks),
        }
    return found


def _counts(answer: Any) -> list[bytes] | str:
    return [one.counts for one in answer] if isinstance(answer, list) else str(answer)


def _difference(expected: Sequence[Any], answers: Sequence[Any], sizes: Sequence[Size]) -> dict[str, Any]:
    """Segments that are there, and have one of the same label with an IoU of 0.5 or more; and the share of their pixels that differ."""
    there = matched = 0
    differ = pixels = 0.0
    failed: list[str] = []
    for one, other, size in zip(expected, answers, sizes, strict=True):
        for task in one:
            if not isinstance(one[task], list) or not isinstance(other[task], list):
                failed += [] if isinstance(other[task], list) else [f"{task}: {other[task]}"]
                continue
            there += len(one[task])
            for segment in one[task]:
                ious = [(_iou(segment, rival, size), rival) for rival in other[task] if rival.label_id == segment.label_id]
                iou, best = max(ious, key=lambda each: each[0], default=(0.0, None))
                if best is not None and iou >= 0.5:
                    matched += 1
                    union = (segment.area + best.area) / (1 + iou)
                    differ, pixels = differ + union * (1 - iou), pixels + union
    return {"segments": there, "found": matched, "moved": round(differ / max(1.0, pixels), 6), "failed": failed[:3]}


def _iou(one: Segment, other: Segment, size: Size) -> float:
    encoded = [{"size": list(size), "counts": each.counts} for each in (one, other)]
    return float(coco_mask.iou(encoded[:1], encoded[1:], [0])[0, 0])


def graphs(asked: Asked) -> dict[str, Any]:
    """Answers of the demo model with its forward from CUDA graphs that differ in a byte from the eager one's, in batches that repeat."""
    if asked.device == "cpu":
        return {"skipped": "there are no CUDA graphs on a CPU"}
    description = checkpoint.describe(DEMO, Options(tasks=("panoptic", "instance", "semantic")))
    pictures = [models.scenes((480, 640), seed + 1)[-1] for seed in range(12)]
    inputs = [ModelInput(preprocess.resize(one, description.resize), (480, 640), description.tasks) for one in pictures]
    found: dict[str, Any] = {}
    for dtype in _DTYPES:
        eager, replayed = (Segmenter.load(DEMO, description, "cuda", dtype, 4, forward=way) for way in ("eager", "graphs"))
        for part_of in (inputs, inputs, inputs[:3]):
            pairs = list(zip(eager.segment(part_of), replayed.segment(part_of), strict=True))
        pairs += list(zip(eager.segment(inputs), replayed.segment(inputs), strict=True))
        differ = sum(_counts(one[task]) != _counts(other[task]) for one, other in pairs for task in description.tasks)
        found[dtype] = {"answers": len(pairs) * len(description.tasks), "whose bytes differ": differ}
    return found


def attention(asked: Asked) -> dict[str, Any]:
    """The largest difference of the deformable attention's kernel from torch in float32, and how much faster it is."""
    if asked.device == "cpu":
        return {"skipped": "there is no kernel on a CPU"}
    shapes = [(12, 12), (24, 24), (48, 48)]
    tokens = sum(height * width for height, width in shapes)
    found = {}
    for dtype in (torch.bfloat16, torch.float16):
        values = torch.randn(16, tokens, 8, 32, device="cuda").to(dtype)
        offsets = torch.randn(16, tokens, 8, 3, 4, 2, device="cuda").mul(3).to(dtype)
        logits = torch.randn(16, tokens, 8, 12, device="cuda").to(dtype)
        exact = deformable.by_torch(values.float(), offsets.float(), logits.float(), shapes)
        kernel = deformable.by_triton(values, offsets, logits, shapes)
        found[str(dtype)] = {
            "largest difference": float((kernel.float() - exact).abs().max()),
            "ms by kernel": _ms(partial(deformable.by_triton, values, offsets, logits, shapes)),
            "ms by torch": _ms(partial(deformable.by_torch, values, offsets, logits, shapes)),
        }
    return found


def _ms(work: Callable[[], object], rounds: int = 10) -> float:
    work()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    begin.record()
    for _ in range(rounds):
        work()
    end.record()
    end.synchronize()
    return round(float(begin.elapsed_time(end)) / rounds, 3)


def kernels(asked: Asked) -> Any:
    """Post-processing's kernels against torch's operations on the same device: answers whose bytes differ, of random batches."""
    if asked.device == "cpu":
        return {"skipped": "there are no kernels on a CPU"}
    return gpu_exactness.check(asked.device)


def memory(asked: Asked) -> dict[str, Any]:
    """A batch that does not fit: every image has its answer all the same, and the batch is smaller afterwards."""
    if asked.device == "cpu":
        return {"skipped": "a CPU has no limit to set"}
    description = checkpoint.describe(DEMO, Options(tasks=("panoptic",), resolution="1024x1024"))
    segmenter = Segmenter.load(DEMO, description, "cuda", "float32", batch_size=32)
    picture = models.scenes((480, 640), 1)[0]
    inputs = [ModelInput(preprocess.resize(picture, description.resize), (480, 640), ("panoptic",))] * 32
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + 2 * 2**30) / total)
    try:
        answers = segmenter.segment(inputs)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    same = all(_counts(one["panoptic"]) == _counts(answers[0]["panoptic"]) for one in answers)
    return {"images": len(answers), "answered": sum(isinstance(one["panoptic"], list) for one in answers), "all the same": same}


def lost_device(asked: Asked) -> dict[str, Any]:
    """What a process does whose device is lost: a kernel that fails an assertion, then images."""
    if asked.device == "cpu":
        return {"skipped": "a CPU is not lost"}
    program = """
        import numpy as np, torch
        from masklake.demo import MODEL
        from masklake.inference import checkpoint, preprocess
        from masklake.inference.options import Options
        from masklake.inference.segmenter import ModelInput, Segmenter
        description = checkpoint.describe(MODEL, Options(tasks=("panoptic",)))
        segmenter = Segmenter.load(MODEL, description, "cuda", "bfloat16")
        image = ModelInput(np.zeros((128, 128, 3), np.uint8), (480, 640), ("panoptic",))
        segmenter.segment([image])
        try:
            torch.zeros(4, device="cuda")[torch.full((4,), 9, device="cuda")].cpu()
        except Exception as error:
            print("broken:", type(error).__name__)
        print("answer:", segmenter.segment([image]))
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return {"exit": done.returncode, "said": (done.stdout + done.stderr)[-600:]}


MEASUREMENTS = {
    "kernels": kernels,
    "attention": attention,
    "graphs": graphs,
    "demo": demo,
    "families": families,
    "memory": memory,
    "lost device": lost_device,
}

if __name__ == "__main__":
    sys.exit(part.run(MEASUREMENTS))
