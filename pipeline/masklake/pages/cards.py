"""A picture beside its masks, reduced for a page: what galleries and evaluations show of a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from masklake.table.masks import overlay, palette

LONG_SIDE = 640  # of an inlined picture, pixels
_ALPHA = 0.55  # stronger than usual, so that a colour reads as its legend on a small picture


@dataclass(frozen=True)
class LegendEntry:
    """One label of one picture: its colour there (RGB, 0..255), the highest score and the number of its segments."""

    label: str
    colour: tuple[int, int, int]
    score: float
    count: int


@dataclass(frozen=True)
class Card:
    """One picture of the gallery: `image` and `overlay` are uint8 [H, W, 3] of one size."""

    uri: str
    task: str
    image: NDArray[np.uint8]
    overlay: NDArray[np.uint8]
    legend: tuple[LegendEntry, ...]


def card_from(image: NDArray[np.uint8], row: Mapping[str, Any]) -> Card:
    """One row of the table beside its picture, both reduced to at most `LONG_SIDE` pixels; full-size masks are decoded one at a time.

    Args:
        image: uint8 [H, W, 3], the upright picture, of the row's size or reduced.
        row: `image_uri, task, height, width, segments` of a row with status `ok`.
    """
    scale = min(1.0, LONG_SIDE / max(image.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    small = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0))
    size = (row["height"], row["width"])
    segments = [{**segment, "counts": _reduced_counts(segment["counts"], size, (height, width))} for segment in row["segments"]]
    return Card(row["image_uri"], row["task"], small, overlay(small, segments, _ALPHA), _legend(segments))


def _reduced_counts(counts: bytes, size: tuple[int, int], reduced: tuple[int, int]) -> bytes:
    """The run lengths of a mask of [height, width] `size`, made smaller by taking the nearest pixels."""
    mask = coco_mask.decode({"size": list(size), "counts": counts})
    rows, columns = ((2 * np.arange(to) + 1) * full // (2 * to) for full, to in zip(size, reduced, strict=True))
    encoded: bytes = coco_mask.encode(np.asfortranarray(mask[np.ix_(rows, columns)]))["counts"]
    return encoded


def _legend(segments: Sequence[Mapping[str, Any]]) -> tuple[LegendEntry, ...]:
    """One entry per label, in the order of the segments: largest score first."""
    by_label: dict[tuple[int, str], list[float]] = {}
    for segment in segments:
        by_label.setdefault((segment["label_id"], segment["label"]), []).append(float(segment["score"]))
    return tuple(LegendEntry(label, palette(label_id), max(scores), len(scores)) for (label_id, label), scores in by_label.items())
