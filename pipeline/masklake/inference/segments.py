"""What post-processing hands over: one segment of one image, and the settings that decide which segments there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


class NotFinite(ValueError):
    """The model answered NaN or infinity: there is no mask to be made of it."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of an image at its original size."""

    segment_id: int
    """1..n without holes, largest score first."""
    label_id: int
    label: str
    isthing: bool
    score: float
    area: int
    """Pixels."""
    bbox: tuple[int, int, int, int]
    """x, y, width, height in pixels."""
    counts: bytes
    """COCO's compressed run-length encoding of the mask."""
    class_score: float | None = None
    """The probability of the class alone, where the model says one for the segment: `score` may weigh the mask's, too."""


@dataclass(frozen=True)
class Settings:
    """What decides, besides the logits, which segments an image has. The defaults are Mask2Former's for COCO."""

    labels: Mapping[int, str]
    """Label of every class column of the logits ("no object" excluded)."""
    thing_ids: frozenset[int] = frozenset()
    """Classes whose segments are countable; panoptic merges the segments of every other class, instance leaves them out."""
    object_threshold: float = 0.8
    """Panoptic: a query counts when its class probability is larger."""
    overlap_threshold: float = 0.8
    """Panoptic: a segment counts when it won at least this share of its own mask."""
    mask_threshold: float = 0.5
    """Panoptic: probability from which a pixel belongs to a mask."""
    score_threshold: float = 0.0
    """Instance: an instance counts when its score is at least this."""
    max_instances: int = 100
    """Instance: how many (query, class) pairs are looked at, best first."""

    def is_thing(self, label_id: int) -> bool:
        """Whether the class is countable."""
        return label_id in self.thing_ids
