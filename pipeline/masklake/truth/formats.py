"""What a ground truth holds, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masklake.errors import Refused
from masklake.quality.instance import RunLengths
from masklake.schema import Task
from masklake.truth.settings import Format

Size = tuple[int, int]
"""Height, width in pixels."""

BACKGROUND = "background"
"""The name of pixels that no instance covers. They are judged only where the mapping names it: truth does not say what is there."""

BACKGROUND_ID = -1
"""Their category; no file's."""


class BadTruth(Refused):
    """One image's truth cannot be read, or contradicts itself."""


@dataclass(frozen=True)
class Category:
    """A class as truth names it; `isthing` is None where the format does not tell; `aliases` are other names that it has."""

    id: int
    name: str
    isthing: bool | None = None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listed:
    """A segment that a file lists. `mask` is COCO's (polygons, run lengths) where the file has it; `area`, in pixels, as the file says."""

    id: int
    category_id: int
    crowd: bool = False
    area: float | None = None
    mask: Any = None


@dataclass(frozen=True)
class TruthImage:
    """One image's truth, not yet read.

    `order` is its place among all; `name` is how truth names the image (a relative path), `stem` that the name has no extension, `suffix`
    what it may have at its end that the image's own name has not. `uri` is where truth says that the image is, `size` its (height, width)
    in pixels where truth says it, `pictures` the URIs of its PNGs, `data` their bytes once they are read, `segments` what a file lists.
    """

    order: int
    name: str
    stem: bool = False
    suffix: str = ""
    uri: str | None = None
    size: Size | None = None
    pictures: tuple[str, ...] = ()
    data: tuple[bytes, ...] | None = field(default=None, repr=False)
    segments: tuple[Listed, ...] = ()

    def in_image(self, size: Size) -> TruthImage:
        """The same of an image that is known to be of this size, for formats that write places as shares of it."""
        return self if self.pictures or self.size is not None else replace(self, size=size)


@dataclass(frozen=True)
class Region:
    """A segment of an id map."""

    category_id: int
    crowd: bool = False


@dataclass(frozen=True, eq=False)
class Painted:
    """An image's truth whose segments do not overlap: `ids` int32 [H, W] is the place of each pixel's segment among `segments`, from 1 on,
    and 0 where nothing is known."""

    ids: NDArray[np.int32]
    segments: tuple[Region, ...]


@dataclass(frozen=True, eq=False)
class Drawing:
    """One object with its own mask; `area` in pixels, as the file says it, else the mask's."""

    category_id: int
    mask: RunLengths
    area: float
    crowd: bool = False


@dataclass(frozen=True, eq=False)
class Drawn:
    """An image's truth whose masks may overlap; what none of them covers has no object."""

    size: Size
    objects: tuple[Drawing, ...]


class Coding:
    """How images' truth is written down: what turns a `TruthImage` into arrays. Small and picklable; it is used anywhere."""

    tasks: tuple[Task, ...]
    """The tasks that it can judge, the first of them by default."""
    listed: bool
    """Whether `TruthImage.segments` are what is on an image; else only its files tell."""
    objects_only: bool
    """Whether pixels without a segment are known to be of no object; else nothing is known of them."""

    def read(self, image: TruthImage) -> Painted | Drawn:
        """The arrays of one image.

        Raises:
            BadTruth: it cannot be read, or contradicts itself.
        """
        raise NotImplementedError

    def shown(self, image: TruthImage) -> list[tuple[int, bool]]:
        """Category of each segment, and whether it is a crowd.

        Raises:
            BadTruth: as `read`.
        """
        if self.listed:
            return [(each.category_id, each.crowd) for each in image.segments]
        found = self.read(image)
        segments = found.objects if isinstance(found, Drawn) else found.segments
        return [(each.category_id, each.crowd) for each in segments]


@dataclass(frozen=True)
class Truth:
    """A ground truth, its images not yet read.

    `uri` is the file or folder that was read; `images_at` the folder of the images where the format knows it; `left_out` counts what the
    file holds and nobody can use, by why.
    """

    format: Format
    uri: str
    categories: tuple[Category, ...]
    images: tuple[TruthImage, ...]
    coding: Coding
    images_at: str | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
