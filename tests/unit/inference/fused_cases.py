"""What `test_fused` runs in a process whose Triton interprets."""

from __future__ import annotations

import numpy as np
import torch

from masklake.inference import batched, dense, instance, panoptic
from masklake.inference.geometry import Geometry
from masklake.inference.segments import NotFinite, Segment, Settings

Size = tuple[int, int]


def random_batch(seed: int) -> tuple[batched.Logits, Settings]:
    """Images of odd sizes, some alike, some padded, one in five without an answer; from flat logits to steep ones, and ties."""
    rng = np.random.default_rng(seed)
    coarse = (int(rng.integers(1, 9)), int(rng.integers(1, 9)))
    padded = (4 * coarse[0], 4 * coarse[1])
    images, queries, classes = int(rng.integers(1, 5)), int(rng.choice([1, 3, 35], p=[0.3, 0.6, 0.1])), int(rng.integers(1, 5))
    geometries: list[Geometry] = []
    for _ in range(images):
        resized = padded if rng.random() < 0.5 else (int(rng.integers(1, padded[0] + 1)), int(rng.integers(1, padded[1] + 1)))
        original = (int(rng.integers(1, 40)), int(rng.integers(1, 40)))
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


def _one(task: str, classes: np.typing.NDArray[np.float64], maps: torch.Tensor, geometry: Geometry, settings: Settings) -> list[Segment]:
    if task == "panoptic":
        kept = panoptic.kept_queries(classes, settings)
        return dense.panoptic_dense(maps[kept.query], kept, geometry, settings) if kept.query.size else []
    if task == "instance":
        pairs = instance.best_pairs(classes, settings)
        return dense.instance_dense(maps[np.unique(pairs.query)], pairs, geometry, settings) if pairs.query.size else []
    weights = torch.from_numpy(panoptic.softmax(classes)[:, :-1].astype(np.float32)).to(maps.device)
    axes = geometry.axes(maps.shape)
    codes = dense.leading_class(dense.class_values(maps, weights, axes), geometry.original)
    confidences = torch.einsum("qhw,qk->khw", maps.sigmoid(), weights).clamp_(max=1)
    return dense.semantic_dense(codes, confidences, axes, settings)


def compare(task: str, seeds: range) -> None:
    """Raises: AssertionError: an answer differs."""
    # numpy, which interprets, has another exponential than torch on a CPU; on a GPU both are CUDA's
    torch.Tensor.exp_ = lambda self: self.copy_(torch.from_numpy(np.exp(self.numpy())))  # type: ignore[method-assign]
    torch.Tensor.sigmoid_ = lambda self: self.copy_(1 / (1 + torch.from_numpy(np.exp(-self.numpy()))))  # type: ignore[method-assign]
    compared = 0
    for seed in seeds:
        logits, settings = random_batch(seed)
        assert logits.is_fused(task)
        got = batched.TASKS[task](logits, settings)
        want = one_by_one(task, logits, settings)
        assert ["not finite" if isinstance(answer, NotFinite) else answer for answer in got] == want, seed
        compared += sum(len(answer) for answer in want)
    assert compared > 2 * len(seeds)
