"""HEIF and JPEG XL, with their plugins and without."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image

from masklake.errors import ErrorCode, ImageFailure
from masklake.images import decode, formats, more_formats
from masklake.images.decode import Decoded
from masklake.images.decoder import decode_apart

MOST = 10**6
SIZES = ((64, 48), (1, 1), (256, 256), (801, 450), (333, 77), (8, 264), (2000, 3))


def picture(width: int, height: int) -> Image.Image:
    """Red on the left, blue on the right, darker below."""
    rows, columns = np.mgrid[0:height, 0:width]
    shade = (255 - 100 * rows / height).astype(np.uint8)
    left = columns < width // 2
    return Image.fromarray(np.stack([shade * left, shade * 0, shade * ~left], axis=-1).astype(np.uint8))


def encoded(image: Image.Image, format_: str, **more: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **more)
    return file.getvalue()


@pytest.mark.parametrize("format_", more_formats.FORMATS)
def test_its_pixels_are_those_of_the_picture(format_: str) -> None:
    assert format_ in decode.MORE_FORMATS
    image = picture(90, 60)
    found = decode_apart(encoded(image, format_, **({"lossless": True} if format_ == "JXL" else {"quality": 95})), MOST)
    assert isinstance(found, Decoded)
    assert (found.format, found.size) == (format_, (60, 90))
    assert np.abs(found.pixels.astype(int) - np.asarray(image)).mean() < (0.1 if format_ == "JXL" else 6)


@pytest.mark.parametrize("format_", more_formats.FORMATS)
def test_what_is_wrong_with_it_is_said(format_: str) -> None:
    content = encoded(picture(300, 200), format_)
    large = decode_apart(content, 300 * 200 - 1)
    assert isinstance(large, ImageFailure)
    assert large.code == ErrorCode.TOO_LARGE
    half = decode_apart(content[: len(content) // 2], MOST)
    assert isinstance(half, ImageFailure)
    assert half.code in (ErrorCode.TRUNCATED, ErrorCode.BROKEN)


@pytest.mark.parametrize(("major", "compatible"), [(b"mif1", b"avif"), (b"msf1", b"avif"), (b"avif", b"mif1")])
def test_an_avif_of_heifs_general_brand_is_one(major: bytes, compatible: bytes) -> None:
    """As libheif and others write it; the brands are those of the `ftyp` box alone, and change nothing else."""
    content = encoded(picture(90, 60), "AVIF")
    end = int.from_bytes(content[:4], "big")
    brands = b"".join([major, content[12:16], compatible, *[b"miaf"] * ((end - 20) // 4)])
    found = decode_apart(content[:8] + brands + content[end:], MOST)
    assert isinstance(found, Decoded), found
    assert (found.format, found.size) == ("AVIF", (60, 90))
    assert np.abs(found.pixels.astype(int) - np.asarray(picture(90, 60))).mean() < 6


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"heis", b"hevx", b"mif1"])
def test_a_heif_of_any_brand_is_one(brand: bytes) -> None:
    content = encoded(picture(90, 60), "HEIF", quality=95)
    assert isinstance(decode_apart(content[:8] + brand + content[12:], MOST), Decoded)
    assert formats.by_signature(content[:8] + brand + content[12:]) == "HEIF"


def test_a_film_is_no_image() -> None:
    for brands in (b"isom", b"mp42", b"qt  "):
        film = b"\0\0\0\x18ftyp" + brands + b"\0\0\2\0isommp41" + bytes(200)
        found = decode_apart(film, MOST)
        assert isinstance(found, ImageFailure)
        assert found.code == ErrorCode.NOT_AN_IMAGE


def test_exif_does_not_turn_what_the_decoder_has_turned() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for format_ in more_formats.FORMATS:
        found = decode_apart(encoded(picture(90, 60), format_, exif=exif.tobytes()), MOST)
        assert isinstance(found, Decoded)
        with Image.open(io.BytesIO(encoded(picture(90, 60), format_, exif=exif.tobytes()))) as image:
            assert found.size == image.size[::-1], "as its own decoder shows it"


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_size_of_a_jpeg_xl_is_known_before_it_is_decoded(width: int, height: int) -> None:
    plain = encoded(picture(width, height), "JXL")
    exif = Image.Exif()
    exif[0x0112] = 1
    boxed = encoded(picture(width, height), "JXL", exif=exif.tobytes())
    assert more_formats.jxl_size(plain) == (width, height)
    assert boxed.startswith(b"\0\0\0\x0cJXL ")
    assert more_formats.jxl_size(boxed) == (width, height)


@pytest.mark.parametrize("content", [b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n", b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0" * 100])
def test_a_header_that_ends_tells_no_size(content: bytes) -> None:
    assert more_formats.jxl_size(content) is None
    found = decode_apart(content, MOST)
    assert isinstance(found, ImageFailure)


def test_without_the_plugins_a_row_names_the_extra() -> None:
    code = """
import sys
sys.modules["pillow_heif"] = sys.modules["pillow_jxl"] = None
from masklake.images import decode
print(decode.MORE_FORMATS, decode.decode(b"\\xff\\x0a" + bytes(100), 10**6), decode.decode(b"\\0\\0\\0\\x18ftypheic" + bytes(100), 10**6))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=True)
    assert done.stdout.startswith("()")
    for name in ("JPEG XL", "HEIF"):
        assert f"{name} is not decoded here, which the extra masklake[formats] brings" in done.stdout
