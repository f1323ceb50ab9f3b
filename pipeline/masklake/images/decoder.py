"""`decode` in a process of its own: what an image does to its decoder happens to that image alone."""

from __future__ import annotations

import functools
import os
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import features

from masklake.errors import ErrorCode, ImageFailure
from masklake.images.decode import Decoded, decode
from masklake.isolated import Ended, Isolated, Limits

MAX_SECONDS = 120.0
"""CPU that one image may take, unless a setting says otherwise: 100 megapixels of JPEG 2000, the slowest format, take about 30."""

BYTES_PER_PIXEL = 18
"""Memory that decoding takes at most, beside the file, for each pixel of the bound: WebP's and JPEG 2000's decoders take most."""

Pixels = NDArray[np.uint8]


def decode_apart(
    data: bytes,
    max_pixels: int,
    max_seconds: float = MAX_SECONDS,
    shrink: Callable[..., Pixels] | None = None,
    reduced_to: Callable[[int, int], tuple[int, int]] | None = None,
) -> Decoded | ImageFailure:
    """What `decode` gives, from a process of its own with bounds on its CPU time and memory, which serves further calls.

    Calls of several threads are answered side by side, by as many processes.

    Args:
        data: the file.
        max_pixels: the image's bound, from which that on memory follows.
        max_seconds: of CPU.
        shrink: reduces the decoded pixels there already; must be picklable. Of pixels that the decoder has reduced, it is also given the
            image's `size` and the `box` of them that it covers, by these names.
        reduced_to: see `decode`; must be picklable.
    """
    idle = _idle(os.getpid())
    try:
        process = idle.pop()
    except IndexError:
        process = Isolated(_decode)
    try:
        answer = process(data, Limits(max_seconds, BYTES_PER_PIXEL * max_pixels), max_pixels, shrink, reduced_to)
    finally:
        idle.append(process)
    if not isinstance(answer, Ended):
        return answer
    return {
        Ended.SLOW: ImageFailure(ErrorCode.TOO_SLOW, f"decoding takes more than the limit of {max_seconds:g} s"),
        Ended.LARGE: ImageFailure(ErrorCode.TOO_LARGE, "decoding takes more memory than its limit"),
        Ended.DIED: ImageFailure(ErrorCode.DECODER_CRASHED, "the decoder crashes on it"),
    }[answer]


@functools.lru_cache(maxsize=1)
def _idle(_process: int) -> deque[Isolated[Decoded | ImageFailure]]:
    """The decoders' processes of this process that nobody waits for; a forked one has none of its parent's."""
    return deque()


def _decode(
    data: bytes, max_pixels: int, shrink: Callable[..., Pixels] | None, reduced_to: Callable[[int, int], tuple[int, int]] | None
) -> Decoded | ImageFailure:
    _one_thread()
    found = decode(data, max_pixels, reduced_to)
    if isinstance(found, ImageFailure) or shrink is None:
        return found
    pixels = shrink(found.pixels) if found.box is None else shrink(found.pixels, size=found.size, box=found.box)
    return replace(found, pixels=pixels, box=None)


@functools.cache
def _one_thread() -> None:
    """AVIF's decoder would start a thread for every CPU, of which others use the rest."""
    if features.check("avif"):
        from PIL import AvifImagePlugin

        AvifImagePlugin.DEFAULT_MAX_THREADS = 1
