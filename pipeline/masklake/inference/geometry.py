"""Where a pixel of the original image lies in a coarse map of logits.

Logits [hm, wm] -> bilinear (align_corners=False) to the padded model input -> crop to the resized image -> bilinear to the original.
Each step is linear and separable, so along one axis an original pixel is a weighted sum of few neighbouring logits, and the value
along that axis is piecewise linear with *knots* at a few pixels of the padded input: at most two for each coarse cell. That gives
cells, inside which every value lies between the values at the cell's knots.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Size = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """The sizes (height, width) of one image on its way: `padded` model input, `resized` image in its top left corner, `original`."""

    padded: Size
    resized: Size
    original: Size

    def __post_init__(self) -> None:
        for axis in range(2):
            if not 0 < self.resized[axis] <= self.padded[axis] or self.original[axis] < 1:
                raise ValueError(f"sizes that do not fit into each other: {self}")

    def axes(self, coarse: tuple[int, ...]) -> tuple[Axis, Axis]:
        """Rows and columns for logits of size `coarse` (hm, wm); cached."""
        return (
            _axis(coarse[-2], self.padded[0], self.resized[0], self.original[0]),
            _axis(coarse[-1], self.padded[1], self.resized[1], self.original[1]),
        )

    def parts(self, coarse: tuple[int, ...]) -> tuple[Partition, Partition]:
        """Rows and columns cut into cells, for logits of size `coarse` (hm, wm)."""
        rows, columns = self.axes(coarse)
        return rows.partition, columns.partition


@dataclass(frozen=True)
class Taps:
    """A sparse matrix [n, m]: output i is the sum over t of `weight[i, t]` x input `index[i, t]`."""

    index: Ints
    weight: NDArray[np.floating[Any]]

    def rows(self, values: Floats) -> Floats:
        """Apply to the first axis of `values` [m, ...] -> [n, ...]."""
        return self._apply(values, 0)

    def columns(self, values: Floats) -> Floats:
        """Apply to the second axis of `values` [..., m, q] -> [..., n, q]."""
        return self._apply(values, 1)

    def _apply(self, values: Floats, axis: int) -> Floats:
        shape = [1] * values.ndim
        shape[axis] = -1
        out: Floats = values.take(self.index[:, 0], axis=axis)
        out *= self.weight[:, 0].reshape(shape)
        for tap in range(1, self.index.shape[1]):
            part = values.take(self.index[:, tap], axis=axis)
            part *= self.weight[:, tap].reshape(shape)
            out += part
        return out


@dataclass(frozen=True)
class Cells:
    """Original pixels along one axis in groups, each between 2 or 3 knots; a group has at least one pixel.

    `start`, `size` [G]: the group's pixels. `knot` [T, G]: its T = 2 or 3 knots (the last repeated where it has fewer).
    `weight` [T, b, G]: of each knot for each pixel, b being the largest size; smaller groups repeat their last pixel.
    `pixel` [b, G]: original pixel, repeated likewise. `share` [b, G]: 1, and 0 for the repeated ones.
    `group` [n]: the group of every original pixel.
    """

    start: Ints
    size: Ints
    knot: Ints
    weight: Floats
    pixel: Ints
    share: Floats
    group: Ints


@dataclass(frozen=True)
class Axis:
    """One axis of a `Geometry` for one coarse size.

    `knots` [k]: padded pixels between which (cropped) values are linear. `pixel_taps` [n, hm]: values at the original pixels.
    """

    coarse: int
    padded: int
    resized: int
    original: int

    @cached_property
    def _padded_matrix(self) -> Taps:
        """Coarse -> padded, cropped to the resized part, in float64 weights."""
        taps = bilinear(self.coarse, self.padded)
        return Taps(taps.index[: self.resized], taps.weight[: self.resized])

    @cached_property
    def padded_taps(self) -> Taps:
        """Coarse -> pixels of the resized image in the padded input [resized, hm]."""
        return _single(self._padded_matrix)

    @cached_property
    def pixel_taps(self) -> Taps:
        """Coarse -> original pixels [original, hm]: the product of both resizes."""
        first, second = self._padded_matrix, bilinear(self.resized, self.original)
        index = first.index[second.index].reshape(self.original, -1)
        weight = (second.weight[:, :, None] * first.weight[second.index]).reshape(self.original, -1)
        low = index.min(axis=1, keepdims=True)
        taps = int((index - low).max()) + 1
        merged = np.zeros((self.original, taps), np.float64)
        np.add.at(merged, (np.arange(self.original)[:, None], index - low), weight)
        return _single(Taps(np.minimum(low + np.arange(taps), self.coarse - 1), merged))

    @cached_property
    def knots(self) -> Ints:
        """Padded pixels such that all pixels between two neighbours lie on one line, first and last included."""
        if self.resized == 1:
            return np.zeros(2, np.int64)
        at = _source(self.coarse, self.padded)[: self.resized]
        low, high = np.floor(at[:-1]), np.ceil(at[1:])
        flat = at[1:] - at[:-1] < 0.999 * self.coarse / self.padded  # constant before the first coarse pixel and after the last
        straight = (low[1:] == low[:-1]) & (high[1:] == high[:-1]) & (high[1:] - low[1:] <= 1) & ~flat[1:] & ~flat[:-1]
        inner = np.flatnonzero(~straight) + 1
        return np.concatenate(([0], inner, [self.resized - 1])).astype(np.int64)

    @cached_property
    def partition(self) -> Partition:
        """Original pixels in groups of about one coarse cell: up to two stretches between knots."""
        stretches = _stretches(_source(self.resized, self.original), self.knots)
        padded = self.padded_taps
        taps = Taps(padded.index[self.knots], padded.weight[self.knots])
        return Partition(taps, _cells(stretches, self._merged_stretches()), stretches)

    @cached_property
    def padded_cells(self) -> Cells:
        """Original pixels in groups between two neighbouring pixels of the resized image."""
        knots = np.arange(self.resized) if self.resized > 1 else np.zeros(2, np.int64)
        cells = _cells(_stretches(_source(self.resized, self.original), knots), np.arange(len(knots)))
        return replace(cells, knot=np.minimum(cells.knot, self.resized - 1))

    @cached_property
    def coarse_points(self) -> tuple[Ints, Ints]:
        """Coarse samples whose centre lies in the resized image (at least one), and the original pixel that holds the centre."""
        centre = (np.arange(self.coarse) + 0.5) * (self.padded / self.coarse)
        index = np.arange(max(1, int((centre < self.resized).sum())))
        pixel = (centre[index] * (self.original / self.resized)).astype(np.int64)
        return index, np.minimum(pixel, self.original - 1)

    def coarse_of(self, pixel: Ints) -> Ints:
        """The coarse sample in whose square the centres of original pixels lie."""
        at = (pixel + 0.5) * (self.resized / self.original) * (self.coarse / self.padded)
        return np.minimum(at.astype(np.int64), self.coarse - 1)

    def _merged_stretches(self) -> Ints:
        """Stretches between knots in groups of one coarse cell: the first stretch of each group, and the number of stretches."""
        coarse_cell = bilinear(self.coarse, self.padded).index[self.knots[:-1], 0]
        first = [0]
        for stretch in range(1, len(coarse_cell)):
            if stretch - first[-1] == 2 or coarse_cell[stretch] != coarse_cell[first[-1]]:
                first.append(stretch)
        return np.array([*first, len(coarse_cell)])


@dataclass(frozen=True)
class Partition:
    """One axis cut into cells: `taps` [k, hm] give the values at the knots that the cells name.

    `points`: the same groups with few points standing for the pixels (`share` pixels each), `sound` [G] where that is exact enough.
    """

    taps: Taps
    cells: Cells
    stretches: _Stretches

    @cached_property
    def points(self) -> Cells:
        return _quadrature(self.stretches, self.cells)

    @cached_property
    def sound(self) -> NDArray[np.bool_]:
        sound: NDArray[np.bool_] = np.logical_and.reduceat(self.stretches.even, self.cells.start)
        return sound


@dataclass(frozen=True)
class _Stretches:
    """Which stretch between two knots each original pixel lies in, and where in it (0..1); `even`: neither clamped to an edge."""

    stretch: Ints
    fraction: NDArray[np.float64]
    even: NDArray[np.bool_]


@lru_cache(maxsize=512)
def _axis(coarse: int, padded: int, resized: int, original: int) -> Axis:
    return Axis(coarse, padded, resized, original)


def bilinear(size: int, to: int) -> Taps:
    """Bilinear resize of `size` samples `to` another number, align_corners=False, no antialiasing, as torch's `interpolate`."""
    at = _source(size, to)
    low = np.minimum(np.floor(at).astype(np.int64), size - 1)
    high = np.minimum(low + 1, size - 1)
    fraction = at - low
    return Taps(np.stack((low, high), axis=1), np.stack((1 - fraction, fraction), axis=1))


def _source(size: int, to: int) -> NDArray[np.float64]:
    """Position of each of `to` output samples among `size` input samples."""
    at: NDArray[np.float64] = np.clip((np.arange(to) + 0.5) * (size / to) - 0.5, 0, size - 1)
    return at


def _single(taps: Taps) -> Taps:
    return Taps(taps.index, taps.weight.astype(np.float32))


def _stretches(at: NDArray[np.float64], knots: Ints) -> _Stretches:
    stretch = np.clip(np.searchsorted(knots, at, side="right") - 1, 0, len(knots) - 2)
    length = np.maximum(knots[stretch + 1] - knots[stretch], 1)
    return _Stretches(stretch, (at - knots[stretch]) / length, (at > knots[0]) & (at < knots[-1]))


def _cells(stretches: _Stretches, starts: Ints) -> Cells:
    """Group pixels by stretch; group g holds stretches `starts[g]` to `starts[g + 1]` (exclusive, one or two)."""
    group = np.searchsorted(starts, stretches.stretch, side="right") - 1
    used, start, group, size = np.unique(group, return_index=True, return_inverse=True, return_counts=True)
    low, taps = starts[used], int((starts[1:] - starts[:-1]).max()) + 1
    knot = np.minimum(low + np.arange(taps)[:, None], starts[used + 1])
    count = len(group)
    per_pixel = np.zeros((taps, count), np.float32)
    place = stretches.stretch - low[group]
    per_pixel[place, np.arange(count)] = 1 - stretches.fraction
    per_pixel[place + 1, np.arange(count)] = stretches.fraction
    rank = np.arange(size.max())[:, None]
    pixel = start + np.minimum(rank, size - 1)
    return Cells(start, size, knot, per_pixel[:, pixel], pixel, (rank < size).astype(np.float32), group)


def _quadrature(stretches: _Stretches, cells: Cells) -> Cells:
    """Gauss quadrature for sums over equally spaced points: n pixels of one stretch become 3 points (2 in the shorter stretch
    of a group), exact for polynomials of degree 5 (3). Nodes and weights from the recurrence of the discrete Legendre (Gram)
    polynomials, b_k = k^2 (n^2 - k^2) / (4 (4 k^2 - 1)). Not sound in groups with pixels clamped to an edge."""
    stretch, first, pixels = np.unique(stretches.stretch, return_index=True, return_counts=True)
    group = cells.group[first]
    points = np.minimum(pixels, np.where(2 * pixels > cells.size[group], 3, 2))
    one, two = (pixels**2 - 1) / 12, np.maximum(pixels**2 - 4, 0) / 15
    reach = np.where(points == 3, np.sqrt(one + two), np.where(points == 2, np.sqrt(one), 0))
    outer = np.where(points == 3, pixels * one / np.maximum(2 * (one + two), 1e-9), pixels / points)
    last = first + pixels - 1
    middle = (stretches.fraction[first] + stretches.fraction[last]) / 2
    step = (stretches.fraction[last] - stretches.fraction[first]) / np.maximum(pixels - 1, 1)
    second = np.concatenate(([False], group[1:] == group[:-1]))
    slot = np.where(second, np.concatenate(([0], points[:-1])), 0)
    per_group = int((slot + points).max())
    weight = np.zeros((cells.knot.shape[0], per_group, len(cells.size)), np.float32)
    share = np.zeros((per_group, len(cells.size)), np.float32)
    place = stretch - cells.knot[0, group]
    for point in range(3):
        here = np.flatnonzero(points > point)
        side = np.where(points == 3, np.array([-1, 0, 1])[point], np.where(points == 2, 2 * point - 1, 0))[here]
        fraction = middle[here] + side * reach[here] * step[here]
        weight[place[here], slot[here] + point, group[here]] = 1 - fraction
        weight[place[here] + 1, slot[here] + point, group[here]] = fraction
        inner = pixels[here] - 2 * outer[here]
        share[slot[here] + point, group[here]] = np.where((points[here] == 3) & (side == 0), inner, outer[here])
    return replace(cells, weight=weight, share=share, pixel=np.zeros_like(share, dtype=np.int64))
