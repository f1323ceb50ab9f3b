"""What a user can set about the answers of a model. Imports nothing heavy: the driver reads this before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

POSTPROCESS_VERSION = 1
"""Raise it when the same logits give other segments than before: it is part of the fingerprint, so stored answers become old."""

HALF_PRECISION_VERSION = 1
"""Raise it when a model in half precision gives other logits than before: part of its answers' fingerprint. 1: coordinates in float32."""


@dataclass(frozen=True)
class Options:
    """`None` means the default of the model's authors for the family and dataset."""

    tasks: tuple[str, ...]
    """Of panoptic, instance, semantic."""
    resolution: str = "checkpoint"
    """`checkpoint`, `reference` (the dataset's published test size), `HEIGHTxWIDTH`, or `SHORT/LONG`."""
    postprocess: Literal["exact", "hf"] = "exact"
    """`exact`: the original algorithms; `hf`: what transformers' own post-processing answers, to compare."""
    object_threshold: float | None = None
    overlap_threshold: float | None = None
    score_threshold: float | None = None
    max_instances: int = 100
    thing_labels: tuple[str, ...] | None = None
    """Labels that are things, where neither the checkpoint nor its dataset says."""
    labels: Mapping[int, str] | None = None
    """The classes' labels by id, where the checkpoint names none."""
    concepts: tuple[str, ...] | None = None
    """What to look for, of a model that is told."""
