"""What can be asked of a model."""

from __future__ import annotations

from enum import StrEnum


class Task(StrEnum):
    """What is asked of a model; in a panoptic or semantic answer masks never overlap, in an instance answer they may."""

    PANOPTIC = "panoptic"
    INSTANCE = "instance"
    SEMANTIC = "semantic"
