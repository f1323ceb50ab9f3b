"""The polygons of an export, and how well they stand for their masks."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shapely import MultiPolygon

from masklake.export.outlines import outline, overlap, simplified


@dataclass
class _Likeness:
    segments: int = 0
    total: float = 0.0
    least: float = 1.0


class Polygons:
    """Makes polygons with one tolerance, in any thread, and notes the IoU of each with its mask."""

    def __init__(self, tolerance: float) -> None:
        self._tolerance, self._lock = tolerance, threading.Lock()
        self._labels: dict[str, _Likeness] = {}

    def of(self, segment: Mapping[str, Any], height: int, width: int) -> MultiPolygon:
        """A segment's polygon, in pixels of an image of this size; empty where its mask is."""
        exact = outline(segment, height, width)
        made = simplified(exact, self._tolerance)
        likeness = overlap(exact, made) if self._tolerance else 1.0
        with self._lock:
            known = self._labels.setdefault(segment["label"], _Likeness())
            known.segments += 1
            known.total += likeness
            known.least = min(known.least, likeness)
        return made

    def iou(self) -> dict[str, dict[str, float]]:
        """Of each label: the mean and the least IoU of polygon and mask, and of how many segments."""
        return {
            label: {"mean": round(each.total / each.segments, 5), "least": round(each.least, 5), "segments": each.segments}
            for label, each in sorted(self._labels.items())
        }
