"""Instances of one image, as Mask2Former's `instance_inference` defines them (facebookresearch/Mask2Former).

The best (query, class) pairs are looked at; a pair's mask is where the query's logit is above 0, its score the class probability
times the mean mask probability inside the mask. Masks may overlap. The mean probability is at most 1, so a class probability
below the score threshold rules a pair out before its mask is made.

The mean is a sum over pixels. In a cell that lies inside the mask it is taken at few points instead of all pixels (Gauss
quadrature for sums over equally spaced points, exact for polynomials of degree 5 and 3), unless the probability bends too much in
the cell for an error below 1e-6: the logit's range to the sixth power against exp(smallest logit) bounds the next term.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masklake.inference.cells import Band, Grid, Parts, block_sums, knot_bands, wanted_maps
from masklake.inference.geometry import Floats, Geometry, Ints
from masklake.inference.panoptic import softmax
from masklake.inference.rle import Encoded, Runs, encode_runs
from masklake.inference.segments import Segment, Settings

_MAP_BYTES = 100_000_000  # of the map that holds the masks as bits
_STRIP = 1 << 17  # pixels of it that are looked at together


@dataclass(frozen=True)
class Pairs:
    """The (query, class) pairs that count, best first: `query`, `label` [n] and class probability `score` [n]."""

    query: Ints
    label: Ints
    score: NDArray[np.float64]


def best_pairs(class_logits: NDArray[np.float64], settings: Settings) -> Pairs:
    """The best `max_instances` pairs whose class is a thing and whose class probability reaches the score threshold.

    `class_logits` [Q, K + 1]; equal probabilities in the order of queries, then classes.
    """
    return best_of(softmax(class_logits), settings)


def best_of(probabilities: NDArray[np.float64], settings: Settings) -> Pairs:
    """The same from probabilities [Q, K + 1]."""
    probability = probabilities[:, :-1]
    flat = probability.reshape(-1)
    count = min(settings.max_instances, flat.size)
    possible = _at_least(flat, count, probability.max(axis=1)) if count < flat.size else np.arange(flat.size)
    best = possible[np.argsort(-flat[possible], kind="stable")[:count]]
    query, label = np.divmod(best, probability.shape[1])
    things = np.isin(label, np.array(sorted(settings.thing_ids), np.int64)) & (flat[best] >= settings.score_threshold)
    return Pairs(query[things], label[things], flat[best][things])


def _at_least(flat: NDArray[np.float64], count: int, largest: NDArray[np.float64]) -> Ints:
    """Where `flat` is not below its `count` largest values, `largest` being those of `count` or more parts of it, or of fewer."""
    possible = np.arange(flat.size)
    if len(largest) >= count:  # so many values reach the smallest of the parts' best: the others need no sorting
        possible = np.flatnonzero(flat >= np.partition(largest, len(largest) - count)[len(largest) - count])
    bound = np.partition(flat[possible], len(possible) - count)[len(possible) - count]
    reaching: Ints = possible[flat[possible] >= bound]
    return reaching


def segments_of(pairs: Pairs, queries: Ints, masks: list[Encoded], certainty: NDArray[np.float64], settings: Settings) -> list[Segment]:
    """Segments from the masks of `queries` (each once, ascending) and the mean probability inside each, `certainty`."""
    at = np.searchsorted(queries, pairs.query)
    score = pairs.score * certainty[at]
    area = np.array([mask.area for mask in masks], np.int64)[at]
    some = np.flatnonzero((area > 0) & (score >= settings.score_threshold))
    ordered = some[np.lexsort((pairs.query[some], pairs.label[some], -score[some]))]
    return [
        Segment(
            segment_id,
            label_id := int(pairs.label[index]),
            settings.labels[label_id],
            settings.is_thing(label_id),
            float(score[index]),
            (mask := masks[at[index]]).area,
            mask.bbox,
            mask.counts,
            float(pairs.score[index]),
        )
        for segment_id, index in enumerate(ordered.tolist(), 1)
    ]


def instance_cells(maps: Floats, pairs: Pairs, geometry: Geometry, settings: Settings) -> list[Segment]:
    """The instances of `pairs`, cell by cell; `maps` [n, hm, wm] are the logits of the pairs' distinct queries, ascending."""
    return segments_of(pairs, np.unique(pairs.query), *masks_cells(maps, geometry), settings)


def masks_cells(maps: Floats, geometry: Geometry) -> tuple[list[Encoded], NDArray[np.float64]]:
    """The masks of logits [n, hm, wm], where they are above 0, and the mean probability inside each."""
    masks: list[Encoded] = []
    certainty = np.zeros(len(maps))
    parts = geometry.parts(maps.shape)
    at_once = min(64, 8 * max(1, _MAP_BYTES // (geometry.original[0] * geometry.original[1])))
    for first in range(0, len(maps), at_once):
        part = maps[first : first + at_once]
        planes = _Planes(len(part), parts)
        for band in knot_bands(part, parts):
            planes.decide(band)
        encoded = encode_runs(planes.runs(), len(part), geometry.original)
        areas = np.array([mask.area for mask in encoded])
        certainty[first : first + at_once] = planes.probability / np.maximum(areas, 1)
        masks += encoded
    return masks, certainty


class _Planes:
    """Up to 64 masks as the bits of one column-major map [W, H], painted band by band."""

    def __init__(self, count: int, parts: Parts) -> None:
        self.count = count
        self.grid = Grid(parts[0].cells, parts[1].cells)
        self.points = Grid(parts[0].points, parts[1].points)
        self.sound = parts[0].sound[:, None] & parts[1].sound
        self.bytes = next(size for size in (1, 2, 4, 8) if 8 * size >= count)
        self.bits = np.empty(self.grid.size[::-1], f"<u{self.bytes}")
        self.bit = np.left_shift(1, np.arange(count, dtype=np.uint64)).astype(self.bits.dtype)
        self.probability = np.zeros(count)

    def decide(self, band: Band) -> None:
        """Paint the rows of cells of `band`."""
        lowest, highest = band.lowest, band.highest
        inside = lowest > 0
        cells = self._pack(inside)
        self.grid.paint(cells, band.first, self.bits)
        wanted = wanted_maps(((highest > 0) & ~inside).reshape(-1, self.count))
        for part in self.grid.chunks(len(wanted.cell)):
            cell, ranks = wanted.part(part)
            row, column = np.divmod(cell, lowest.shape[1])
            self._resolve(band, (row, column), cells[row, column], ranks)
        self._add_all_inside(band, np.flatnonzero(inside))

    def runs(self) -> Runs:
        """The runs of ones of every mask, from the changes between neighbouring pixels of the map."""
        flat = self.bits.reshape(-1)
        positions, changes = [np.zeros(1, np.int64)], [flat[:1]]
        for begin in range(0, flat.size - 1, _STRIP):
            strip = flat[begin : begin + _STRIP + 1]
            change = strip[1:] ^ strip[:-1]
            at = np.flatnonzero(change)
            positions.append(at + (begin + 1))
            changes.append(change[at])
        position = np.concatenate([*positions, [flat.size]])
        change = np.concatenate([*changes, flat[-1:]])
        edges = [position[(change & bit) != 0] for bit in self.bit]
        plane = np.repeat(np.arange(self.count, dtype=np.uint8), [len(edge) // 2 for edge in edges])
        both = np.concatenate(edges)
        return Runs(plane, both[::2], both[1::2])

    def _pack(self, flags: NDArray[np.bool_]) -> NDArray[Any]:
        """Flags [..., count] as one word each."""
        packed = np.zeros((*flags.shape[:-1], self.bytes), np.uint8)
        packed[..., : (self.count + 7) // 8] = np.packbits(flags, axis=-1, bitorder="little")
        return packed.view(self.bits.dtype)[..., 0]

    def _resolve(self, band: Band, cell: tuple[Ints, Ints], decided: NDArray[Any], ranks: list[Ints]) -> None:
        """Paint the pixels of cells (row, column) with an edge of the masks `ranks` in them; `decided` [C]: the other bits."""
        row, column = cell
        block, shares = self.grid.block(row + band.first, column), self.grid.shares(row + band.first, column)
        bits = np.broadcast_to(decided, block.position.shape).copy()
        for query in ranks:
            count = len(query)
            values = block.values(band.corners(row[:count], column[:count], query))
            ones = values > 0
            bits[..., :count] |= ones * self.bit[query]
            probability = sigmoid(values)
            probability *= shares[..., :count]
            probability *= ones
            self._add(query, probability)
        self.bits.reshape(-1)[block.position] = bits

    def _add_all_inside(self, band: Band, at: Ints) -> None:
        """Add the probabilities in cells that lie inside masks; `at` counts through [gr, Gc, count]."""
        lowest = band.lowest.reshape(-1)[at]
        span = band.highest.reshape(-1)[at] - lowest
        span *= span
        cell, query = np.divmod(at, self.count)
        row, column = np.divmod(cell, band.lowest.shape[1])
        smooth = span * span * span <= np.exp(np.minimum(lowest, 80))
        smooth &= self.sound[row + band.first, column]
        for chosen, grid in ((np.flatnonzero(smooth), self.points), (np.flatnonzero(~smooth), self.grid)):
            for part in grid.chunks(len(chosen)):
                index = chosen[part]
                self._add_inside(band, (row[index], column[index], query[index]), grid)

    def _add_inside(self, band: Band, where: tuple[Ints, Ints, Ints], grid: Grid) -> None:
        """Add the probabilities in cells (row, column, query) at the places of `grid`."""
        row, column, query = where
        probability = sigmoid(grid.block(row + band.first, column).values(band.corners(row, column, query)))
        probability *= grid.shares(row + band.first, column)
        self._add(query, probability)

    def _add(self, query: Ints, probability: Floats) -> None:
        self.probability += np.bincount(query, weights=block_sums(probability), minlength=self.count)


def sigmoid(values: Floats) -> Floats:
    """In place, of float32 logits."""
    np.negative(values, out=values)
    with np.errstate(over="ignore"):  # exp may be infinite: the probability is 0 then
        np.exp(values, out=values)
    values += 1
    return np.reciprocal(values, out=values)
