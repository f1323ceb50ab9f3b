"""Where the names of segments stand on a picture: on the object, where it is widest, and none over another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from masklake.table.masks import RGB

_IN_GRID, _LARGE = (440, 330), (1200, 800)  # what a picture has on a page for a desktop, and alone: CSS pixels, width and height
_LETTER, _BESIDE, _LINE = 7.2, 16, 18  # of a name in the grid, as `page.css` sets it: CSS pixels
_LONGEST = 40  # letters, as the template cuts them
_MOST = 40  # names of a picture
_LEAST = 0.0008  # of the picture: a smaller region is not named
_GRID = 160  # pixels of the longer side of the map in which the widest place is looked for


@dataclass(frozen=True)
class Name:
    """What stands on a region of a picture: `x` and `y` are its middle, as shares of width and height.

    `small` says that there is room for it in a grid of pictures; the others show where the picture is alone.
    """

    text: str
    colour: RGB
    score: float | None = None
    x: float = 0.5
    y: float = 0.5
    small: bool = True


def place(regions: Mapping[int, Name], ids: NDArray[np.int32], thinnest: float = 0.0) -> tuple[Name, ...]:
    """Give each region's name its place, the largest regions first; a name for which there is no room even alone is left out.

    Args:
        regions: by the id that the region has in `ids`; where they are is not looked at.
        ids: int32 [height, width], the region of each pixel; others than those in `regions` are passed over.
        thinnest: regions that are nowhere wider than this share of the picture's longer side are not named.
    """
    height, width = ids.shape
    step = max(1, max(height, width) // _GRID)
    small = ids[step // 2 :: step, step // 2 :: step]
    areas = np.bincount(small.ravel(), minlength=max(regions, default=0) + 1)
    largest = sorted((number for number in regions if areas[number] > _LEAST * small.size), key=lambda number: -areas[number])
    placed: list[Name] = []
    in_grid, alone = _Room(_IN_GRID, width / height), _Room(_LARGE, width / height)
    for number in largest[:_MOST]:
        name = regions[number]
        row, column, width_there = _widest(small == number)
        if width_there <= thinnest * max(small.shape):
            continue
        x, y = (column + 0.5) / small.shape[1], (row + 0.5) / small.shape[0]
        near = in_grid.box(name, x, y)
        everywhere = in_grid.is_free(near) and alone.is_free(alone.box(name, near.x, near.y))
        far = alone.box(name, near.x, near.y) if everywhere else alone.box(name, x, y)
        if not alone.is_free(far):
            continue
        alone.taken.append(far)
        if everywhere:
            in_grid.taken.append(near)
        placed.append(replace(name, x=far.x, y=far.y, small=everywhere))
    return tuple(placed)


@dataclass(frozen=True)
class _Box:
    """A name's middle, and half of its width and height, as shares of the picture's."""

    x: float
    y: float
    half_width: float
    half_height: float

    def meets(self, other: _Box) -> bool:
        beside = abs(self.x - other.x) >= self.half_width + other.half_width
        above = abs(self.y - other.y) >= self.half_height + other.half_height
        return not (beside or above)


class _Room:
    """A picture of a ratio (width / height) in some room on a page, and the names that it has."""

    def __init__(self, size: tuple[int, int], ratio: float) -> None:
        self._width = min(size[0], size[1] * ratio)
        self._height = self._width / ratio
        self.taken: list[_Box] = []

    def box(self, name: Name, x: float, y: float) -> _Box:
        """The box of a name, moved so that it lies within the picture."""
        letters = min(len(name.text), _LONGEST) + (5 if name.score is not None else 0)
        half_width = min(0.5, (_LETTER * letters + _BESIDE) / self._width / 2)
        half_height = min(0.5, _LINE / self._height / 2)
        return _Box(min(max(x, half_width), 1 - half_width), min(max(y, half_height), 1 - half_height), half_width, half_height)

    def is_free(self, box: _Box) -> bool:
        return not any(box.meets(other) for other in self.taken)


def _widest(mask: NDArray[np.bool_]) -> tuple[int, int, float]:
    """Row and column of the pixel that is farthest from everything outside, and how wide it is there, in pixels; the border counts as
    outside."""
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    within = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]  # all that is beside it is outside
    depth = squared_depth(within)
    row, column = np.unravel_index(int(np.argmax(depth)), within.shape)
    return int(rows[0] + row), int(columns[0] + column), 2 * math.sqrt(depth.max()) - 1


def squared_depth(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """The square of each pixel's distance to the nearest pixel outside, int32 [height, width]; what is beyond the border is outside.

    By columns, then over the rows' columns (Felzenszwalb and Huttenlocher, Distance Transforms of Sampled Functions, 2012), whose lower
    envelope is found by looking at all: for maps of a few hundred pixels. scipy has it, but takes a third of a second to be imported.
    """
    if mask.shape[1] > mask.shape[0]:
        return squared_depth(mask.T).T
    inside = np.pad(mask, 1)
    row = np.arange(inside.shape[0], dtype=np.int32)[:, None]
    above = np.maximum.accumulate(np.where(inside, 0, row), axis=0)
    below = np.minimum.accumulate(np.where(inside, row[-1], row)[::-1], axis=0)[::-1]
    along = np.minimum(row - above, below - row)[1:-1] ** 2
    column = np.arange(inside.shape[1], dtype=np.int32)
    across = (column[1:-1, None] - column) ** 2
    found: NDArray[np.int32] = (along[:, None] + across).min(axis=2)
    return found
