"""Whatever people call an image, as the pixels that the job would make of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from masklake import storage
from masklake.errors import ErrorCode, ImageFailure
from masklake.images.decode import Decoded, upright
from masklake.images.decoder import decode_apart
from masklake.images.fetch import fetch_by_uri

Picture = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | NDArray[Any]
"""A path, a URI or URL, a file's bytes, an image of Pillow's, or pixels: uint8 [height, width], [height, width, 1], 3 (RGB) or 4 (RGBA)."""

_CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class Bounds:
    """What of an image is not read: more pixels, more bytes of its file, more seconds of decoding."""

    max_pixels: int
    max_image_bytes: int
    max_decode_seconds: float = 120.0


@dataclass(frozen=True)
class Named:
    """A picture, what it is called, and how to have it again."""

    name: str
    read: Callable[[], Decoded | ImageFailure]


def is_picture(given: object) -> bool:
    """Whether it is one picture, and not several."""
    return isinstance(given, str | os.PathLike | bytes | bytearray | memoryview | Image.Image | np.ndarray)


def named(picture: Picture, number: int, bounds: Bounds) -> Named:
    """A picture by its URI, or by its place among those that were given: "image 0".

    Raises:
        TypeError: it is none of the kinds that `Picture` has.
        ValueError: an array is of another type or shape.
        Refused: a URI carries a password.
    """
    name = f"image {number}"
    if isinstance(picture, str | os.PathLike):
        uri = storage.normalise(os.fspath(picture))
        return Named(uri, lambda: _decoded(fetch_by_uri(uri, bounds.max_image_bytes), bounds))
    if isinstance(picture, bytes | bytearray | memoryview):
        data = bytes(picture)
        return Named(name, lambda: _decoded(data, bounds))
    if isinstance(picture, Image.Image):
        image = picture
        return Named(str(getattr(image, "filename", "")) or name, lambda: _of_pillow(image, bounds))
    if isinstance(picture, np.ndarray):
        _check(picture, name)
        pixels = picture
        return Named(name, lambda: _of_pillow(_from_array(pixels), bounds))
    raise TypeError(
        f"{name} is a {type(picture).__name__}: give a path, a URL, a file's bytes, an image of Pillow's, an array, or a list of these"
    )


def _decoded(content: bytes | ImageFailure, bounds: Bounds) -> Decoded | ImageFailure:
    if isinstance(content, ImageFailure):
        return content
    if len(content) > bounds.max_image_bytes:
        return ImageFailure(ErrorCode.TOO_LARGE, f"{len(content)} bytes, more than the limit of {bounds.max_image_bytes}")
    return decode_apart(content, bounds.max_pixels, bounds.max_decode_seconds)


def _of_pillow(image: Image.Image, bounds: Bounds) -> Decoded | ImageFailure:
    if image.width * image.height > bounds.max_pixels:
        return ImageFailure(ErrorCode.TOO_LARGE, f"{image.width} x {image.height} pixels, more than the limit of {bounds.max_pixels}")
    if not image.width * image.height:
        return ImageFailure(ErrorCode.EMPTY, "it has no pixels")
    try:
        pixels = upright(image)
    except Exception as error:  # a lazily opened file is decoded here, and decoders raise whatever they like on bad data
        return ImageFailure(ErrorCode.BROKEN, " ".join(str(error).split()) or type(error).__name__)
    return Decoded(pixels, getattr(image, "format", None) or "", (pixels.shape[0], pixels.shape[1]))


def _check(pixels: NDArray[Any], name: str) -> None:
    if pixels.dtype != np.uint8:
        raise ValueError(f"{name} is an array of {pixels.dtype}: give uint8, 0 to 255")
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in _CHANNELS):
        raise ValueError(f"{name} is an array of shape {pixels.shape}: give [height, width], or [height, width, 1, 3 or 4]")


def _from_array(pixels: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)
