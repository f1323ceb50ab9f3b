"""Semantic segments of one image: the class with the largest value at every original pixel.

Mask classification (Mask2Former's `semantic_inference`): a class's value is the sum over queries of class probability x mask
probability, taken at the padded size, cropped, then resized to the original, as the repository's semantic configurations do.
Per-pixel models: the logits themselves, resized in one bilinear step (through the padded size only where there is padding).
Between four neighbouring samples values are bilinear: a class that leads at all four leads between them.

Score of a segment: the mean confidence of its class over the points of the coarse grid of logits whose nearest original pixel the
segment holds (a segment without such a point: at the point nearest to its first pixel). Confidence is the class's value, at most 1,
for mask classification, and the softmax probability for per-pixel models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masklake.inference.cells import Grid, knot_bands, wanted_maps
from masklake.inference.geometry import Axis, Floats, Geometry, Ints
from masklake.inference.instance import sigmoid
from masklake.inference.panoptic import code_type
from masklake.inference.rle import Encoded, encode_id_runs, id_runs
from masklake.inference.segments import Segment, Settings

_SAMPLES = 4096  # padded pixels evaluated together, for all queries and classes
_OPEN_CELLS = 2048  # looked at together, with the values of all classes at their corners

Values = Callable[[Ints, Ints], Floats]
"""Values [n, K] of all classes at padded pixels (row [n], column [n])."""

Confidence = Callable[[Ints, Ints, Ints], Floats]
"""Confidence [n] of classes [n] at the coarse points (row [n], column [n])."""


def semantic_cells(maps: Floats, weights: Floats, geometry: Geometry, settings: Settings) -> list[Segment]:
    """Segments from mask logits `maps` [q, hm, wm] and class probabilities `weights` [q, K]."""
    axes = geometry.axes(maps.shape)
    values = np.ascontiguousarray(maps.transpose(1, 2, 0))

    def at_padded(row: Ints, column: Ints) -> Floats:
        summed: Floats = sigmoid(_sample(values, axes, row, column)) @ weights
        return summed

    leader = _leaders(maps, weights, Geometry(geometry.padded, geometry.resized, geometry.resized), at_padded)
    codes = _paint(leader, at_padded, axes)
    return segments_of(id_runs(codes.reshape(-1)), at_points(codes, axes), mask_confidence(values, weights), axes, settings)


def map_cells(logits: Floats, geometry: Geometry, settings: Settings) -> list[Segment]:
    """Segments from per-pixel class logits [K, h, w]."""
    axes = map_geometry(logits.shape, geometry).axes(logits.shape)
    values = np.ascontiguousarray(logits.transpose(1, 2, 0))

    def at_padded(row: Ints, column: Ints) -> Floats:
        return _sample(values, axes, row, column)

    leader = np.empty((axes[1].resized, axes[0].resized), code_type(len(logits)))
    _evaluate(leader, np.arange(leader.size), at_padded)
    codes = _paint(leader, at_padded, axes)
    return segments_of(id_runs(codes.reshape(-1)), at_points(codes, axes), map_confidence(values), axes, settings)


def map_geometry(shape: tuple[int, ...], geometry: Geometry) -> Geometry:
    """The geometry for per-pixel logits of `shape` [K, h, w]: straight to the original unless padding is to be cropped first."""
    if geometry.padded != geometry.resized:
        return geometry
    return Geometry((shape[1], shape[2]), (shape[1], shape[2]), geometry.original)


def mask_confidence(values: Floats, weights: Floats) -> Confidence:
    """For mask logits `values` [hm, wm, q]."""
    by_class = np.ascontiguousarray(weights.T)

    def confidence(row: Ints, column: Ints, label: Ints) -> Floats:
        value: Floats = np.einsum("nq,nq->n", sigmoid(values[row, column]), by_class[label])
        return np.minimum(value, 1)

    return confidence


def map_confidence(values: Floats) -> Confidence:
    """For per-pixel logits `values` [h, w, K]."""

    def confidence(row: Ints, column: Ints, label: Ints) -> Floats:
        here = values[row, column]
        here -= here[np.arange(len(label)), label][:, None]
        with np.errstate(over="ignore"):
            probability: Floats = 1 / np.exp(here, out=here).sum(axis=1)
        return probability

    return confidence


def at_points(codes: Any, axes: tuple[Axis, Axis]) -> Any:
    """The entries of a column-major map `codes` [W, H], an array or a tensor, at the points of the coarse grid [n, m]."""
    return codes[axes[1].coarse_points[1]][:, axes[0].coarse_points[1]].T


def segments_of(
    runs: tuple[Ints, NDArray[Any]], points: NDArray[Any], confidence: Confidence, axes: tuple[Axis, Axis], settings: Settings
) -> list[Segment]:
    """Segments from the runs (start, class) of a column-major map of classes, and its entries at the coarse `points`."""
    starts, values = runs
    size = (axes[0].original, axes[1].original)
    labels, first = np.unique(values, return_index=True)
    labels = labels.astype(np.int64)
    at = scored_points(points, labels, starts[first], axes)
    order = segment_order(labels, at[2], confidence(*at))
    ids = np.zeros(int(labels.max()) + 1, np.uint16)
    ids[order.label] = np.arange(1, len(order.label) + 1)
    return segments_in(order, encode_id_runs(starts, ids[values], len(order.label), size), settings)


@dataclass(frozen=True)
class Order:
    """Which segments there are, in order."""

    label: list[int]
    score: list[float]


def segment_order(labels: Ints, all_labels: Ints, confidences: NDArray[np.floating[Any]]) -> Order:
    """Segments of `labels` with their scores, from the `confidences` of `all_labels` at scored points."""
    total = np.bincount(all_labels, weights=confidences)
    score = total[labels] / np.bincount(all_labels)[labels]
    order = np.lexsort((labels, -score))
    return Order(labels[order].tolist(), score[order].tolist())


def segments_in(order: Order, masks: list[Encoded], settings: Settings) -> list[Segment]:
    """Segments with their masks, both in order."""
    return [
        Segment(
            segment_id,
            label,
            settings.labels[label],
            settings.is_thing(label),
            score,
            mask.area,
            mask.bbox,
            mask.counts,
        )
        for segment_id, (label, score, mask) in enumerate(zip(order.label, order.score, masks, strict=True), 1)
    ]


def scored_points(points: NDArray[Any], labels: Ints, first: Ints, axes: tuple[Axis, Axis]) -> tuple[Ints, Ints, Ints]:
    """Row, column and class of the coarse points that scores are means over: all `points` [n, m], which hold classes, row by row; then
    one for each of `labels` that has none, at its first pixel in the column-major map, `first`."""
    label = points.astype(np.int64)
    row, column = (index.reshape(-1) for index in np.meshgrid(*(axis.coarse_points[0] for axis in axes), indexing="ij"))
    missing = ~np.isin(labels, label)
    x, y = np.divmod(first[missing], axes[0].original)
    row = np.concatenate((row, axes[0].coarse_of(y)))
    column = np.concatenate((column, axes[1].coarse_of(x)))
    return row, column, np.concatenate((label.reshape(-1), labels[missing]))


def _sample(values: Floats, axes: tuple[Axis, Axis], row: Ints, column: Ints) -> Floats:
    """Coarse `values` [hm, wm, q] at padded pixels (`row` [n], `column` [n]): [n, q]."""
    rows, columns = axes[0].padded_taps, axes[1].padded_taps
    flat, width = values.reshape(-1, values.shape[2]), values.shape[1]
    out: Floats | None = None
    for row_tap in range(2):
        for column_tap in range(2):
            weight = (rows.weight[row, row_tap] * columns.weight[column, column_tap])[:, None]
            if not weight.any():  # so it is where logits and padded pixels are the same
                continue
            part = flat.take(rows.index[row, row_tap] * width + columns.index[column, column_tap], axis=0)
            part *= weight
            out = part if out is None else np.add(out, part, out=out)
    assert out is not None, "bilinear weights sum to 1"
    return out


def _evaluate(leader: NDArray[Any], positions: Ints, values: Values) -> None:
    """Enter the leading class of padded pixels at `positions` of the column-major map `leader` [rw, rh]."""
    flat = leader.reshape(-1)
    for begin in range(0, len(positions), _SAMPLES):
        part = positions[begin : begin + _SAMPLES]
        column, row = np.divmod(part, leader.shape[1])
        flat[part] = values(row, column).argmax(axis=1)


def _leaders(maps: Floats, weights: Floats, geometry: Geometry, values: Values) -> NDArray[Any]:
    """The leading class at every pixel of the resized image, column by column [rw, rh]. In a cell of the coarse grid where the
    least that a class can have is more than the most of any other, it leads without a look at the pixels."""
    parts = geometry.parts(maps.shape)
    grid = Grid(parts[0].cells, parts[1].cells)
    leader = np.empty(grid.size[::-1], code_type(weights.shape[1]))
    unsure = []
    for band in knot_bands(maps, parts):
        shape = band.lowest.shape
        least, most = (sigmoid(bound.reshape(-1, shape[2])) @ weights for bound in (band.lowest, band.highest))
        best = least.argmax(axis=1)
        every = np.arange(len(best))
        most[every, best] = -1
        row, column = np.divmod(np.flatnonzero(most.max(axis=1) >= least[every, best]), shape[1])
        grid.paint(best.reshape(shape[:2]).astype(leader.dtype), band.first, leader)
        row += band.first
        position = grid.block(row, column).position
        unsure.append(position[grid.shares(row, column) > 0])
    _evaluate(leader, np.concatenate(unsure), values)
    return leader


def _paint(leader: NDArray[Any], values: Values, axes: tuple[Axis, Axis]) -> NDArray[Any]:
    """A column-major map of classes [W, H] from the `leader` [rw, rh] at padded pixels; cells whose corners differ are looked at."""
    grid = Grid(axes[0].padded_cells, axes[1].padded_cells)
    codes = np.empty(grid.size[::-1], leader.dtype)
    rows, columns = grid.rows.knot, grid.columns.knot
    left, right = leader[columns[0]], leader[columns[1]]
    cells = left[:, rows[0]]
    same = (cells == left[:, rows[1]]) & (cells == right[:, rows[0]]) & (cells == right[:, rows[1]])
    grid.paint(cells.T, 0, codes)
    column, row = np.divmod(np.flatnonzero(~same), same.shape[1])
    for begin in range(0, len(row), _OPEN_CELLS):
        part = slice(begin, begin + _OPEN_CELLS)
        positions = columns[None, :, column[part]] * leader.shape[1] + rows[:, None, row[part]]
        samples, at = np.unique(positions, return_inverse=True)
        x, y = np.divmod(samples, leader.shape[1])
        _resolve(grid, codes, values(y, x)[at.reshape(positions.shape)], (row[part], column[part]))
    return codes


def _resolve(grid: Grid, codes: NDArray[Any], corners: Floats, cells: tuple[Ints, Ints]) -> None:
    """Paint the pixels of `cells` (row, column): the leading class, the first at a tie; `corners` [2, 2, C, K]."""
    candidate = corners.max(axis=(0, 1)) >= corners.min(axis=(0, 1)).max(axis=1, keepdims=True)
    wanted = wanted_maps(candidate)
    for part in grid.chunks(len(wanted.cell)):
        cell, ranks = wanted.part(part)
        block = grid.block(cells[0][cell], cells[1][cell])
        best = block.values(corners[:, :, cell, ranks[0]])
        leading = np.broadcast_to(ranks[0].astype(codes.dtype), best.shape).copy()
        for label in ranks[1:]:
            count = len(label)
            values = block.values(corners[:, :, cell[:count], label])
            np.copyto(leading[..., :count], label.astype(codes.dtype), where=values > best[..., :count])
            np.maximum(best[..., :count], values, out=best[..., :count])
        codes.reshape(-1)[block.position] = leading
