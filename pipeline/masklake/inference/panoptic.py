"""Panoptic segments of one image, as Mask2Former's `panoptic_inference` defines them (facebookresearch/Mask2Former).

Each kept query's probability is weighed by its score; every pixel goes to the query with the largest product, and belongs to its
segment where the query's own probability reaches the mask threshold. A query that keeps too little of its own mask is dropped, its
pixels stay void. The products are compared as (1 + exp(-logit)) / score, smallest first: the same order, without a division.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masklake.inference.cells import Band, Grid, block_sums, knot_bands, wanted_maps
from masklake.inference.geometry import Floats, Geometry, Ints
from masklake.inference.rle import Encoded, encode_id_runs, id_runs
from masklake.inference.segments import Segment, Settings


@dataclass(frozen=True)
class Kept:
    """The queries that count: positions among all queries (ascending), class and score of each."""

    query: Ints
    label: Ints
    score: NDArray[np.float64]


def kept_queries(class_logits: NDArray[np.float64], settings: Settings) -> Kept:
    """Queries whose best class is not "no object" and more probable than the object threshold; `class_logits` [Q, K + 1]."""
    return kept_of(softmax(class_logits), settings)


def kept_of(probability: NDArray[np.float64], settings: Settings) -> Kept:
    """The same from probabilities [Q, K + 1]."""
    label = probability.argmax(axis=1)
    score = probability.max(axis=1)
    query = np.flatnonzero((label < probability.shape[1] - 1) & (score > settings.object_threshold))
    return Kept(query, label[query], score[query])


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the last axis."""
    raised: NDArray[np.float64] = np.exp(logits - logits.max(axis=-1, keepdims=True))
    raised /= raised.sum(axis=-1, keepdims=True)
    return raised


def logit(probability: float) -> float:
    """The logit of a probability; infinite at 0 and 1."""
    if probability <= 0 or probability >= 1:
        return math.copysign(math.inf, probability - 0.5)
    return math.log(probability / (1 - probability))


def code_type(codes: int) -> type[np.unsignedinteger[Any]]:
    """The smallest type that holds codes 0..`codes` - 1."""
    return np.uint8 if codes <= 256 else np.uint16 if codes <= 65536 else np.uint32


def panoptic_cells(maps: Floats, kept: Kept, geometry: Geometry, settings: Settings) -> list[Segment]:
    """The segments of the kept queries' logits `maps` [n, hm, wm], cell by cell."""
    parts = geometry.parts(maps.shape)
    grid = Grid(parts[0].cells, parts[1].cells)
    painter = _Painter(maps, kept, grid, logit(settings.mask_threshold))
    with np.errstate(over="ignore"):  # exp(-logit) of an impossible pixel may be infinite: it loses, as it should
        for band in knot_bands(maps, parts):
            painter.decide(band)
    starts, values = id_runs(painter.codes.reshape(-1))

    def own_areas(wanted: Ints) -> Ints:
        return exact_areas(maps[wanted], geometry, painter.threshold)

    return from_code_runs((starts, values), kept, geometry.original, settings, OwnAreas(*painter.own_bounds, own_areas))


@dataclass(frozen=True)
class OwnAreas:
    """Pixels of each kept query's own mask: bounds [n], and the exact figure of those for which the bounds do not suffice."""

    least: Ints
    most: Ints
    exact: Callable[[Ints], Ints]


def from_code_runs(
    runs: tuple[Ints, NDArray[Any]], kept: Kept, size: tuple[int, int], settings: Settings, areas: OwnAreas
) -> list[Segment]:
    """Segments from the runs (start, code) of a column-major map of codes: 2 x winner + (1 where its own probability suffices)."""
    starts, codes = runs
    lengths = np.diff(starts, append=size[0] * size[1])
    won = np.bincount(codes, weights=lengths, minlength=2 * len(kept.query)).astype(np.int64).reshape(-1, 2)
    order = segment_order(won, kept, settings, areas)
    return segments_in(order, kept, encode_id_runs(starts, order.ids[codes], len(order.first), size), settings)


@dataclass(frozen=True)
class Order:
    """Which segments there are: `first` query and `score` of each, in order; `ids` [2 n] uint16: the segment of a code, 0 for none."""

    first: list[int]
    score: list[float]
    ids: NDArray[np.uint16]


def segment_order(won: Ints, kept: Kept, settings: Settings, areas: OwnAreas) -> Order:
    """Which segments there are, when the kept queries won the pixels `won` [n, 2], below and above the mask threshold."""
    counted = _large_enough(won, areas, settings.overlap_threshold)
    groups: dict[int, list[int]] = {}  # the first query of a segment -> all of them
    stuff: dict[int, int] = {}
    for index in np.flatnonzero(counted).tolist():
        label = int(kept.label[index])
        first = index if settings.is_thing(label) else stuff.setdefault(label, index)
        groups.setdefault(first, []).append(index)
    score = {first: float(kept.score[members].max()) for first, members in groups.items()}
    ordered = sorted(groups, key=lambda first: (-score[first], int(kept.label[first]), first))
    ids = np.zeros(2 * len(kept.query), np.uint16)
    for segment_id, first in enumerate(ordered, 1):
        ids[2 * np.array(groups[first]) + 1] = segment_id
    return Order(ordered, [score[first] for first in ordered], ids)


def segments_in(order: Order, kept: Kept, masks: list[Encoded], settings: Settings) -> list[Segment]:
    """Segments with their masks, both in order."""
    return [
        Segment(
            segment_id,
            label_id := int(kept.label[first]),
            settings.labels[label_id],
            settings.is_thing(label_id),
            score,
            mask.area,
            mask.bbox,
            mask.counts,
            score,
        )
        for segment_id, (first, score, mask) in enumerate(zip(order.first, order.score, masks, strict=True), 1)
    ]


def exact_areas(maps: Floats, geometry: Geometry, threshold: float) -> Ints:
    """Original pixels [n] at which each of `maps` [n, hm, wm] is at least `threshold`."""
    parts = geometry.parts(maps.shape)
    grid = Grid(parts[0].cells, parts[1].cells)
    areas = np.zeros(len(maps), np.int64)
    for band in knot_bands(maps, parts):
        cell_areas = grid.areas[band.first : band.first + band.row_knots.shape[1], :, None]
        inside = band.lowest >= threshold
        areas += (cell_areas * inside).sum(axis=(0, 1))
        row, column, query = np.nonzero((band.highest >= threshold) & ~inside)
        for part in grid.chunks(len(row)):
            block = grid.block(row[part] + band.first, column[part])
            ones = grid.shares(row[part] + band.first, column[part])
            ones *= block.values(band.corners(row[part], column[part], query[part])) >= threshold
            areas += np.bincount(query[part], weights=block_sums(ones), minlength=len(maps)).astype(np.int64)
    return areas


def _large_enough(won: Ints, areas: OwnAreas, overlap_threshold: float) -> NDArray[np.bool_]:
    """Which queries keep enough of their own mask; `won` [n, 2]: pixels won below and above the mask threshold."""
    total = won.sum(axis=1)
    present = won[:, 1] > 0
    surely: NDArray[np.bool_] = present & (total / np.maximum(areas.most, 1) >= overlap_threshold)
    unsure = np.flatnonzero(present & ~surely & (total / np.maximum(areas.least, 1) >= overlap_threshold))
    if unsure.size:
        surely[unsure] = total[unsure] / areas.exact(unsure) >= overlap_threshold
    return surely


class _Painter:
    """Paints a column-major map of codes [W, H] band by band: decided cells whole, the pixels of all others one by one."""

    def __init__(self, maps: Floats, kept: Kept, grid: Grid, threshold: float) -> None:
        self.grid, self.threshold = grid, threshold
        self.cost = (1 / kept.score).astype(np.float32)
        self.codes = np.empty(grid.size[::-1], code_type(2 * len(maps)))
        self.own_bounds = np.zeros(len(maps), np.int64), np.zeros(len(maps), np.int64)

    def decide(self, band: Band) -> None:
        """Paint the rows of cells of `band`."""
        lowest, highest = band.lowest, band.highest
        reaches, surpasses = highest >= self.threshold, lowest >= self.threshold
        worst = self.cost * (1 + np.exp(-lowest))
        best = self.cost * (1 + np.exp(-highest))
        candidate = best <= worst.min(axis=2, keepdims=True)
        winner = candidate.argmax(axis=2)
        above = np.take_along_axis(surpasses, winner[..., None], axis=2)[..., 0]
        below = ~np.take_along_axis(reaches, winner[..., None], axis=2)[..., 0]
        self.grid.paint((2 * winner + above).astype(self.codes.dtype), band.first, self.codes)
        decided = (candidate.sum(axis=2) == 1) & (above | below)
        candidate &= ~decided[..., None]
        self._bound_areas(band.first, surpasses & ~candidate, reaches & ~surpasses & ~candidate)
        wanted = wanted_maps(candidate.reshape(-1, candidate.shape[2]))
        for part in self.grid.chunks(len(wanted.cell)):
            cell, ranks = wanted.part(part)
            self._resolve(band, np.divmod(cell, candidate.shape[1]), ranks)

    def _bound_areas(self, first: int, inside: NDArray[np.bool_], crossed: NDArray[np.bool_]) -> None:
        """Count cells [gr, Gc, n] that are not looked at: wholly of a query's own mask, or with its edge in them."""
        areas = self.grid.areas[first : first + len(inside)].reshape(-1).astype(np.float64)
        least, more = (areas @ flags.reshape(len(areas), -1) for flags in (inside, crossed))
        self.own_bounds[0][:] += least.astype(np.int64)
        self.own_bounds[1][:] += (least + more).astype(np.int64)

    def _resolve(self, band: Band, cell: tuple[Ints, Ints], ranks: list[Ints]) -> None:
        """Per pixel of cells (row, column): the cheapest of the candidate queries `ranks`, the first at a tie."""
        row, column = cell
        block = self.grid.block(row + band.first, column)
        shares = self.grid.shares(row + band.first, column)
        rivals = len(ranks[1]) if len(ranks) > 1 else 0
        for rank, query in enumerate(ranks):
            count = len(query)
            opposite = block.values(-band.corners(row[:count], column[:count], query))
            reached = opposite <= -self.threshold
            self._count(query, reached * shares[..., :count])
            code = reached.view(np.uint8) + (2 * query).astype(self.codes.dtype)
            cost = np.exp(opposite[..., :rivals] if rank == 0 else opposite)
            cost += 1
            cost *= self.cost[query[: cost.shape[2]]]
            if rank == 0:
                least, codes = cost, code
                continue
            np.copyto(codes[..., :count], code, where=cost < least[..., :count])
            np.minimum(least[..., :count], cost, out=least[..., :count])
        self.codes.reshape(-1)[block.position] = codes

    def _count(self, query: Ints, reached: Floats) -> None:
        areas = np.bincount(query, weights=block_sums(reached), minlength=len(self.cost)).astype(np.int64)
        for bound in self.own_bounds:
            bound[:] += areas
