"""Whether Triton's post-processing kernels give the bytes that torch's operations do, on a device: `check`, or this module as a program.

Needs torch, Triton and numpy alone. Without a GPU, tests do the same under Triton's interpreter.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from masklake.inference import batched, dense, fused, instance, panoptic
from masklake.inference.geometry import Geometry
from masklake.inference.segments import NotFinite, Segment, Settings

LONGEST = 700
"""Of the originals' sides, in pixels."""


def random_batch(seed: int, longest: int) -> tuple[batched.Logits, Settings]:
    """Images of odd sizes, some alike, some padded, one in five without an answer; from flat logits to steep ones, and ties."""
    rng = np.random.default_rng(seed)
    coarse = (int(rng.integers(1, 9)), int(rng.integers(1, 9)))
    padded = (4 * coarse[0], 4 * coarse[1])
    images, queries, classes = int(rng.integers(1, 5)), int(rng.choice([1, 3, 35], p=[0.3, 0.6, 0.1])), int(rng.integers(1, 5))
    geometries: list[Geometry] = []
    for _ in range(images):
        resized = padded if rng.random() < 0.5 else (int(rng.integers(1, padded[0] + 1)), int(rng.integers(1, padded[1] + 1)))
        original = (int(rng.integers(1, longest)), int(rng.integers(1, longest)))
        geometries.append(geometries[-1] if geometries and rng.random() < 0.4 else Geometry(padded, resized, original))
    class_logits = rng.standard_normal((images, queries, classes + 1)) * rng.choice([1, 4, 10])
    mask_logits = rng.standard_normal((images, queries, *coarse)) * rng.choice([0.3, 3, 20, 60]) + rng.choice([-5, 0, 0, 3])
    if rng.random() < 0.3:
        mask_logits[:, queries // 2 :] = mask_logits[:, : queries - queries // 2]
    if rng.random() < 0.2:
        mask_logits[0, 0, 0, 0] = np.nan
    if rng.random() < 0.2:
        class_logits[-1] = np.inf
    labels = {label: str(label) for label in range(classes)}
    settings = Settings(
        labels,
        frozenset(label for label in labels if rng.random() < 0.6),
        object_threshold=float(rng.choice([0, 0.5])),
        overlap_threshold=float(rng.choice([0, 0.3, 0.8])),
        mask_threshold=float(rng.choice([0.5, 0.5, 0.3, 0, 1])),
        score_threshold=float(rng.choice([0, 0.3])),
    )
    dtype = torch.bfloat16 if rng.random() < 0.5 else torch.float32
    tensors = [torch.from_numpy(part.astype(np.float32)).to(dtype) for part in (class_logits, mask_logits)]
    return batched.Logits(tensors[0], tensors[1], geometries), settings


def one_by_one(task: str, logits: batched.Logits, settings: Settings) -> list[list[Segment] | str]:
    """The reference: `dense`, image by image."""
    answers: list[list[Segment] | str] = []
    for classes, masks, geometry in zip(logits.classes, logits.masks, logits.geometries, strict=True):
        if not classes.isfinite().all() or not masks.isfinite().all():
            answers.append("not finite")
        else:
            answers.append(_one(task, classes.double().cpu().numpy(), masks.float(), geometry, settings))
    return answers


def _one(task: str, classes: NDArray[np.float64], maps: torch.Tensor, geometry: Geometry, settings: Settings) -> list[Segment]:
    if task == "panoptic":
        kept = panoptic.kept_queries(classes, settings)
        return dense.panoptic_dense(maps[torch.from_numpy(kept.query)], kept, geometry, settings) if kept.query.size else []
    if task == "instance":
        pairs = instance.best_pairs(classes, settings)
        return dense.instance_dense(maps[torch.from_numpy(np.unique(pairs.query))], pairs, geometry, settings) if pairs.query.size else []
    weights = torch.from_numpy(panoptic.softmax(classes)[:, :-1].astype(np.float32)).to(maps.device)
    axes = geometry.axes(maps.shape)
    codes = dense.leading_class(dense.class_values(maps, weights, axes), geometry.original)
    confidences = torch.einsum("qhw,qk->khw", maps.sigmoid(), weights).clamp_(max=1)
    return dense.semantic_dense(codes, confidences, axes, settings)


def check(device: str = "cuda", cases: int = 60) -> dict[str, Any]:
    """Answer random batches together by Triton's kernels, and one by one by torch's operations, on the same device.

    Returns:
        `method`, and for each task: `images`, `segments`, `differing_segments` (in any field), `differing_bytes` of run lengths,
        `largest_score_difference`, and `not_together`: batches that Triton could not answer (all zero where it is right).
    """
    result: dict[str, Any] = {"device": device, "method": fused.method(torch.device(device))}
    with torch.inference_mode():
        for task in batched.TASKS:
            counts: dict[str, float] = dict.fromkeys(
                ("images", "segments", "differing_segments", "differing_bytes", "largest_score_difference", "not_together"), 0
            )
            for seed in range(cases):
                logits, settings = random_batch(seed, LONGEST if seed % 5 == 0 else 40)
                moved = batched.Logits(logits.classes.to(device), logits.masks.to(device), logits.geometries)
                _count(batched.answered_together(task, moved, settings), one_by_one(task, moved, settings), counts)
            result[task] = counts
    return result


def _count(got: list[batched.Answer] | None, want: list[list[Segment] | str], counts: dict[str, float]) -> None:
    if got is None:
        counts["not_together"] += 1
        return
    for one, other in zip(got, want, strict=True):
        counts["images"] += 1
        if isinstance(one, NotFinite) or isinstance(other, str):
            counts["differing_segments"] += isinstance(one, NotFinite) != isinstance(other, str)
            continue
        counts["segments"] += len(other)
        counts["differing_segments"] += abs(len(one) - len(other))
        for mine, other_one in zip(one, other, strict=False):
            counts["differing_segments"] += mine != other_one
            counts["differing_bytes"] += abs(len(mine.counts) - len(other_one.counts))
            counts["differing_bytes"] += sum(a != b for a, b in zip(mine.counts, other_one.counts, strict=False))
            counts["largest_score_difference"] = max(counts["largest_score_difference"], abs(mine.score - other_one.score))


def main() -> None:
    """Print what `check` finds."""
    parser = argparse.ArgumentParser(description="Triton's post-processing beside torch's, to the last byte.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--cases", type=int, default=60)
    arguments = parser.parse_args()
    print(json.dumps(check(arguments.device, arguments.cases), indent=1))


if __name__ == "__main__":
    main()
