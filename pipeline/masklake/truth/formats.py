"""What a ground truth holds, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from masklake.schema import Task


class Format(StrEnum):
    """How ground truth is written down."""

    PANOPTIC = "coco-panoptic"
    INSTANCES = "coco-instances"
    LABEL_MAPS = "label-maps"


TASKS: Mapping[Format, tuple[Task, ...]] = {
    Format.PANOPTIC: (Task.PANOPTIC, Task.SEMANTIC),
    Format.INSTANCES: (Task.INSTANCE, Task.SEMANTIC),
    Format.LABEL_MAPS: (Task.SEMANTIC,),
}
"""The tasks that a truth can judge, the first of them by default."""

BACKGROUND = "background"
"""The name of pixels that no instance covers. They are judged only where the mapping names it: truth does not say what is there."""

BACKGROUND_ID = -1
"""Their category; no file's."""


@dataclass(frozen=True)
class Category:
    """A class as truth names it; `isthing` is None where the format does not tell."""

    id: int
    name: str
    isthing: bool | None = None


@dataclass(frozen=True)
class TruthImage:
    """One image's truth, not yet read.

    `order` is its place among all; `name` is how truth names the image (a relative path), `stem` that the name has no extension. `size` is
    (height, width) in pixels where the format says it, `picture` the URI of its PNG, `data` the PNG once it is read, `segments` its COCO
    annotations or `segments_info`.
    """

    order: int
    name: str
    stem: bool = False
    uri: str | None = None
    size: tuple[int, int] | None = None
    picture: str | None = None
    data: bytes | None = field(default=None, repr=False)
    segments: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Truth:
    """`uri` is the file or folder that was read; `ignore_index` the value of label maps' pixels that are not judged."""

    format: Format
    uri: str
    categories: tuple[Category, ...]
    images: tuple[TruthImage, ...]
    ignore_index: int | None = None
