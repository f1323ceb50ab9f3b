"""The same answers pixel by pixel, in torch, on any device: for accelerators, and for images not larger than their logits.

Works in strips of rows so that temporaries stay bounded. Nothing waits for the device inside the loops over strips: a task copies
back run boundaries and a few sums, never masks. Where Triton is, `batched` does it instead; this is what its bytes are compared to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from masklake.inference.geometry import Axis, Geometry, Ints
from masklake.inference.instance import Pairs, segments_of
from masklake.inference.panoptic import Kept, OwnAreas, from_code_runs, logit
from masklake.inference.rle import Encoded, Runs, encode_runs
from masklake.inference.segments import Segment, Settings
from masklake.inference.semantic import at_points
from masklake.inference.semantic import segments_of as segments_of_map

_CPU_VALUES, _DEVICE_VALUES = 1 << 18, 1 << 25  # of a strip: all maps at its pixels


def panoptic_dense(maps: torch.Tensor, kept: Kept, geometry: Geometry, settings: Settings) -> list[Segment]:
    """The segments of the kept queries' logits `maps` [n, hm, wm]."""
    threshold = logit(settings.mask_threshold)
    cost = torch.from_numpy((1 / kept.score).astype(np.float32)).to(maps.device)[:, None, None]
    codes = torch.empty(geometry.original[::-1], dtype=torch.int32, device=maps.device)
    own = torch.zeros(len(maps), dtype=torch.int64, device=maps.device)
    for rows, columns, values in _strips(maps, geometry.axes(maps.shape)):
        reached = values >= threshold
        own += reached.sum(dim=(1, 2))
        winner = values.neg_().exp_().add_(1).mul_(cost).argmin(dim=0, keepdim=True)
        codes[columns, rows] = (2 * winner + reached.gather(0, winner))[0].T.to(torch.int32)
    starts, values_at = _runs(codes.reshape(-1))
    areas = own.cpu().numpy()
    return from_code_runs((starts, values_at), kept, geometry.original, settings, OwnAreas(areas, areas, lambda wanted: areas[wanted]))


def instance_dense(maps: torch.Tensor, pairs: Pairs, geometry: Geometry, settings: Settings) -> list[Segment]:
    """The instances of `pairs`; `maps` [n, hm, wm] are the logits of the pairs' distinct queries, ascending."""
    return segments_of(pairs, np.unique(pairs.query), *masks_dense(maps, geometry), settings)


def masks_dense(maps: torch.Tensor, geometry: Geometry) -> tuple[list[Encoded], NDArray[np.float64]]:
    """The masks of logits [n, hm, wm], where they are above 0, and the mean probability inside each."""
    height, width = geometry.original
    at_once = max(1, (4 if maps.device.type == "cpu" else 32) * _DEVICE_VALUES // (4 * height * width))
    masks: list[Encoded] = []
    sums = torch.zeros(len(maps), dtype=torch.float64, device=maps.device)
    for first in range(0, len(maps), at_once):
        part = maps[first : first + at_once]
        ones = torch.zeros((len(part), height * width + 2), dtype=torch.bool, device=maps.device)  # zero before and after
        image = ones[:, 1:-1].view(len(part), width, height)
        for rows, columns, values in _strips(part, geometry.axes(maps.shape)):
            inside = values > 0
            image[:, columns, rows] = inside.transpose(1, 2)
            sums[first : first + len(part)] += values.sigmoid_().mul_(inside).sum(dim=(1, 2), dtype=torch.float64)
        plane, edge = (ones[:, 1:] != ones[:, :-1]).nonzero(as_tuple=True)
        edges = edge.cpu().numpy()
        masks += encode_runs(Runs(plane[::2].cpu().numpy(), edges[::2], edges[1::2]), len(part), geometry.original)
    area = np.array([mask.area for mask in masks])
    return masks, sums.cpu().numpy() / np.maximum(area, 1)


def class_values(maps: torch.Tensor, weights: torch.Tensor, axes: tuple[Axis, Axis]) -> torch.Tensor:
    """Sum over queries of class probability `weights` [q, K] x mask probability at the pixels of the resized image [K, rh, rw]."""
    values = torch.empty((weights.shape[1], axes[0].resized, axes[1].resized), device=maps.device)
    for rows, columns, logits in _strips(maps, axes, padded=True):
        values[:, rows, columns] = torch.einsum("qhw,qk->khw", logits.sigmoid_(), weights)
    return values


def leading_class(values: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The class with the largest of `values` [K, h, w] at every pixel of `size` (height, width), column by column [W, H] uint8/int32."""
    geometry = Geometry((values.shape[1], values.shape[2]), (values.shape[1], values.shape[2]), size)
    dtype = torch.uint8 if len(values) <= 256 else torch.int32
    codes = torch.empty(size[::-1], dtype=dtype, device=values.device)
    for rows, columns, resized in _strips(values, geometry.axes(values.shape)):
        codes[columns, rows] = resized.argmax(dim=0).T.to(dtype)
    return codes


def semantic_dense(codes: torch.Tensor, confidences: torch.Tensor, axes: tuple[Axis, Axis], settings: Settings) -> list[Segment]:
    """Segments of a map of classes `codes` [W, H], with the `confidences` [K, hm, wm] of all classes at the coarse points."""

    def confidence(row: Ints, column: Ints, label: Ints) -> NDArray[np.float32]:
        at = (torch.from_numpy(index).to(confidences.device) for index in (label, row, column))
        found: NDArray[np.float32] = confidences[tuple(at)].cpu().numpy()
        return found

    return segments_of_map(_runs(codes.reshape(-1)), at_points(codes, axes).cpu().numpy(), confidence, axes, settings)


def to_padded(logits: torch.Tensor, axes: tuple[Axis, Axis]) -> torch.Tensor:
    """Logits [K, h, w] at the pixels of the resized image [K, rh, rw]."""
    return _resize(logits, *(on_device(axis, True, logits.device) for axis in axes))


@dataclass(frozen=True)
class DeviceTaps:
    """`Taps` where the maps are: `index` int64 and `weight` float32, [taps, n]."""

    index: torch.Tensor
    weight: torch.Tensor

    def part(self, outputs: slice) -> DeviceTaps:
        return DeviceTaps(self.index[:, outputs], self.weight[:, outputs])


def on_device(axis: Axis, padded: bool, device: torch.device) -> DeviceTaps:
    """The axis' `padded_taps` or `pixel_taps`; copied once, since a copy to a device waits for all that is queued there."""
    taps = _copied(axis, padded, device)
    if device.type == "cuda":  # another stream than the one that copied them may still read them when they leave the cache
        taps.index.record_stream(torch.cuda.current_stream(device))
        taps.weight.record_stream(torch.cuda.current_stream(device))
    return taps


@lru_cache(maxsize=1024)
def _copied(axis: Axis, padded: bool, device: torch.device) -> DeviceTaps:
    taps = axis.padded_taps if padded else axis.pixel_taps
    index, weight = (torch.from_numpy(np.ascontiguousarray(part.T)).to(device) for part in (taps.index, taps.weight))
    return DeviceTaps(index, weight)


def strip_sizes(maps: torch.Tensor, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the pixels that are worked at together."""
    pixels = max(1, (_CPU_VALUES if maps.device.type == "cpu" else _DEVICE_VALUES) // max(1, len(maps)))
    wide = min(width, pixels)
    return min(height, max(1, pixels // wide)), wide


def _strips(maps: torch.Tensor, axes: tuple[Axis, Axis], padded: bool = False) -> Iterator[tuple[slice, slice, torch.Tensor]]:
    """Maps [q, hm, wm] at the original pixels (`padded`: those of the resized image), as (rows, columns, values [q, rows, columns])."""
    rows, columns = (on_device(axis, padded, maps.device) for axis in axes)
    height, width = rows.index.shape[1], columns.index.shape[1]
    high, wide = strip_sizes(maps, height, width)
    for left in range(0, width, wide):
        some_columns = slice(left, min(left + wide, width))
        for top in range(0, height, high):
            some_rows = slice(top, min(top + high, height))
            yield some_rows, some_columns, _resize(maps, rows.part(some_rows), columns.part(some_columns))


def _resize(maps: torch.Tensor, rows: DeviceTaps, columns: DeviceTaps) -> torch.Tensor:
    return _apply(_apply(maps, rows, 1), columns, 2)


def _apply(maps: torch.Tensor, taps: DeviceTaps, dim: int) -> torch.Tensor:
    """Products are rounded before they are summed, on every device alike."""
    shape = (-1, 1) if dim == 1 else (-1,)
    out: torch.Tensor | None = None
    for index, weight in zip(taps.index, taps.weight, strict=True):
        part = maps.index_select(dim, index).mul_(weight.reshape(shape))
        out = part if out is None else out.add_(part)
    assert out is not None, "an axis has a tap"
    return out


def _runs(flat: torch.Tensor) -> tuple[Ints, NDArray[np.int64]]:
    """Runs of equal values: (start, value), found on the device."""
    change = (flat[1:] != flat[:-1]).nonzero()[:, 0] + 1
    starts = torch.cat((change.new_zeros(1), change))
    return starts.cpu().numpy(), flat[starts].cpu().numpy().astype(np.int64)
