"""Images that are made to keep a decoder busy, fill its memory or crash it cost a bounded effort, and are an error of their own."""

from __future__ import annotations

import io
import os
import struct
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from masklake.errors import ErrorCode, ImageFailure
from masklake.images import decoder
from masklake.images.decode import Decoded, decode
from masklake.images.decoder import BYTES_PER_PIXEL, decode_apart
from masklake.images.excess import MOST_SCANS, count_scans, excess
from tests.hostile import CRASHING, ENDLESS, crashing_decoder, jpeg_of_scans, saved

FORMATS = [
    ("JPEG", "RGB", {}),
    ("JPEG", "CMYK", {}),
    ("PNG", "RGB", {}),
    ("PNG", "RGBA", {}),
    ("WEBP", "RGB", {}),
    ("TIFF", "F", {"compression": "tiff_adobe_deflate"}),
    ("TIFF", "I", {"compression": "tiff_adobe_deflate"}),
    ("JPEG2000", "RGB", {}),
    ("GIF", "P", {}),
]


def code(found: Decoded | ImageFailure) -> ErrorCode:
    assert isinstance(found, ImageFailure), found.format
    return found.code


def test_pixels_are_those_of_decoding_here() -> None:
    data = saved("PNG", 50)
    here, there = decode(data, 10**6), decode_apart(data, 10**6)
    assert isinstance(here, Decoded)
    assert isinstance(there, Decoded)
    np.testing.assert_array_equal(here.pixels, there.pixels)
    smaller = decode_apart(data, 10**6, shrink=half)
    assert isinstance(smaller, Decoded)
    assert (smaller.pixels.shape, smaller.size) == ((25, 25, 3), (50, 50))


def half(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Every other pixel."""
    return pixels[::2, ::2]


@pytest.mark.slow
def test_a_decoder_that_crashes_or_never_ends_is_an_error_of_its_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(crashing_decoder(tmp_path)), *sys.path])
    decoder._idle.cache_clear()  # the one that serves now began without
    assert decode_apart(CRASHING, 100) == ImageFailure(ErrorCode.DECODER_CRASHED, "the decoder crashes on it")
    assert decode_apart(ENDLESS, 100, max_seconds=0.5) == ImageFailure(ErrorCode.TOO_SLOW, "decoding takes more than the limit of 0.5 s")
    assert isinstance(decode_apart(saved("PPM"), 10**6), Decoded)
    decoder._idle.cache_clear()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not bound memory, nor tell it")
@pytest.mark.slow
def test_memory_for_each_pixel_is_bounded_in_every_format_and_mode() -> None:
    side, taken = 1500, {}
    for format_, mode, options in FORMATS:
        data = saved(format_, side, mode, **options)
        decoder._idle.cache_clear()  # what one image left behind would serve the next
        before = peak_bytes()
        found = decode_apart(data, side * side)
        assert isinstance(found, Decoded), found
        others = 2 * len(data) + found.pixels.nbytes  # the file, and the answer's pickle
        taken[format_, mode] = (peak_bytes() - before - others) / side**2
    assert max(taken.values()) < BYTES_PER_PIXEL, taken


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not bound memory, nor tell it")
@pytest.mark.parametrize(("form", "kind"), [("F", np.float32), ("I", np.int32), ("I;16", np.uint16)], ids=["floats", "32 bits", "16 bits"])
def test_a_small_tiff_of_wide_samples_takes_what_its_pixels_may(form: str, kind: type[np.generic]) -> None:
    """Measured in the process that decodes, which may hold no more: 4 kB for 9 megapixels, and one that claims 196 megapixels."""
    side = 3000
    file = io.BytesIO()
    Image.fromarray(np.full((side, side), 60_000, kind)).save(file, "TIFF", compression="tiff_adobe_deflate")
    data = file.getvalue()
    assert len(data) < 100_000
    decoder._idle.cache_clear()  # a process that has decoded nothing large
    before = peak_bytes()
    larger = data
    for tag in (256, 257):  # ImageWidth and ImageLength
        larger = larger.replace(struct.pack("<HHIHH", tag, 3, 1, side, 0), struct.pack("<HHIHH", tag, 3, 1, 14_000, 0))
    assert code(decode_apart(larger, 100_000_000)) == ErrorCode.TOO_LARGE
    assert code(decode_apart(data, side * side - 1)) == ErrorCode.TOO_LARGE
    assert peak_bytes() - before < 10_000_000
    found = decode_apart(data, side * side)
    assert isinstance(found, Decoded), found
    assert found.pixels.min() == found.pixels.max() == round(60_000 / 65_535 * 255) == 233, form
    assert peak_bytes() - before < BYTES_PER_PIXEL * side * side + 2 * len(data) + found.pixels.nbytes


def peak_bytes() -> int:
    """The most that the decoder's process has held."""
    decode_apart(saved("PNG", 16), 256)
    process = decoder._idle(os.getpid())[-1]._process
    assert process
    (line,) = (line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def test_scans_of_a_jpeg_are_counted_and_bounded() -> None:
    usual = saved("JPEG", progressive=True)
    assert count_scans(saved("JPEG")) == 1
    assert count_scans(usual) == usual.count(b"\xff\xda") == 10  # libjpeg's script for colour
    assert count_scans(jpeg_of_scans(500)) == 510
    assert isinstance(decode(jpeg_of_scans(MOST_SCANS - 10), 10**6), Decoded)
    started = time.thread_time()
    assert decode(jpeg_of_scans(200_000), 10**6) == ImageFailure(ErrorCode.TOO_SLOW, "JPEG: 200010 scans, more than the limit of 100")
    assert time.thread_time() - started < 5  # of CPU: others may have the machine


def test_thumbnails_and_further_images_of_a_jpeg_are_not_its_scans() -> None:
    data = saved("JPEG")
    thumbnail = jpeg_of_scans(200, 16)[:60_000]
    within = data[:2] + b"\xff\xe2" + (len(thumbnail) + 2).to_bytes(2) + thumbnail + data[2:]
    assert count_scans(within) == 1
    assert count_scans(data + jpeg_of_scans(200)) == 1
    assert isinstance(decode(within, 10**6), Decoded)


@pytest.mark.parametrize("cut", [3, 30, 300, 600, -1])
def test_counting_ends_where_a_jpeg_does(cut: int) -> None:
    assert count_scans(jpeg_of_scans(300)[:cut]) <= 310
    assert count_scans(b"\xff\xd8" + b"\xff" * 100_000) == 0


@pytest.mark.parametrize(
    "data",
    [
        b"P3 600 600 255\n" + b"#\n" * 500_000,
        b"P6\n" + b"# nothing\n" * 500_000 + b"1 1 255\n...",
        b"P6 1 " + b" " * 5_000_000 + b"1 255\n...",
        b"P6 1 1 # " + b"." * 5_000_000 + b"\n255\n...",
    ],
)
def test_a_ppm_of_comments_is_refused_at_once(data: bytes) -> None:
    started = time.thread_time()
    assert code(decode(data, 10**6)) is ErrorCode.TOO_SLOW
    assert time.thread_time() - started < 1


def test_usual_ppms_are_not_refused() -> None:
    noise = np.full(3 * 64 * 64, ord("#"), np.uint8).tobytes()  # pixels that look like comments
    assert isinstance(decode(b"P6\n# made by hand\n64 64\n255\n" + noise, 10**6), Decoded)
    assert isinstance(decode(b"P3\n# made by hand\n1 1 # one pixel\n255\n1 # red\n2 3\n", 10**6), Decoded)
    assert excess("PPM", b"P6") is None


@pytest.mark.parametrize("data", [b"root:x:0:0:root:/root:/bin/bash\n", b"P6 root:x:0:0:root", b"P3 1 1 255 root:x:0:0 root:x:0:0 r"])
def test_no_message_shows_what_a_file_holds(data: bytes) -> None:
    found = decode(data, 10**6)
    assert isinstance(found, ImageFailure)
    assert "root" not in found.message
