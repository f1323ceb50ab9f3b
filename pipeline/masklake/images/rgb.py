"""Every pixel mode of Pillow -> 8-bit RGB.

Samples of more than 8 bits are scaled so that white becomes 255. White is what the file declares (its bit depth, or TIFF's MaxSampleValue).
Signed and 32-bit samples, and floats beyond the usual ranges, have no agreed white: their own minimum and maximum become 0 and 255.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

_BITS_PER_SAMPLE, _PHOTOMETRIC, _MAX_SAMPLE = 258, 262, 281  # TIFF tags
_WHITE_IS_ZERO = 0
_UINT16_MAX = 65535
_FLOAT_WHITES = (1.0, 255.0, 65535.0)  # floats in [0, 1] are the norm; the others are integers stored as floats
_WHITE = (255, 255, 255, 255)
_STRIP_SAMPLES = 1 << 18


def to_rgb(image: Image.Image) -> Image.Image:
    """A loaded image in mode RGB; transparency is laid over white.

    Raises:
        ValueError: Pillow knows no way from the image's mode to RGB.
    """
    if image.mode.startswith("I;16"):
        return _gray(_scale_uint16(image))
    if image.mode == "I":
        return _gray(_scale_integers(np.asarray(image)))
    if image.mode == "F":
        return _gray(_scale_floats(np.asarray(image), inverted=_white_is_zero(image)))
    if image.mode == "LAB":
        # Pillow holds a and b with an offset of 128, as LittleCMS wants them; the white point of TIFF's Lab is D50, the profiles' own.
        converted = ImageCms.applyTransform(image, _lab_to_srgb())
        assert converted is not None
        return converted
    if image.has_transparency_data:
        return _over_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    lowest, highest = rgba.getchannel("A").getextrema()
    if lowest == 255 or highest == 0:  # opaque, or an alpha that hides everything
        return rgba.convert("RGB")
    canvas = Image.new("RGBA", rgba.size, _WHITE)
    canvas.alpha_composite(rgba)
    return canvas.convert("RGB")


def _gray(samples: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(samples).convert("RGB")


def _scale_uint16(image: Image.Image) -> NDArray[np.uint8]:
    samples = np.asarray(image)
    tags: Any = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
    declared = tags.get(_MAX_SAMPLE, (0,))
    white = declared[0] if isinstance(declared, tuple) and declared else declared
    highest = int(samples.max())
    if not isinstance(white, int) or white < highest or white < 256:
        white = 2**bits - 1 if 8 < bits <= 16 and highest < 2**bits else _UINT16_MAX
    # One look-up for each pixel: no arithmetic in wide integers on the whole image.
    values = np.arange(_UINT16_MAX + 1, dtype=np.uint64)
    table = np.minimum((values * 255 + white // 2) // white, 255).astype(np.uint8)
    if _white_is_zero(image):
        table = 255 - table
    scaled: NDArray[np.uint8] = table[samples]
    return scaled


def _scale_integers(samples: NDArray[np.int32]) -> NDArray[np.uint8]:
    lowest, highest = int(samples.min()), int(samples.max())
    if lowest >= 0 and highest <= _UINT16_MAX:
        lowest, highest = 0, _UINT16_MAX
    return _stretch(samples, lowest, highest)


def _scale_floats(samples: NDArray[np.float32], *, inverted: bool) -> NDArray[np.uint8]:
    bounds = [(float(part.min()), float(part.max())) for part in map(_finite, _strips(samples)) if part.size]
    lowest, highest = min((low for low, _ in bounds), default=0.0), max((high for _, high in bounds), default=0.0)
    if lowest >= 0 and highest <= _FLOAT_WHITES[-1]:
        lowest, highest = 0.0, next(white for white in _FLOAT_WHITES if highest <= white)
    scaled = _stretch(samples, lowest, highest, lambda part: np.nan_to_num(part, nan=lowest, posinf=highest, neginf=lowest))
    return 255 - scaled if inverted else scaled


def _finite(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    return samples[np.isfinite(samples)]


def _stretch(
    samples: NDArray[Any], lowest: float, highest: float, prepare: Callable[[NDArray[Any]], NDArray[Any]] = lambda part: part
) -> NDArray[np.uint8]:
    """`lowest` becomes 0 and `highest` 255; a constant image without an agreed white becomes black."""
    stretched = np.zeros(samples.shape, np.uint8)
    if highest > lowest:
        for part, into in zip(_strips(samples), _strips(stretched), strict=True):
            scaled = (prepare(part).astype(np.float64) - lowest) * (255.0 / (highest - lowest))
            into[:] = np.rint(scaled).clip(0, 255)
    return stretched


def _strips(samples: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Views of some samples at a time: arithmetic in wide numbers on the whole image would take several times its memory."""
    flat = samples.reshape(-1)
    return (flat[first : first + _STRIP_SAMPLES] for first in range(0, flat.size, _STRIP_SAMPLES))


def _white_is_zero(image: Image.Image) -> bool:
    """Pillow inverts such TIFFs for 8 bits and fewer, not for more."""
    tags: Any = getattr(image, "tag_v2", {})
    return bool(tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO)


@functools.cache
def _lab_to_srgb() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(
        ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC
    )
