"""Weights and pixels from a formula: the same numbers in every environment, so that no weights need to be stored."""

from __future__ import annotations

import math
import zlib

import numpy as np
from numpy.typing import NDArray


def uniform(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """float32 of `shape` in [-1, 1), by SplitMix64 (Steele et al., OOPSLA 2014) of the name's checksum and the place."""
    with np.errstate(over="ignore"):
        state = np.arange(1, math.prod(shape) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(zlib.crc32(name.encode()))
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return np.asarray((state >> np.uint64(40)).astype(np.float64) / 2**23 - 1, np.float32).reshape(shape)


def weight(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A weight that keeps activations in bounds: matrices by their fan-in, scales and variances around 1, biases small.

    EoMT masks its attention at random, by probabilities that training takes to 0.
    """
    if name.endswith("attn_mask_probs"):
        return np.zeros(shape, np.float32)
    values = uniform(name, shape)
    if not shape:
        return np.asarray(values * np.float32(0.2), np.float32)
    if len(shape) > 1:
        return values * np.float32(1.3 / math.sqrt(math.prod(shape[1:])))
    if name.endswith((".weight", "running_var", "lambda1", "lambda_1", "lambda_2")):
        return values * np.float32(0.3) + np.float32(1)
    return values * np.float32(0.2)


def pixels(side: int) -> NDArray[np.float32]:
    """Model input float32 [1, 3, side, side]."""
    return uniform("pixels", (1, 3, side, side)) * np.float32(2)


def image(height: int, width: int) -> NDArray[np.uint8]:
    """A picture uint8 [height, width, 3] with slopes and edges."""
    down, right = np.mgrid[0:height, 0:width]
    channels = [(down * 3 + right * 2) % 256, (right * 5) % 256, ((down // 8 + right // 8) % 2) * 200 + 20]
    return np.stack(channels, axis=-1).astype(np.uint8)
