"""JPEGs that their decoder reduces: at which scale, the original's size, and the picture in its place, however the file says to turn it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from masklake.errors import ErrorCode, ImageFailure
from masklake.images.decode import Decoded, decode
from masklake.images.decoder import decode_apart
from masklake.inference.preprocess import ResizePlan, resize

BOUND = 10**8
SMALL = ResizePlan("exact", (20, 20))


def saved(image: Image.Image, format_: str = "JPEG", **options: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, format_, **({"quality": 95, "subsampling": 0} if format_ == "JPEG" else {}), **options)
    return sink.getvalue()


def slopes(height: int, width: int) -> Image.Image:
    """Red grows to the right, green to the bottom: what is shifted or turned has other colours."""
    red = np.broadcast_to(np.linspace(0, 255, width), (height, width))
    green = np.broadcast_to(np.linspace(0, 255, height)[:, None], (height, width))
    return Image.fromarray(np.stack([red, green, np.full((height, width), 128)], axis=2).round().astype(np.uint8))


def decoded(data: bytes, plan: ResizePlan) -> Decoded:
    found = decode(data, BOUND, plan.target)
    assert isinstance(found, Decoded), found
    return found


def small(found: Decoded) -> NDArray[np.int16]:
    pixels = resize(found.pixels, SMALL) if found.box is None else resize(found.pixels, SMALL, found.size, found.box)
    return pixels.astype(np.int16)


@pytest.mark.parametrize(
    ("size", "plan", "reduced"),
    [
        ((3000, 4000), ResizePlan("exact", (384, 384)), (1500, 2000)),  # 1/4 would leave 750, less than 2 x 384
        ((3072, 4096), ResizePlan("exact", (384, 384)), (768, 1024)),
        ((480, 640), ResizePlan("exact", (384, 384)), (480, 640)),
        ((3000, 4000), ResizePlan("edges", (800, 1333)), (3000, 4000)),  # 800 x 1067
        ((6000, 8000), ResizePlan("edges", (800, 1333)), (3000, 4000)),
        ((2001, 3003), ResizePlan("exact", (125, 125)), (251, 376)),
        ((6000, 8000), ResizePlan("exact", (10, 10)), (750, 1000)),  # libjpeg knows no smaller one
        ((900, 900), ResizePlan("keep"), (900, 900)),
    ],
)
def test_the_scale_is_the_smallest_that_leaves_twice_the_input(size: tuple[int, int], plan: ResizePlan, reduced: tuple[int, int]) -> None:
    found = decoded(saved(Image.new("L", size[::-1], 90)), plan)
    assert (found.pixels.shape[:2], found.size) == (reduced, size)
    assert (found.box is None) == (reduced == size)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_and_place_are_the_originals_however_it_is_turned(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(slopes(329, 401), exif=exif)  # 1 more than 8 divides: taken for whole, the last column and row would shift all by 2 %
    fast, exact = decoded(data, SMALL), decode(data, BOUND)
    assert isinstance(exact, Decoded)
    assert fast.size == exact.size == exact.pixels.shape[:2]
    assert fast.pixels.shape[0] in (42, 51)
    assert np.abs(small(fast) - small(exact)).max() <= 2
    assert np.abs(resize(fast.pixels, SMALL).astype(np.int16) - small(exact)).max() > 2, "the test would not see a shift"


@pytest.mark.parametrize(("mode", "options"), [("CMYK", {}), ("L", {}), ("RGB", {"progressive": True}), ("CMYK", {"progressive": True})])
def test_other_colours_and_progressive_files_are_reduced_alike(mode: str, options: dict[str, Any]) -> None:
    data = saved(slopes(320, 480).convert(mode), **options)
    fast, exact = decoded(data, SMALL), decode(data, BOUND)
    assert isinstance(exact, Decoded)
    assert fast.pixels.shape == (40, 60, 3)
    assert np.abs(small(fast) - small(exact)).max() <= 3


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "BMP"])
def test_other_formats_are_decoded_as_ever(format_: str) -> None:
    data = saved(slopes(320, 480), format_)
    fast, exact = decoded(data, SMALL), decode(data, BOUND)
    assert isinstance(exact, Decoded)
    assert fast.box is None
    np.testing.assert_array_equal(fast.pixels, exact.pixels)


def test_what_is_too_large_or_cut_short_stays_so() -> None:
    data = saved(slopes(320, 480))
    too_large, cut = decode(data, 1000, SMALL.target), decode(data[: len(data) // 2], BOUND, SMALL.target)
    assert isinstance(too_large, ImageFailure)
    assert isinstance(cut, ImageFailure)
    assert (too_large.code, cut.code) == (ErrorCode.TOO_LARGE, ErrorCode.TRUNCATED)


def shrunk(pixels: NDArray[np.uint8], size: tuple[int, int] | None = None, box: Any = None) -> NDArray[np.uint8]:
    return resize(pixels, SMALL, size, box)


def test_a_process_of_its_own_answers_with_the_models_input_and_the_originals_size() -> None:
    data = saved(slopes(329, 401))
    apart = decode_apart(data, BOUND, shrink=shrunk, reduced_to=SMALL.target)
    assert isinstance(apart, Decoded)
    assert (apart.size, apart.box) == ((329, 401), None)
    np.testing.assert_array_equal(apart.pixels, small(decoded(data, SMALL)))
