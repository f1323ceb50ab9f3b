"""What goes into the model: images as they were resized, and the tensor of a batch of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from masklake.inference.preprocess import Frame, ResizePlan, Size


@dataclass(frozen=True, eq=False)
class ModelInput:
    """One image for the model."""

    pixels: NDArray[np.uint8]
    """[h, w, 3], resized by `preprocess.resize`."""
    size: Size
    """Of the original: the segments' masks have it."""
    tasks: tuple[str, ...]
    concepts: tuple[str, ...] = ()
    """Of a model that is told what to look for: these; by default all of its description."""


class PixelValues:
    """Makes normalised batches on a device."""

    def __init__(self, plan: ResizePlan, frame: Frame, device: torch.device, dtype: torch.dtype) -> None:
        """`plan` says mean, standard deviation and scale; `frame`, what padding is filled with."""
        self._frame, self._device, self._dtype = frame, device, dtype
        self._mean = torch.tensor(plan.mean, device=device).view(3, 1, 1)
        self._std = torch.tensor(plan.std, device=device).view(3, 1, 1)
        table = torch.from_numpy((np.arange(256, dtype=np.float64) * plan.rescale).astype(np.float32))
        self._divides = bool((table == torch.arange(256).float() / 255).all())
        self._table = table.to(device)

    def __call__(self, pixels: Sequence[NDArray[np.uint8]], padded: Size) -> torch.Tensor:
        """Model input [N, 3, *padded] of images uint8 [h, w, 3] no larger than `padded`; nothing waits for the device."""
        exact = all(image.shape[:2] == padded for image in pixels)
        stacked = torch.empty((len(pixels), *padded, 3), dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        rows = stacked.numpy()
        if not exact:
            rows.fill(0)
        for row, image in zip(rows, pixels, strict=True):
            row[: image.shape[0], : image.shape[1]] = image
        batch = stacked.to(self._device, non_blocking=self._device.type == "cuda")
        batch = batch.permute(0, 3, 1, 2)  # channels last in memory, as it came
        values = batch.float().div_(255) if self._divides else self._table[batch.long()]
        values = values.sub_(self._mean).div_(self._std)
        if not exact and not self._frame.black:
            for value, image in zip(values, pixels, strict=True):
                value[:, image.shape[0] :] = 0
                value[:, :, image.shape[1] :] = 0
        return values.to(self._dtype)
