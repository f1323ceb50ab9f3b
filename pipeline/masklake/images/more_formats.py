"""HEIF (HEIC) and JPEG XL, where the extra `formats` is installed: what Pillow's plugins for them need so that they keep our rules."""

from __future__ import annotations

import importlib
from contextlib import suppress
from typing import Any

from PIL import Image

FORMATS = ("HEIF", "JXL")
"""Pillow's names."""

_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_MOST_BOXES = 100
_CODESTREAM = b"\xff\x0a"


def register() -> tuple[str, ...]:
    """Make what is installed known to Pillow; returns its names for these formats."""
    with suppress(ImportError):
        heif: Any = importlib.import_module("pillow_heif")
        heif.options.DECODE_THREADS = 1  # other threads have other images
        heif.register_heif_opener(thumbnails=False)
    with suppress(ImportError):
        jxl: Any = importlib.import_module("pillow_jxl.JpegXLImagePlugin")
        jxl.DECODE_THREADS = 0
    return tuple(name for name in FORMATS if name in Image.OPEN)


def turns_itself(image: Image.Image) -> bool:
    """Whether the decoder has turned the image upright, so that EXIF's word is none: JPEG XL's, save of a JPEG that it was made from."""
    return image.format == "JXL" and not getattr(image, "jpeg", False)


def jxl_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) as a JPEG XL file's header says (ISO/IEC 18181-1, `SizeHeader`), before anything is decoded; None where it ends.

    The plugin decodes an image when it is opened, before Pillow knows its size.
    """
    start = 0 if data.startswith(_CODESTREAM) else _codestream(data)
    if start is None or len(data) < start + 2 + 10:
        return None
    bits = _Bits(data[start + 2 : start + 2 + 16])
    small = bits.take(1)
    height = 8 * (bits.take(5) + 1) if small else 1 + bits.take((9, 13, 18, 30)[bits.take(2)])
    if ratio := bits.take(3):
        wide, high = _RATIOS[ratio - 1]
        return height * wide // high, height
    return 8 * (bits.take(5) + 1) if small else 1 + bits.take((9, 13, 18, 30)[bits.take(2)]), height


class _Bits:
    """Bits in JPEG XL's order: the lowest of each byte first."""

    def __init__(self, data: bytes) -> None:
        self._left = int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        value = self._left & ((1 << count) - 1)
        self._left >>= count
        return value


def _codestream(data: bytes) -> int | None:
    """Where the codestream begins in a file of boxes."""
    position = 0
    for _ in range(_MOST_BOXES):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        head = 8
        if length == 1:
            length, head = int.from_bytes(data[position + 8 : position + 16], "big"), 16
        start = position + head + (4 if kind == b"jxlp" else 0)  # a part has a number first
        if kind in (b"jxlc", b"jxlp"):
            return start if data.startswith(_CODESTREAM, start) else None
        if length < head or position + length >= len(data):
            return None
        position += length
    return None
