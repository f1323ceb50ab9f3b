"""The pixel work of post-processing by one Triton kernel a task, which writes codes only: 1 or 2 bytes a pixel, column by column.

Where Triton is missing or fails, `dense` does the same with torch's operations; the bytes are the same. Which of them works is logged once.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from masklake.inference import dense
from masklake.inference.geometry import Axis
from masklake.inference.limits import is_lost, is_out_of_memory

_log = logging.getLogger(__name__)
_BLOCK = 512  # pixels of a program
WORD = 32  # masks in a word of `instance_words`

_broken: list[str] = []
"""Why Triton's kernels are not used any more in this process."""


def method(device: torch.device) -> str:
    """What does the pixel work on `device`: "triton", "torch", or "cells" (numpy, on the CPU)."""
    if device.type == "cpu":
        return "cells"
    return "triton" if device.type == "cuda" and not _broken and _kernels() is not None else "torch"


@functools.cache
def _kernels() -> Any:
    """The module of kernels, None where Triton is not installed."""
    if importlib.util.find_spec("triton") is None:
        _log.warning("post-processing: Triton is not installed, torch's operations do it, slower")
        return None
    kernels = importlib.import_module("masklake.inference.kernels")
    _log.info("post-processing: by Triton kernels")
    return kernels


def is_usable(maps: torch.Tensor, axes: tuple[Axis, Axis], padded: bool = False) -> bool:
    """Whether the kernels can do it: there are some, for this device, and for this geometry."""
    if _broken or not (maps.is_cuda or interpreted()):
        return False
    kernels = _kernels()
    if kernels is None:
        return False
    taps = [dense.on_device(axis, padded, maps.device).index for axis in axes]
    return all(len(index) <= kernels.TAPS_MOST for index in taps) and taps[0].shape[1] * taps[1].shape[1] < 2**31 - _BLOCK


def is_usable_for_classes(maps: torch.Tensor, axes: tuple[Axis, Axis]) -> bool:
    """Whether `class_values` sums in the same order as `dense.class_values`: it works on whole rows only. `maps` [B, q, hm, wm]."""
    return is_usable(maps, axes, padded=True) and dense.strip_sizes(maps[0], axes[0].resized, axes[1].resized)[1] == axes[1].resized


def interpreted() -> bool:
    """Whether Triton's kernels run on the CPU (TRITON_INTERPRET=1), as tests do it."""
    kernels = _kernels()
    return kernels is not None and bool(kernels.INTERPRETED)


class Unusable(Exception):
    """Triton cannot be used in this process: no compiler, a card that it does not know."""


def _launch(kernel: str, grid: tuple[int, int], *arguments: Any, **constants: Any) -> None:
    try:
        getattr(_kernels(), kernel)[grid](*arguments, **constants, BLOCK=_BLOCK, enable_fp_fusion=False)
    except Exception as error:
        if is_lost(error) or is_out_of_memory(error):
            raise
        _broken.append(f"{type(error).__name__}: {error}")
        _log.warning("post-processing: Triton cannot be used here (%s), torch's operations do it, slower", _broken[-1])
        raise Unusable(_broken[-1]) from error


@dataclass(frozen=True)
class Maps:
    """Coarse maps float32 [n, hm, wm] of several images of one geometry, and the images: (first map, number of maps, where its codes
    begin) each, int64 [images, 3] on the device."""

    values: torch.Tensor
    images: torch.Tensor
    axes: tuple[Axis, Axis]

    def launch(self, kernel: str, *arguments: Any, threshold: Sequence[float] = ()) -> None:
        """Run a kernel over all pixels of all images; `arguments`: its own before the taps."""
        rows, columns = (dense.on_device(axis, False, self.values.device) for axis in self.axes)
        height, width = self.axes[0].original, self.axes[1].original
        strides = self.values.stride()
        _launch(
            kernel,
            (-(-height * width // _BLOCK), len(self.images)),
            self.values,
            *arguments,
            rows.index,
            rows.weight,
            columns.index,
            columns.weight,
            *threshold,
            height,
            width,
            strides[1],
            strides[2],
            strides[0],
            ROW_TAPS=len(rows.index),
            COLUMN_TAPS=len(columns.index),
        )


def lanes_along_rows(maps: torch.Tensor) -> torch.Tensor:
    """The same maps [n, hm, wm], with neighbouring rows side by side in memory, as kernels that go down columns want them."""
    return maps.transpose(1, 2).contiguous().transpose(1, 2)


def panoptic_codes(maps: Maps, cost: torch.Tensor, threshold: float, own: torch.Tensor, codes: torch.Tensor) -> None:
    """Enter 2 x winner + (1 where it reaches `threshold`) into the flat `codes`, and every map's own pixels into `own` int64 [n].

    `cost` float32 [n]: 1 / score of each map's query.
    """
    maps.launch("panoptic_codes", cost, maps.images, own, codes, threshold=[threshold])


def leading_codes(maps: Maps, codes: torch.Tensor) -> None:
    """Enter which map of its image has the largest value into the flat `codes`."""
    maps.launch("leading_codes", maps.images, codes)


def instance_words(maps: Maps, sums: torch.Tensor, words: torch.Tensor) -> None:
    """Enter the bits of up to 32 masks into each of the flat `words` int32, and the sums of the probabilities in the masks into `sums`
    int64 [n], in units of 2^-24. An "image" of `maps` is up to 32 maps of one image."""
    maps.launch("instance_bits", maps.images, sums, words)


def class_values(maps: torch.Tensor, weights: torch.Tensor, axes: tuple[Axis, Axis]) -> torch.Tensor:
    """`dense.class_values`, whose sums stay torch's; in memory, neighbouring rows are side by side."""
    height, width = axes[0].resized, axes[1].resized
    values = torch.empty((weights.shape[1], width, height), device=maps.device).transpose(1, 2)
    rows, columns = (dense.on_device(axis, True, maps.device) for axis in axes)
    high, _ = dense.strip_sizes(maps, height, width)
    strides = maps.stride()
    for top in range(0, height, high):
        bottom = min(top + high, height)
        tiles = (bottom - top) * width
        logits = torch.empty((len(maps), bottom - top, width), device=maps.device)
        _launch(
            "resized_sigmoid",
            (-(-tiles // _BLOCK), len(maps)),
            maps,
            logits,
            rows.index,
            rows.weight,
            columns.index,
            columns.weight,
            top,
            height,
            width,
            tiles,
            strides[1],
            strides[2],
            strides[0],
            ROW_TAPS=len(rows.index),
            COLUMN_TAPS=len(columns.index),
        )
        values[:, top:bottom] = torch.einsum("qhw,qk->khw", logits, weights)
    return values
