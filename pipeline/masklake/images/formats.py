"""Which image formats are decoded, how each is recognised, and whether a file of it is all there."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from masklake.errors import ErrorCode
from masklake.images.more_formats import jxl_size

DECODED = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM", "TGA")
"""Pillow's names. Left out: documents and vector formats (EPS would start Ghostscript), and those that lakes of photographs do not hold.
JPEG includes MPO, several JPEGs in one file. TGA is last: it has no signature, and takes what nothing else took."""

SUFFIXES = tuple(
    f".{name}"
    for name in (
        *(
            "jpg",
            "jpeg",
            "jpe",
            "jfif",
            "png",
            "gif",
            "webp",
            "tif",
            "tiff",
            "bmp",
            "avif",
            "jp2",
            "j2k",
            "ppm",
            "pgm",
            "pbm",
            "pnm",
            "tga",
        ),
        *("heic", "heif", "jxl"),  # decoded only with the extra `formats`: better an error that says so than nothing
    )
)
"""How names of images end, where images lie among other things."""

_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (  # offset, bytes, name
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (8, b"WEBP", "WEBP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (0, b"BM", "BMP"),
    (0, b"\0\0\0\x0cjP  ", "JPEG2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG2000"),
    # Decoded where the extra `formats` is installed.
    (0, b"\0\0\0\x0cJXL ", "JXL"),
    (0, b"\xff\x0a", "JXL"),
    # Known, and not decoded.
    (0, b"8BPS", "Photoshop"),
    (0, b"%!PS", "PostScript"),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript"),
    (0, b"v/1\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"DDS ", "DDS"),
    (0, b"icns", "ICNS"),
    (0, b"\0\0\1\0", "ICO"),
    (0, b"qoif", "QOI"),
    (128, b"DICM", "DICOM"),
)
_AVIF = frozenset((b"avif", b"avis"))
_HEIF = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"))
_OF_ANY_CODEC = frozenset((b"mif1", b"msf1"))  # where none of the others tells more, HEVC's
_MOST_BRANDS = 32
_PPM = re.compile(rb"P[1-7Ffy][\s#]")
_SVG = re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!DOCTYPE svg[^>]*>\s*)?<svg[\s>]", re.DOTALL)
_SHORT = (
    "truncated",
    "unexpected end",
    "end of file",
    "reached eof",
    "not enough image data",
    "expected to read",
    "unpack requires",
    "index out of range",
)
_UNKNOWN = (
    "cannot handle",
    "unsupported",
    "not supported",
    "not available",
    "unknown pixel mode",
    "unknown raw mode",
    "samples per pixel",  # a TIFF of many bands
    "unrecognized image mode",
)
_EXCESSIVE = ("too large", "too much memory")


def by_signature(data: bytes) -> str | None:
    """The format that the first bytes claim: Pillow's name, or that of a known format that is not decoded; None for anything else."""
    for offset, signature, name in _SIGNATURES:
        if data.startswith(signature, offset):
            return name
    if data.startswith(b"ftyp", 4):
        return _by_brands(data)
    if _PPM.match(data):
        return "PPM"
    return "SVG" if _SVG.match(data[:2048]) else None


def _by_brands(data: bytes) -> str | None:
    """Of a file that begins with ISO's `ftyp`: by its major brand, else by those that it says it is compatible with (ISO/IEC 23008-12)."""
    end = min(int.from_bytes(data[:4], "big"), 16 + 4 * _MOST_BRANDS)
    major, others = data[8:12], {data[start : start + 4] for start in range(16, end, 4)}
    for brands in ({major}, others):
        if brands & _AVIF:
            return "AVIF"
        if brands & _HEIF:
            return "HEIF"
    return "HEIF" if ({major} | others) & _OF_ANY_CODEC else None


def early_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) of a WebP's canvas, or a JPEG XL: decoders that allocate on opening, before Pillow knows it. None for the rest."""
    if by_signature(data) == "JXL":
        return jxl_size(data)
    if by_signature(data) != "WEBP" or len(data) < 30:
        return None
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF


def judge(name: str, data: bytes, reason: str) -> ErrorCode:
    """The code for a file of a decoded format whose decoder gave up with these words."""
    words = reason.lower()
    if any(word in words for word in _EXCESSIVE):
        return ErrorCode.TOO_LARGE
    if any(word in words for word in _UNKNOWN):
        return ErrorCode.UNSUPPORTED
    if any(word in words for word in _SHORT):
        return ErrorCode.TRUNCATED
    try:
        ends_early = name in _ENDS_EARLY and _ENDS_EARLY[name](data)
    except (struct.error, IndexError, OverflowError):
        ends_early = True
    return ErrorCode.TRUNCATED if ends_early else ErrorCode.BROKEN


def _png_ends_early(data: bytes) -> bool:
    """Whether the chain of chunks runs out of the file."""
    position = 8
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if not kind.isalpha():
            return False  # no chunk at all: damage, not an early end
        if kind == b"IEND":
            return False
        position += 12 + length
    return True


def _boxes_end_early(data: bytes) -> bool:
    """Whether the chain of ISO boxes (JPEG 2000, AVIF) runs out of the file; a bare code stream must end in its marker."""
    if data.startswith(b"\xff\x4f"):
        return not data.endswith(b"\xff\xd9")
    position = 0
    while position < len(data):
        length, _ = struct.unpack_from(">I4s", data, position)
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, position + 8)
        if length == 0:  # up to the end of the file, wherever that is: JPEG 2000's own last marker tells
            return data[4:8] == b"jP  " and not data.endswith(b"\xff\xd9")
        if length < 8:
            return False
        position += length
    return position > len(data)


def _webp_ends_early(data: bytes) -> bool:
    return bool(8 + struct.unpack_from("<I", data, 4)[0] > len(data))


def _bmp_ends_early(data: bytes) -> bool:
    return bool(struct.unpack_from("<I", data, 2)[0] > len(data))


def _tiff_ends_early(data: bytes) -> bool:
    """Whether the first directory lies beyond the end of the file; writers often put it last."""
    order, is_big = "<" if data.startswith(b"II") else ">", b"+" in data[2:4]
    (offset,) = struct.unpack_from(order + ("Q" if is_big else "I"), data, 8 if is_big else 4)
    if offset + 2 > len(data):
        return True
    (entries,) = struct.unpack_from(order + "H", data, offset)
    return bool(not is_big and offset + 2 + 12 * entries > len(data))


_ENDS_EARLY: dict[str, Callable[[bytes], bool]] = {
    "JPEG": lambda data: b"\xff\xd9" not in data[-64:],
    "PNG": _png_ends_early,
    "GIF": lambda data: not data.rstrip(b"\0").endswith(b";"),
    "WEBP": _webp_ends_early,
    "TIFF": _tiff_ends_early,
    "BMP": _bmp_ends_early,
    "AVIF": _boxes_end_early,
    "JPEG2000": _boxes_end_early,
}
