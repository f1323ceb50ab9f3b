"""Decoding, against pixel values worked out by hand and against the same picture in other formats."""

from __future__ import annotations

import io
import random
import resource
import struct
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from masklake.errors import ErrorCode, ImageFailure
from masklake.images.decode import Decoded, decode
from tests.shared import shared_folder

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning"
)  # Pillow's, of damage made here

BOUND = 1_000_000
WHITE, BLACK, RED = (255, 255, 255), (0, 0, 0), (255, 0, 0)


def pixels(data: bytes) -> NDArray[np.uint8]:
    """What decoding gives, seen to be an image."""
    answer = decode(data, BOUND)
    assert isinstance(answer, Decoded), answer
    assert answer.pixels.dtype == np.uint8
    assert answer.pixels.ndim == 3
    assert answer.pixels.shape[2] == 3
    assert answer.pixels.flags.c_contiguous
    return answer.pixels


def gray(data: bytes) -> list[int]:
    """The first row of a gray image."""
    found = pixels(data)
    assert (found == found[..., :1]).all()
    return [int(value) for value in found[0, :, 0]]


def code(data: bytes, bound: int = BOUND) -> ErrorCode:
    answer = decode(data, bound)
    assert isinstance(answer, ImageFailure), "decoded"
    assert answer.message
    assert "\n" not in answer.message
    return answer.code


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:  # noqa: A002 - Pillow's word
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def picture(height: int = 24, width: int = 32) -> Image.Image:
    """A smooth picture: compresses well, and is different everywhere."""
    rows, columns = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([rows * 8, columns * 7, 255 - rows * 5], axis=-1).astype(np.uint8))


def tiff(size: tuple[int, int], data: bytes, bits: Sequence[int], photometric: int, **tags: int) -> bytes:
    """An uncompressed little-endian TIFF of (height, width), made by hand: tags in 16 bits, `t281=4095` sets tag 281."""
    entries = {
        256: (size[1],),
        257: (size[0],),
        258: tuple(bits),
        259: (1,),
        262: (photometric,),
        273: (8,),
        277: (len(bits),),
        278: (size[0],),
    }
    entries |= {279: (len(data),)} | {int(name[1:]): (value,) for name, value in tags.items()}
    directory, beyond = struct.pack("<H", len(entries)), b""
    start = 8 + len(data) + 2 + 12 * len(entries) + 4
    for tag, values in sorted(entries.items()):
        packed = struct.pack(f"<{len(values)}H", *values)
        if len(packed) > 4:
            packed, beyond = struct.pack("<I", start + len(beyond)), beyond + packed
        directory += struct.pack("<HHI", tag, 3, len(values)) + packed.ljust(4, b"\0")
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + bytes(4) + beyond


def png(size: tuple[int, int], bits: int, colour: int, rows: bytes) -> bytes:
    """A PNG of (height, width), made by hand: `rows` has a filter byte before each row."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", size[1], size[0], bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


# --- the right way up ---------------------------------------------------------------------------------------------------------------------

# Upright, the picture is ABC over DEF. EXIF says which side of it the first stored row and the first stored column are:
STORED = {
    1: ["ABC", "DEF"],  # row 0 top, column 0 left
    2: ["CBA", "FED"],  # top, right
    3: ["FED", "CBA"],  # bottom, right
    4: ["DEF", "ABC"],  # bottom, left
    5: ["AD", "BE", "CF"],  # left, top
    6: ["CF", "BE", "AD"],  # right, top
    7: ["FC", "EB", "DA"],  # right, bottom
    8: ["DA", "EB", "FC"],  # left, bottom
}
LETTERS = {"A": RED, "B": (0, 255, 0), "C": (0, 0, 255), "D": WHITE, "E": BLACK, "F": (255, 255, 0)}
CELL = 16


def painted(rows: list[str]) -> NDArray[np.uint8]:
    cells = np.array([[LETTERS[letter] for letter in row] for row in rows], np.uint8)
    return cells.repeat(CELL, axis=0).repeat(CELL, axis=1)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize(
    ("format_", "options"),
    [
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("PNG", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_every_exif_orientation_is_applied(format_: str, options: dict[str, Any], orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(painted(STORED[orientation])), format_, exif=exif, **options)
    expected = painted(["ABC", "DEF"])
    found = pixels(data)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 3  # JPEG rings at the edges


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x02\0\0\0A\0\0\0"]
)
def test_an_exif_block_that_cannot_be_read_counts_as_absent(exif: bytes) -> None:
    plain = encoded(picture(), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    assert (pixels(plain[:2] + segment + plain[2:]) == pixels(plain)).all()


# --- sample depths ------------------------------------------------------------------------------------------------------------------------

DEEP = [0, 128, 129, 257, 32767, 32768, 65278, 65535]
DEEP_SCALED = [0, 0, 1, 1, 127, 128, 254, 255]  # v / 257, rounded


def test_16_bits_are_scaled_from_all_their_range() -> None:
    samples = np.array([DEEP], "<u2")
    assert gray(tiff((1, 8), samples.tobytes(), [16], photometric=1)) == DEEP_SCALED
    assert gray(encoded(Image.fromarray(samples), "PNG")) == DEEP_SCALED
    assert gray(b"P5 8 1 65535\n" + samples.astype(">u2").tobytes()) == DEEP_SCALED


def test_big_endian_16_bits_are_scaled_alike() -> None:
    data = tiff((1, 8), np.array([DEEP], ">u2").tobytes(), [16], photometric=1)
    # The same file with every number of its head turned round.
    offset = struct.unpack("<I", data[4:8])[0]
    turned = b"MM\0*" + struct.pack(">I", offset) + data[8:offset] + struct.pack(">H", *struct.unpack_from("<H", data, offset))
    for entry in range(struct.unpack_from("<H", data, offset)[0]):
        tag, kind, count, value, _ = struct.unpack_from("<HHIHH", data, offset + 2 + 12 * entry)
        turned += struct.pack(">HHIHH", tag, kind, count, value, 0)
    assert gray(turned + bytes(4)) == DEEP_SCALED


def test_where_white_is_zero_16_bits_are_inverted() -> None:
    data = tiff((1, 8), np.array([DEEP], "<u2").tobytes(), [16], photometric=0)
    assert gray(data) == [255 - value for value in DEEP_SCALED]


def test_white_is_what_the_file_declares() -> None:
    samples = np.array([[0, 1023, 2048, 4095]], "<u2")
    assert gray(tiff((1, 4), samples.tobytes(), [16], photometric=1)) == [0, 4, 8, 16]  # nothing declared: 65535
    assert gray(tiff((1, 4), samples.tobytes(), [16], photometric=1, t281=4095)) == [0, 64, 128, 255]
    assert gray(tiff((1, 4), samples.tobytes(), [16], photometric=1, t281=1000)) == [0, 4, 8, 16]  # contradicted by the samples
    packed = bytes([0x00, 0x03, 0xFF, 0x80, 0x0F, 0xFF])  # the same samples, 12 bits each
    assert gray(tiff((1, 4), packed, [12], photometric=1)) == [0, 64, 128, 255]


def test_16_bits_of_colour_keep_their_high_byte() -> None:
    values = [0x0000, 0x80FF, 0xFFFF]
    assert pixels(png((1, 1), 16, 2, b"\0" + struct.pack(">3H", *values))).tolist() == [[[0, 128, 255]]]
    assert pixels(tiff((1, 1), struct.pack("<3H", *values), [16, 16, 16], photometric=2)).tolist() == [[[0, 128, 255]]]


def test_32_bits_and_signed_samples_are_stretched_between_their_extremes() -> None:
    signed = np.array([[-1000, 0, 3000]], "<i2")
    assert gray(tiff((1, 3), signed.tobytes(), [16], photometric=1, t339=2)) == [0, 64, 255]
    wide = np.array([[0, 1_000_000, 2_000_000]], "<i4")
    assert gray(tiff((1, 3), wide.tobytes(), [32], photometric=1, t339=2)) == [0, 128, 255]
    constant = np.full((1, 3), 70_000, "<i4")
    assert gray(tiff((1, 3), constant.tobytes(), [32], photometric=1, t339=2)) == [0, 0, 0]


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([0.0, 0.5, 0.75], [0, 128, 191]),  # white is 1
        ([0.0, 100.0, 200.0], [0, 100, 200]),  # white is 255
        ([0.0, 257.0, 65535.0], [0, 1, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([float("nan"), 0.5, float("inf")], [0, 128, 255]),  # what is finite decides that white is 1
        ([float("nan")] * 3, [0, 0, 0]),
        ([-3e38, 0.0, 3e38], [0, 128, 255]),
    ],
)
def test_floats_are_scaled_by_their_range(samples: list[float], expected: list[int]) -> None:
    data = np.array([samples], "<f4").tobytes()
    assert gray(tiff((1, 3), data, [32], photometric=1, t339=3)) == expected
    assert gray(tiff((1, 3), data, [32], photometric=0, t339=3)) == [255 - value for value in expected]


def test_one_bit_is_black_and_white() -> None:
    assert gray(encoded(Image.fromarray(np.array([[True, False, True]])), "PNG")) == [255, 0, 255]


# --- colour spaces ------------------------------------------------------------------------------------------------------------------------

INKS = {(0, 0, 0, 0): WHITE, (0, 255, 255, 0): RED, (0, 0, 0, 255): BLACK, (255, 0, 0, 0): (0, 255, 255), (0, 0, 0, 128): (127, 127, 127)}


@pytest.mark.parametrize(("ink", "colour"), INKS.items())
def test_cmyk_is_what_the_inks_leave_of_white(ink: tuple[int, ...], colour: tuple[int, ...]) -> None:
    image = Image.new("CMYK", (16, 16), ink)
    assert (pixels(encoded(image, "TIFF")) == colour).all()
    photoshop = encoded(image, "JPEG", quality=95)
    assert b"Adobe" in photoshop  # such files hold inverted inks
    assert np.abs(pixels(photoshop).astype(int) - colour).max() <= 3


def srgb_of_lab(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIE L*a*b* under D50 -> sRGB of 0..255, by the formulas of CIE 15 and IEC 61966-2-1; the matrix is Lindbloom's (Bradford)."""
    fy = (lab[..., 0] + 16) / 116
    f = np.stack([fy + lab[..., 1] / 500, fy, fy - lab[..., 2] / 200], axis=-1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * (0.96422, 1.0, 0.82521)
    matrix = [[3.1338561, -1.6168667, -0.4906146], [-0.9787684, 1.9161415, 0.0334540], [0.0719453, -0.2289914, 1.4052427]]
    linear = (xyz @ np.array(matrix).T).clip(0, 1)
    srgb: NDArray[np.float64] = 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return srgb


def test_lab_becomes_srgb() -> None:
    lab = np.array([[100, 0, 0], [0, 0, 0], [53.39, 0, 0], [54.29, 80.81, 69.89], [60, 20, -30], [60, -30, 20], [40, 10, 40], [80, 5, 60]])
    expected = srgb_of_lab(lab)
    assert np.abs(expected[:4] - (WHITE, BLACK, (127, 127, 127), RED)).max() < 2  # the formula gives what is known
    stored = np.rint(lab * (2.55, 1, 1)).astype(np.int16).astype(np.uint8)  # a and b are signed bytes
    found = pixels(tiff((1, len(lab)), stored.tobytes(), [8, 8, 8], photometric=8))
    assert np.abs(found[0] - expected)[4:].max() < 1.5  # within sRGB's gamut
    assert np.abs(found[0] - expected).max() < 6  # at its corners 8-bit Lab is coarse


def test_ycbcr_becomes_rgb() -> None:
    # JFIF: R = Y + 1.402 (Cr - 128), G = Y - 0.344 (Cb - 128) - 0.714 (Cr - 128), B = Y + 1.772 (Cb - 128)
    found = pixels(encoded(Image.frombytes("YCbCr", (1, 1), bytes([100, 128, 178])), "TIFF"))
    assert np.abs(found.astype(int) - (170, 64, 100)).max() <= 1


# --- transparency -------------------------------------------------------------------------------------------------------------------------


def test_transparency_is_laid_over_white() -> None:
    rgba = np.array([[[255, 0, 0, 255], [255, 0, 0, 128], [255, 0, 0, 0]]], np.uint8)
    expected = [[[255, 0, 0], [255, 127, 127], [255, 255, 255]]]
    for format_, options in (("PNG", {}), ("TIFF", {}), ("TGA", {}), ("WEBP", {"lossless": True, "exact": True})):
        assert pixels(encoded(Image.fromarray(rgba), format_, **options)).tolist() == expected
    la = np.array([[[0, 255], [0, 128], [0, 0]]], np.uint8)
    assert gray(encoded(Image.fromarray(la, "LA"), "PNG")) == [0, 127, 255]


def test_a_transparent_palette_entry_and_a_transparent_colour_become_white() -> None:
    palette = Image.frombytes("P", (3, 1), bytes([0, 1, 2]))
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    assert pixels(encoded(palette, "PNG")).tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]
    for format_ in ("PNG", "GIF"):
        assert pixels(encoded(palette, format_, transparency=1)).tolist() == [[[255, 0, 0], [255, 255, 255], [0, 0, 255]]]
    keyed = Image.fromarray(np.array([[[9, 9, 9], [8, 8, 8]]], np.uint8))
    assert pixels(encoded(keyed, "PNG", transparency=(9, 9, 9))).tolist() == [[[255, 255, 255], [8, 8, 8]]]


def test_an_alpha_that_hides_everything_is_ignored() -> None:
    hidden = np.dstack([np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8), np.zeros((1, 2), np.uint8)])
    assert pixels(encoded(Image.fromarray(hidden), "PNG")).tolist() == [[[1, 2, 3], [4, 5, 6]]]


@pytest.mark.parametrize("format_", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_of_several_frames_the_first_is_taken(format_: str) -> None:
    first, second = (Image.new("RGB", (16, 16), colour) for colour in (RED, (0, 0, 255)))
    data = encoded(first, format_, save_all=True, append_images=[second], **({"lossless": True} if format_ == "WEBP" else {}))
    assert np.abs(pixels(data).astype(int) - RED).max() <= 3


# --- what cannot be decoded ---------------------------------------------------------------------------------------------------------------

FORMATS: dict[str, dict[str, Any]] = {
    "JPEG": {},
    "PNG": {},
    "GIF": {},
    "WEBP": {},
    "BMP": {},
    "TIFF": {"compression": "tiff_lzw"},
    "AVIF": {},
    "JPEG2000": {},
    "PPM": {},
    "TGA": {},
}


@pytest.mark.parametrize("format_", FORMATS)
def test_each_format_is_decoded_and_named(format_: str) -> None:
    answer = decode(encoded(picture(), format_, **FORMATS[format_]), BOUND)
    assert isinstance(answer, Decoded)
    assert (answer.format, answer.pixels.shape) == (format_, (24, 32, 3))
    assert np.abs(answer.pixels.astype(int) - np.asarray(picture())).mean() < 12  # the lossy ones lose, GIF's palette most


@pytest.mark.slow
@pytest.mark.parametrize("format_", [name for name in FORMATS if name != "TGA"])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_an_image_that_ends_early_is_truncated(format_: str, part: float) -> None:
    data = encoded(picture(240, 320), format_, **FORMATS[format_])
    assert code(data[: int(len(data) * part)]) == ErrorCode.TRUNCATED


def test_a_wrong_checksum_is_broken() -> None:
    data = bytearray(encoded(picture(), "PNG"))
    data[data.index(b"IDAT") + 10] ^= 0xFF
    assert code(bytes(data)) == ErrorCode.BROKEN


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", ErrorCode.EMPTY),
        (b"\0", ErrorCode.NOT_AN_IMAGE),
        (b"<!DOCTYPE html><html><body>404</body></html>", ErrorCode.NOT_AN_IMAGE),
        (b"a,b\n1,2\n" * 100, ErrorCode.NOT_AN_IMAGE),
        (b"PK\x03\x04" + bytes(100), ErrorCode.NOT_AN_IMAGE),
        (b"%PDF-1.7\n" + bytes(100), ErrorCode.NOT_AN_IMAGE),
        (bytes(1000), ErrorCode.NOT_AN_IMAGE),
        (b"\xff\xd8\xff", ErrorCode.TRUNCATED),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", ErrorCode.UNSUPPORTED),
        (b"8BPS\0\x01" + bytes(40), ErrorCode.UNSUPPORTED),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', ErrorCode.UNSUPPORTED),
        (tiff((1, 1), bytes(7), [8] * 7, photometric=2), ErrorCode.UNSUPPORTED),
    ],
)
def test_what_is_no_image_has_a_code_that_says_so(data: bytes, expected: ErrorCode) -> None:
    assert code(data) == expected


# --- bounds -------------------------------------------------------------------------------------------------------------------------------


def bombs() -> dict[str, bytes]:
    """Small files that claim 900 million pixels or more."""
    side = 30_000
    webp = bytearray(encoded(Image.new("RGBA", (64, 64)), "WEBP", exif=Image.Exif().tobytes()))
    webp[24:30] = (16_383).to_bytes(3, "little") * 2
    jpeg = bytearray(encoded(picture(), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", side, side)
    gif = bytearray(encoded(picture(), "GIF"))
    gif[6:10] = struct.pack("<HH", side, side)
    return {
        "PNG": png((side, side), 8, 2, bytes(1000)),
        "JPEG": bytes(jpeg),
        "GIF": bytes(gif),
        "WEBP": bytes(webp),
        "BMP": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 1000, 0, 0, 54, 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(946),
        "PPM": b"P6 30000 30000 255\n" + bytes(1000),
        "TIFF": tiff((side, side), bytes(1000), [8, 8, 8], photometric=2),
        "TIFF tiles": tiff((8, 8), bytes(1000), [8], photometric=1, t322=side, t323=side, t324=8, t325=1000),
    }


@pytest.mark.parametrize("name", bombs())
def test_a_bomb_is_refused_before_it_is_allocated(name: str) -> None:
    data = bombs()[name]
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.thread_time()
    assert code(data, bound=100_000_000) == ErrorCode.TOO_LARGE
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB
    assert time.thread_time() - started < 5  # of CPU: others may have the machine


def test_a_text_chunk_that_unpacks_to_too_much_is_refused() -> None:
    data = encoded(picture(), "PNG")
    body = b"Comment\0\0" + zlib.compress(bytes(50_000_000), 9)
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    assert code(data[:33] + chunk + data[33:]) == ErrorCode.TOO_LARGE


def test_the_bound_is_on_pixels_and_inclusive() -> None:
    data = encoded(picture(10, 20), "PNG")
    assert isinstance(decode(data, 200), Decoded)
    assert code(data, bound=199) == ErrorCode.TOO_LARGE


def test_a_bound_above_pillows_own_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert isinstance(decode(encoded(picture(), "JPEG"), BOUND), Decoded)
    assert Image.MAX_IMAGE_PIXELS == 10


# --- whatever comes -----------------------------------------------------------------------------------------------------------------------


def mutations(data: bytes, chance: random.Random, count: int) -> list[bytes]:
    """Cut, flipped, overwritten and spliced copies, damaged in the head more often than elsewhere."""
    made = []
    for _ in range(count):
        copy = bytearray(data)
        for _ in range(chance.choice([1, 1, 3, 20])):
            at = chance.randrange(min(len(copy), chance.choice([64, 512, len(copy)])))
            copy[at] = chance.choice([0, 0xFF, 0x7F, copy[at] ^ (1 << chance.randrange(8)), chance.randrange(256)])
        if chance.random() < 0.4:
            del copy[chance.randrange(len(copy)) :]
        elif chance.random() < 0.2:
            at = chance.randrange(len(copy))
            copy[at:at] = copy[: chance.randrange(200)]
        made.append(bytes(copy))
    return made


def survive(originals: Sequence[bytes], seed: int, seconds: float) -> None:
    """Decode mutations of each, in turn, for a while: each gives an image within the bound or a failure, in bounded time."""
    chance, deadline, bound = random.Random(seed), time.monotonic() + seconds, 200_000
    tried = 0
    while tried < 300 * len(originals) and (time.monotonic() < deadline or tried < len(originals)):
        started = time.thread_time()
        answer = decode(mutations(originals[tried % len(originals)], chance, 1)[0], bound)
        assert time.thread_time() - started < 10
        if isinstance(answer, Decoded):
            assert 0 < answer.pixels.shape[0] * answer.pixels.shape[1] <= bound
        else:
            assert answer.message
        tried += 1


@pytest.mark.slow
def test_damaged_files_of_every_format_never_raise() -> None:
    samples = [encoded(picture(), format_, **options) for format_, options in FORMATS.items()]
    samples += [encoded(picture(), "TIFF", compression=name) for name in ("jpeg", "tiff_adobe_deflate", "packbits", "raw")]
    samples += [encoded(picture().convert(mode), "TIFF") for mode in ("1", "I;16", "F", "CMYK", "LAB")] + [
        encoded(picture().quantize(16), "PNG")
    ]
    survive(samples, seed=1, seconds=6)


@pytest.mark.shared_data
@pytest.mark.slow
def test_damaged_awkward_files_never_raise() -> None:
    samples = [path.read_bytes() for path in sorted(shared_folder("data", "awkward-images").iterdir())]
    survive([data for data in samples if len(data) < 60_000], seed=2, seconds=6)


# --- awkward files of other people --------------------------------------------------------------------------------------------------------

# What each is, and so what must come of it. (height, width) or a code.
AWKWARD: dict[str, tuple[int, int] | ErrorCode] = {
    "12in16bit.tif": (100, 100),  # I;16, samples up to 30 of 65535: black but for nothing
    "16bit.MM.deflate.tif": (64, 64),  # I;16B
    "16bit.cropped.jp2": (64, 64),  # I;16, the picture of the former
    "broken.png": ErrorCode.BROKEN,  # a PNG signature, then noise
    "broken_data_stream.png": ErrorCode.BROKEN,  # the compressed stream contradicts itself
    "crash-0e16d3bfb83be87356d026d66919deaefca44dac.tif": ErrorCode.BROKEN,  # strips at impossible offsets
    "crash-2020-10-test.tif": ErrorCode.BROKEN,  # a directory of contradictions
    "decompression_bomb.gif": ErrorCode.TOO_LARGE,  # claims 4 364 696 535 pixels in 44 bytes
    "decompression_bomb_extents.gif": (100, 100),  # the second frame is the bomb; the first is fine
    "exif_imagemagick_orientation.png": (512, 512),  # orientation 3 in a text chunk
    "exif_typeerror.jpg": (531, 800),  # a tag of a wrong type
    "g4_orientation_5.tif": (88, 590),  # stored with 590 rows
    "hopper.Lab.tif": (128, 128),
    "hopper.bmp": (128, 128),
    "hopper.gif": (128, 128),
    "hopper.iccprofile.tif": (128, 128),
    "hopper.jpg": (128, 128),
    "hopper.png": (128, 128),
    "hopper.tif": (128, 128),
    "hopper.webp": (128, 128),
    "hopper_16bit.pgm": (128, 128),  # mode I
    "hopper_gray.jpg": (128, 128),
    "hopper_orientation_2.jpg": (128, 128),
    "hopper_orientation_6.jpg": (128, 128),
    "hopper_orientation_8.jpg": (128, 128),
    "icc_profile_big.jpg": (250, 425),  # the profile spans many segments
    "invalid-exif.jpg": (200, 200),
    "la.tga": (64, 64),
}


def awkward(name: str) -> bytes:
    data: bytes = (shared_folder("data", "awkward-images") / name).read_bytes()
    return data


@pytest.mark.shared_data
def test_every_awkward_file_is_in_the_table() -> None:
    assert sorted(path.name for path in shared_folder("data", "awkward-images").iterdir()) == sorted(AWKWARD)


@pytest.mark.shared_data
@pytest.mark.parametrize(("name", "expected"), AWKWARD.items())
def test_an_awkward_file_gives_what_it_must(name: str, expected: tuple[int, int] | ErrorCode) -> None:
    answer = decode(awkward(name), 100_000_000)
    if isinstance(answer, Decoded):
        assert answer.pixels.shape == (*expected, 3)
    else:
        assert answer.code == expected, answer.message


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "tolerance"),  # mean difference of 255; a picture turned or inverted differs by 60 and more
    [
        *(("hopper.png", 3), ("hopper.bmp", 3), ("hopper.tif", 3), ("hopper.iccprofile.tif", 3), ("hopper.webp", 6), ("hopper.gif", 6)),
        *(("hopper.Lab.tif", 6), ("hopper_orientation_2.jpg", 6), ("hopper_orientation_6.jpg", 6), ("hopper_orientation_8.jpg", 6)),
    ],
)
def test_the_same_picture_comes_out_of_every_file_of_it(name: str, tolerance: float) -> None:
    expected = pixels(awkward("hopper.jpg")).astype(int)
    assert np.abs(pixels(awkward(name)) - expected).mean() < tolerance
    assert np.abs(np.rot90(expected) - expected).mean() > 40


@pytest.mark.shared_data
def test_gray_pictures_are_the_luma_of_the_colour_one() -> None:
    luma = pixels(awkward("hopper.png")).astype(float) @ (0.299, 0.587, 0.114)
    for name, tolerance in (("hopper_gray.jpg", 6), ("hopper_16bit.pgm", 6)):
        assert np.abs(pixels(awkward(name))[..., 0] - luma).mean() < tolerance


@pytest.mark.shared_data
def test_16_bit_files_of_one_picture_agree_with_their_samples() -> None:
    with Image.open(shared_folder("data", "awkward-images") / "16bit.MM.deflate.tif") as image:
        expected = np.rint(np.asarray(image).astype(float) / 257)
    assert (pixels(awkward("16bit.MM.deflate.tif"))[..., 0] == expected).all()
    assert (pixels(awkward("16bit.cropped.jp2"))[..., 0] == expected).all()


@pytest.mark.shared_data
def test_a_photograph_loses_nothing_on_the_fast_path() -> None:
    path: Path = sorted(shared_folder("data", "coco-free").rglob("*.jpg"))[0]
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    assert (pixels(path.read_bytes()) == expected).all()
