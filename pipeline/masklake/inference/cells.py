"""Per-pixel work only where it is needed: arithmetic on the cells of a `Geometry`, in numpy, for the CPU.

Inside a cell every map lies between the smallest and the largest of its values at the cell's knots, so most cells are decided
without looking at a pixel. The pixels of the others are evaluated many cells at a time: arrays are [rows of a cell, columns of a
cell, cells], the long axis last.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masklake.inference.geometry import Cells, Floats, Ints, Partition, Taps

_KNOT_VALUES = 1 << 18  # of a band: 1 MiB, small enough to stay in cache
_BLOCK_VALUES = 1 << 16  # of a map at the pixels of the cells that are looked at together

Parts = tuple[Partition, Partition]
"""Rows and columns."""


@dataclass(frozen=True)
class Grid:
    """The cells of an image: rows x columns."""

    rows: Cells
    columns: Cells

    @cached_property
    def size(self) -> tuple[int, int]:
        """Of the original image: (height, width)."""
        return len(self.rows.group), len(self.columns.group)

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        return len(self.rows.start), len(self.columns.start)

    @cached_property
    def areas(self) -> Ints:
        """Original pixels in each cell [Gr, Gc]."""
        return self.rows.size[:, None] * self.columns.size

    def paint(self, codes: NDArray[Any], first: int, onto: NDArray[Any]) -> None:
        """Give each pixel of the column-major map `onto` [W, H] the code of its cell, for rows of cells `first`..; `codes` [gr, Gc]."""
        rows = slice(first, first + len(codes))
        top, bottom = self.rows.start[rows][0], self.rows.start[rows][-1] + self.rows.size[rows][-1]
        stretched = np.ascontiguousarray(codes.T).take(self.rows.group[top:bottom] - first, axis=1)
        if bottom - top == onto.shape[1]:
            stretched.take(self.columns.group, axis=0, out=onto, mode="clip")
        else:
            onto[:, top:bottom] = stretched.take(self.columns.group, axis=0)

    def shares(self, row: Ints, column: Ints) -> Floats:
        """How many pixels each place of the cells' blocks stands for [b, d, C]."""
        shares: Floats = self.rows.share[:, row][:, None] * self.columns.share[:, column]
        return shares

    def chunks(self, cells: int) -> Iterator[slice]:
        """Slices over `cells` cells whose pixel blocks stay in cache."""
        step = max(1, _BLOCK_VALUES // (self.rows.pixel.shape[0] * self.columns.pixel.shape[0]))
        for begin in range(0, cells, step):
            yield slice(begin, begin + step)

    def block(self, row: Ints, column: Ints) -> Block:
        """The pixels of the cells at (`row`, `column`) [C]."""
        height = self.size[0]
        pixel = self.columns.pixel[:, column] * height
        return Block(
            self.rows.weight.take(row, axis=2)[:, :, None],
            self.columns.weight.take(column, axis=2),
            pixel[None] + self.rows.pixel[:, row][:, None],
        )


def block_sums(values: Floats) -> NDArray[np.float64]:
    """Sums [C] over the pixels of `values` [b, d, C]; float32 would lose digits over a large block."""
    rows = values.sum(axis=0, dtype=np.float64 if len(values) > 64 else np.float32)
    sums: NDArray[np.float64] = rows.sum(axis=0, dtype=np.float64)
    return sums


@dataclass(frozen=True)
class Block:
    """Pixels of C cells: weights of the knots and positions [b, d, C] in the column-major map.

    A cell smaller than the block repeats its last pixels, so that painting needs no mask.
    """

    row_weight: Floats
    column_weight: Floats
    position: Ints

    def values(self, corners: Floats) -> Floats:
        """Values [b, d, C] of the pixels of the first C cells from the values at these cells' knots, `corners` [T, T, C]."""
        cells = corners.shape[2]
        across = corners[:, 0, None] * self.column_weight[0, :, :cells]
        for tap in range(1, corners.shape[1]):
            across += corners[:, tap, None] * self.column_weight[tap, :, :cells]
        values: Floats = across[0] * self.row_weight[0, ..., :cells]
        part = np.empty_like(values)
        for tap in range(1, corners.shape[0]):
            values += np.multiply(across[tap], self.row_weight[tap, ..., :cells], out=part)
        return values


@dataclass(frozen=True)
class Band:
    """Rows of cells `first`.. of a grid, with the values at their knots [kr, kc, q] and the cells' bounds [gr, Gc, q]."""

    first: int
    knots: Floats
    row_knots: Ints  # [T, gr], into `knots`
    column_knots: Ints  # [T, Gc]

    @cached_property
    def lowest(self) -> Floats:
        """Smallest value at each cell's knots."""
        return self._reduce(np.minimum)

    @cached_property
    def highest(self) -> Floats:
        """Largest value at each cell's knots."""
        return self._reduce(np.maximum)

    def corners(self, row: Ints, column: Ints, query: Ints) -> Floats:
        """Values at the knots [T, T, P] of cells (`row` counted from the band's first, `column`) in the maps `query`."""
        _, width, depth = self.knots.shape
        at = (self.row_knots[:, None, row] * width + self.column_knots[None, :, column]) * depth + query
        values: Floats = self.knots.reshape(-1)[at]
        return values

    def _reduce(self, pick: np.ufunc) -> Floats:
        over_rows = pick(self.knots.take(self.row_knots[0], axis=0), self.knots.take(self.row_knots[1], axis=0))
        for knot in self.row_knots[2:]:
            pick(over_rows, self.knots.take(knot, axis=0), out=over_rows)
        picked: Floats = pick(over_rows.take(self.column_knots[0], axis=1), over_rows.take(self.column_knots[1], axis=1))
        for knot in self.column_knots[2:]:
            pick(picked, over_rows.take(knot, axis=1), out=picked)
        return picked


def knot_bands(maps: Floats, parts: Parts) -> Iterator[Band]:
    """Bands of the cells of logits `maps` [q, hm, wm], top to bottom, each small enough to stay in cache."""
    rows, columns = parts
    values = np.ascontiguousarray(maps.transpose(1, 2, 0))
    row_knots = rows.cells.knot
    width = len(columns.taps.index) * values.shape[2]
    per_band = max(1, _KNOT_VALUES // (2 * width))
    for first in range(0, row_knots.shape[1], per_band):
        here = row_knots[:, first : first + per_band]
        low, high = int(here.min()), int(here.max()) + 1
        knots = columns.taps.columns(Taps(rows.taps.index[low:high], rows.taps.weight[low:high]).rows(values))
        yield Band(first, knots, here - low, columns.cells.knot)


@dataclass(frozen=True)
class Wanted:
    """Cells with the maps that each wants evaluated: `cell` [C], those that want most first; `ranks`: for each rank the map of the
    first C_rank cells, ascending within a cell."""

    cell: Ints
    ranks: list[Ints]

    def part(self, cells: slice) -> tuple[Ints, list[Ints]]:
        """The same for a slice of the cells: (cell, ranks)."""
        parts = (rank[cells] for rank in self.ranks)
        return self.cell[cells], [rank for rank in parts if rank.size]


def wanted_maps(wanted: NDArray[np.bool_]) -> Wanted:
    """Cells that want any map; `wanted` is [cells, q]."""
    cell, query = np.divmod(np.flatnonzero(wanted), wanted.shape[1])  # np.nonzero is several times slower
    counts = np.bincount(cell, minlength=len(wanted))
    starts = np.cumsum(counts) - counts
    order = np.argsort(-counts, kind="stable")
    descending = counts[order]
    cells = [order[: int(np.searchsorted(-descending, -rank))] for rank in range(int(descending[0]) if len(descending) else 0)]
    return Wanted(cells[0] if cells else order[:0], [query[starts[some] + rank] for rank, some in enumerate(cells)])
