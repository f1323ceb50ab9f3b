"""Post-processing as the papers' repositories describe it, written for reading: float64, one query and one pixel rule at a time.

Mask2Former's `panoptic_inference`, `instance_inference` and `semantic_inference` (facebookresearch/Mask2Former). Besides masks, every
answer says which pixels, and whether whole segments, hang on rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Size = tuple[int, int]


@dataclass
class LiteralSegment:
    """One segment and its mask [H, W]."""

    label_id: int
    score: float
    mask: Mask
    query: int = -1


@dataclass
class Answer:
    """Segments in their order, and the pixels [H, W] that rounding could turn; `unsure`: a whole segment hangs on rounding."""

    segments: list[LiteralSegment] = field(default_factory=list)
    doubt: Mask = field(default_factory=lambda: np.zeros((0, 0), bool))
    unsure: bool = False


DOUBT = 1e-5


def resize_line(values: Array, to: int) -> Array:
    """Bilinear with half-pixel centres along the first axis: output i looks at input (i + 0.5) n / to - 0.5, clamped."""
    count = len(values)
    out = np.empty((to, *values.shape[1:]))
    for i in range(to):
        at = min(max((i + 0.5) * count / to - 0.5, 0.0), count - 1.0)
        low = int(at)
        high = min(low + 1, count - 1)
        out[i] = values[low] * (1 - (at - low)) + values[high] * (at - low)
    return out


def resize(image: Array, size: Size) -> Array:
    """A map [h, w] to `size`."""
    rows = resize_line(image, size[0])
    return np.ascontiguousarray(resize_line(np.ascontiguousarray(rows.T), size[1]).T)


def upsample(logits: Array, padded: Size, resized: Size, original: Size) -> Array:
    """One query's logits [hm, wm] at the original size: to the padded input, crop the padding, to the original."""
    return resize(resize(logits, padded)[: resized[0], : resized[1]], original)


def sigmoid(logits: Array) -> Array:
    """1 / (1 + exp(-x)) without overflow."""
    return np.where(logits >= 0, 1 / (1 + np.exp(-np.abs(logits))), np.exp(-np.abs(logits)) / (1 + np.exp(-np.abs(logits))))


def softmax(logits: Array) -> Array:
    """Over one row."""
    powers = np.exp(logits - logits.max())
    probabilities: Array = powers / powers.sum()
    return probabilities


def panoptic(
    class_logits: Array,
    mask_logits: Array,
    sizes: tuple[Size, Size, Size],
    things: frozenset[int],
    object_threshold: float = 0.8,
    overlap_threshold: float = 0.8,
) -> Answer:
    """`class_logits` [Q, K + 1], `mask_logits` [Q, hm, wm], `sizes`: padded, resized, original."""
    answer = Answer(doubt=np.zeros(sizes[2], bool))
    kept: list[tuple[int, int, float, Array]] = []
    for query, row in enumerate(class_logits):
        probabilities = softmax(row)
        label = int(probabilities.argmax())
        if label != len(row) - 1 and probabilities[label] > object_threshold:
            kept.append((query, label, float(probabilities[label]), upsample(mask_logits[query], *sizes)))
    if not kept:
        return answer
    weighted = np.stack([score * sigmoid(logits) for _, _, score, logits in kept])
    winner = weighted.argmax(axis=0)
    best = np.sort(weighted, axis=0)
    close = best[-1] - best[-2] < DOUBT * best[-1] if len(kept) > 1 else np.zeros(sizes[2], bool)
    merged: dict[int, LiteralSegment] = {}
    for index, (query, label, score, logits) in enumerate(kept):
        own = sigmoid(logits) >= 0.5
        near = np.abs(sigmoid(logits) - 0.5) < DOUBT
        won = winner == index
        mask = won & own
        answer.doubt |= near & (won | close)
        might_win = close & (weighted[index] >= best[-1] * (1 - DOUBT))
        answer.unsure |= hangs_on_rounding(won, own, might_win, near, overlap_threshold)
        if not mask.any() or won.sum() / own.sum() < overlap_threshold:
            continue
        if label in things or label not in merged:
            segment = LiteralSegment(label, score, mask, query)
            answer.segments.append(segment)
            if label not in things:
                merged[label] = segment
        else:
            merged[label].mask = merged[label].mask | mask
            merged[label].score = max(merged[label].score, score)
    answer.doubt |= close
    answer.segments.sort(key=lambda segment: (-segment.score, segment.label_id, segment.query))
    return answer


def hangs_on_rounding(won: Mask, own: Mask, might_win: Mask, near: Mask, overlap_threshold: float) -> bool:
    """Whether a query counts or not depends on pixels that rounding could turn."""
    results = set()
    for wins, owns in (
        (won | might_win, own & ~near),
        (won & ~might_win, own | near),
        (won, own),
        (won | might_win, own | near),
        (won & ~might_win, own & ~near),
    ):
        results.add(bool((wins & owns).any() and wins.sum() / max(owns.sum(), 1) >= overlap_threshold))
    return len(results) > 1


def instance(
    class_logits: Array,
    mask_logits: Array,
    sizes: tuple[Size, Size, Size],
    things: frozenset[int],
    score_threshold: float = 0.0,
    max_instances: int = 100,
) -> Answer:
    """The best pairs of query and class; every one with its own mask."""
    answer = Answer(doubt=np.zeros(sizes[2], bool))
    pairs = []
    for query, row in enumerate(class_logits):
        probabilities = softmax(row)
        pairs += [(-float(probabilities[label]), query, label) for label in range(len(row) - 1)]
    pairs.sort()
    for negative, query, label in pairs[:max_instances]:
        if label not in things:
            continue
        logits = upsample(mask_logits[query], *sizes)
        mask = logits > 0
        if not mask.any():
            continue
        score = -negative * float(sigmoid(logits)[mask].mean())
        answer.doubt |= np.abs(sigmoid(logits) - 0.5) < DOUBT
        if score >= score_threshold:
            answer.segments.append(LiteralSegment(label, score, mask, query))
    answer.segments.sort(key=lambda segment: (-segment.score, segment.label_id, segment.query))
    return answer


def semantic_values(class_logits: Array, mask_logits: Array, padded: Size, resized: Size) -> Array:
    """Sum over queries of class probability x mask probability at the padded size, cropped [K, rh, rw]."""
    total = np.zeros((class_logits.shape[1] - 1, *padded))
    for row, logits in zip(class_logits, mask_logits, strict=True):
        total += softmax(row)[:-1, None, None] * sigmoid(resize(logits, padded))
    return total[:, : resized[0], : resized[1]]


def leading(values: Array, original: Size) -> tuple[NDArray[np.int64], Mask]:
    """The leading class of values [K, h, w] at every original pixel, and the pixels where the lead is within rounding."""
    resized = np.stack([resize(one, original) for one in values])
    best = np.sort(resized, axis=0)
    close = best[-1] - best[-2] < DOUBT * np.maximum(1, np.abs(best[-1])) if len(values) > 1 else np.zeros(original, bool)
    return resized.argmax(axis=0), close


def semantic(class_logits: Array, mask_logits: Array, sizes: tuple[Size, Size, Size]) -> tuple[NDArray[np.int64], Mask]:
    """Class of every original pixel, and the pixels where the lead is within rounding."""
    return leading(semantic_values(class_logits, mask_logits, sizes[0], sizes[1]), sizes[2])
