"""Bytes -> an upright RGB image, or the reason why there is none. Bad data never raises, and nothing is allocated beyond a bound.

What is decided here (a change of it is a new `DECODE_VERSION`, which is part of every answer's fingerprint):

- EXIF orientation is applied; an EXIF block that cannot be read counts as absent.
- Transparency is laid over white, as viewers and browsers show it: the colours below full transparency are often leftovers.
  An alpha channel that hides the whole image says nothing and is ignored.
- Samples of more than 8 bits are scaled from their declared depth, not clipped; see `masklake.images.rgb`.
- ICC profiles are ignored: models were trained on images that were read so. Lab, CMYK and YCbCr are converted by their definition.
- Of an animation or a multi-page file the first frame is taken.
- A truncated image is refused, not padded.

A decoder may be asked to reduce: a JPEG's is exact in the frequencies that stay, and far faster (`reduced_to`).
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from masklake.errors import ErrorCode, ImageFailure
from masklake.images import formats, more_formats
from masklake.images.excess import excess
from masklake.images.rgb import to_rgb

DECODE_VERSION = 1
"""Changes whenever the same bytes would give other pixels."""

_ORIENTATION = 0x0112  # the EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)  # turns that make height of width
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # TIFF tags
_LONGEST_REASON = 150
_QUOTED = re.compile(r"(?<![A-Za-z])b?(['\"]).*?(\1|$)")  # of the file's content, which is not for messages

Image.init()
MORE_FORMATS = more_formats.register()
"""Formats beyond Pillow's own that are decoded in this installation; part of an answer's fingerprint where there are any."""

_OPENED = tuple(name for name in (*MORE_FORMATS, *formats.DECODED) if name in Image.OPEN)  # Pillow may have been built without some
_SAID = {"JXL": "JPEG XL"}

warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # what Pillow warns of is either harmless or fails below
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


@dataclass(frozen=True)
class Decoded:
    """An image as the model sees it: `pixels` is uint8 [height, width, 3], RGB, upright, possibly read-only; `format` is Pillow's name."""

    pixels: NDArray[np.uint8]
    format: str
    size: tuple[int, int]
    """Height and width of the image, also where `pixels` were reduced."""
    box: tuple[float, float, float, float] | None = None
    """Of reduced pixels, what the image covers: left, top, right, bottom; the last column or row may be there in part."""


def decode(data: bytes, max_pixels: int, reduced_to: Callable[[int, int], tuple[int, int]] | None = None) -> Decoded | ImageFailure:
    """Decode an image of at most `max_pixels` pixels; its size is judged by its header, before pixels are allocated.

    Takes about 12 bytes of memory per pixel, 24 for samples of 32 bits.

    Args:
        data: the file.
        max_pixels: its bound.
        reduced_to: from the upright image's height and width to those that are wanted of it in the end. A JPEG is then decoded at the
            smallest of the scales 1/2, 1/4 and 1/8 (libjpeg's, of its DCT) that leaves at least twice as much on each side.
    """
    if not data:
        return ImageFailure(ErrorCode.EMPTY, "the object has no bytes")
    format_ = formats.by_signature(data)
    if (repeated := excess(format_, data)) is not None:
        return ImageFailure(ErrorCode.TOO_SLOW, f"{format_}: {repeated}")
    size = formats.early_size(data)
    if size is not None and size[0] * size[1] > max_pixels:
        return _too_large(size, max_pixels)
    pillow_bound, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels  # for what only Pillow sees: frames that outgrow the canvas
    try:
        return _decode(data, max_pixels, reduced_to)
    except Exception as error:  # decoders raise whatever they like on bad data
        return _failure(data, error)
    finally:
        Image.MAX_IMAGE_PIXELS = pillow_bound


def _decode(data: bytes, max_pixels: int, reduced_to: Callable[[int, int], tuple[int, int]] | None) -> Decoded | ImageFailure:
    try:
        image = Image.open(io.BytesIO(data), formats=_openers(data))
    except UnidentifiedImageError:
        return _unidentified(data)
    width, height = image.size
    if width * height > max_pixels:
        return _too_large(image.size, max_pixels)
    tile = _tile_size(image)
    if tile[0] * tile[1] > max(max_pixels, 4 * width * height):
        return ImageFailure(ErrorCode.TOO_LARGE, f"tiles of {tile[0]} x {tile[1]} pixels in an image of {width} x {height}")
    covered = _reduce(image, reduced_to) if reduced_to and isinstance(image, JpegImageFile) else None
    pixels = upright(image)
    if covered is None:
        return Decoded(pixels, image.format or "", (pixels.shape[0], pixels.shape[1]))
    turn = _orientation(image)
    upright_size = (width, height) if turn in _SIDEWAYS else (height, width)
    return Decoded(pixels, image.format or "", upright_size, _turned(covered, image.size, turn))


def _openers(data: bytes) -> tuple[str, ...]:
    """The decoders that are asked: HEIF's would take an AVIF of HEIF's general brand, and has no decoder of AV1."""
    return tuple(name for name in _OPENED if name != "HEIF") if formats.by_signature(data) == "AVIF" else _OPENED


def _reduce(image: JpegImageFile, reduced_to: Callable[[int, int], tuple[int, int]]) -> tuple[float, float] | None:
    """Have the decoder reduce, where a scale fits; what the image covers then, width and height in reduced pixels."""
    sideways = _orientation(image) in _SIDEWAYS
    width, height = image.size
    wanted = reduced_to(*((width, height) if sideways else (height, width)))
    new_width, new_height = wanted if sideways else wanted[::-1]
    image.draft(None, (2 * new_width, 2 * new_height))
    if image.size == (width, height):
        return None
    scale = next(scale for scale in (2, 4, 8) if image.size == (-(-width // scale), -(-height // scale)))
    return width / scale, height / scale


def _turned(covered: tuple[float, float], size: tuple[int, int], turn: int) -> tuple[float, float, float, float]:
    """Where in the turned pixels that is which began at the left and the top before; `size` is width and height before."""
    (right, bottom), (width, height) = covered, size
    left, top = 0.0, 0.0
    if turn in (2, 3, 7, 8):  # what was left is right, or at the bottom
        left, right = width - right, float(width)
    if turn in (3, 4, 6, 7):
        top, bottom = height - bottom, float(height)
    return (top, left, bottom, right) if turn in _SIDEWAYS else (left, top, right, bottom)


def upright(image: Image.Image) -> NDArray[np.uint8]:
    """The pixels of an image of Pillow's as the model sees them: uint8 [height, width, 3], RGB, turned as its EXIF block says.

    Raises:
        Exception: whatever its decoder raises.
    """
    image.load()
    # After load: the tag may follow the pixels, and TIFFs are upright by now, with the tag removed.
    turn = None if more_formats.turns_itself(image) else _TURNS.get(_orientation(image))
    rgb = to_rgb(image)
    return np.asarray(rgb if turn is None else rgb.transpose(turn))


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 (upright) where there is none, or none that can be read."""
    try:
        value: Any = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a broken EXIF block raises all kinds of errors
        return 1
    return value if isinstance(value, int) else 1


def _tile_size(image: ImageFile.ImageFile) -> tuple[int, int]:
    """Width and height of a TIFF's tiles, which libtiff allocates whole; (0, 0) where there are none."""
    tags: Any = getattr(image, "tag_v2", {})
    width, length = tags.get(_TILE_WIDTH, 0), tags.get(_TILE_LENGTH, 0)
    return (width, length) if isinstance(width, int) and isinstance(length, int) else (0, 0)


def _too_large(size: tuple[int, int], max_pixels: int) -> ImageFailure:
    return ImageFailure(ErrorCode.TOO_LARGE, f"{size[0]} x {size[1]} pixels, more than the limit of {max_pixels}")


def _unidentified(data: bytes) -> ImageFailure:
    """Why no decoder took the data: ask the one that its signature belongs to."""
    format_ = formats.by_signature(data)
    if format_ is None:
        return ImageFailure(ErrorCode.NOT_AN_IMAGE, "is not in a known image format")
    if format_ not in _OPENED:
        cure = ", which the extra masklake[formats] brings" if format_ in more_formats.FORMATS else ""
        return ImageFailure(ErrorCode.UNSUPPORTED, f"{_SAID.get(format_, format_)} is not decoded here{cure}")
    factory: Callable[[io.BytesIO, str], object] = Image.OPEN[format_][0]
    try:
        factory(io.BytesIO(data), "")
    except Exception as error:
        return _failure(data, error)
    return ImageFailure(ErrorCode.BROKEN, f"no {format_} decoder could open it")


def _failure(data: bytes, error: Exception) -> ImageFailure:
    """A decoder's exception as a code: by its words, and by whether the file is as long as it says."""
    reason = _QUOTED.sub("...", " ".join(str(error).split()))[:_LONGEST_REASON] or type(error).__name__
    if isinstance(error, Image.DecompressionBombError):
        return ImageFailure(ErrorCode.TOO_LARGE, f"more than the limit of {Image.MAX_IMAGE_PIXELS} pixels")
    if isinstance(error, MemoryError):
        return ImageFailure(ErrorCode.TOO_LARGE, "decoding takes more memory than its limit")
    format_ = formats.by_signature(data)
    if format_ is None:
        # TGA has no signature: what merely could be one, and then does not decode, is any file.
        return ImageFailure(ErrorCode.NOT_AN_IMAGE, "is not in a known image format")
    return ImageFailure(formats.judge(format_, data, reason), f"{format_}: {reason}")
