"""What a file repeats beyond any picture's need, to keep a decoder busy: seen by counting, before one is asked."""

from __future__ import annotations

import re

MOST_SCANS = 100
"""Of a JPEG. Encoders write 10 or 20 at most; libjpeg goes through all coefficients for each, and an empty one has 59 bytes."""

MOST_PPM_COMMENTS = 1_000
"""Between the numbers of a PPM that is text: Pillow copies up to a megabyte for each."""

LONGEST_PPM_HEADER = 64 * 1024
"""Bytes, comments and all: Pillow reads them one by one."""

_SCAN = b"\xff\xda"
_ALONE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a segment
_END = 0xD9
_ENTROPY_CODED_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # stuffed bytes and restarts belong to the scan
_PLAIN_PPM = (b"P1", b"P2", b"P3")
_COMMENT, _NUMBER = re.compile(rb"\s*#[^\r\n]*"), re.compile(rb"\s*[^\s#]*")


def excess(format_: str | None, data: bytes) -> str | None:
    """What there is too much of in a file of this format, in words; None where nothing is."""
    if format_ == "JPEG" and data.count(_SCAN) > MOST_SCANS and (scans := count_scans(data)) > MOST_SCANS:
        return f"{scans} scans, more than the limit of {MOST_SCANS}"
    if format_ == "PPM" and data.startswith(_PLAIN_PPM) and (comments := data.count(b"#")) > MOST_PPM_COMMENTS:
        return f"{comments} comments, more than the limit of {MOST_PPM_COMMENTS}"
    if format_ == "PPM" and _header_bytes(data) > LONGEST_PPM_HEADER:
        return f"a header of more than {LONGEST_PPM_HEADER} bytes"
    return None


def count_scans(data: bytes) -> int:
    """How many scans the first image of a JPEG has: markers of thumbnails and of further images do not count (ITU-T T.81, annex B)."""
    scans, position = 0, 2
    while 0 <= (position := data.find(b"\xff", position)) < len(data) - 3:
        marker = data[position + 1]
        if marker == _END:
            break
        if marker in (0x00, 0xFF) or marker in _ALONE:
            position += 1 if marker == 0xFF else 2
            continue
        position += 2 + int.from_bytes(data[position + 2 : position + 4])
        if marker == _SCAN[1]:
            scans += 1
            found = _ENTROPY_CODED_END.search(data, position)
            position = found.start() if found else len(data)
    return scans


def _header_bytes(data: bytes) -> int:
    """How long a PPM's header is, or how far it was looked at: its numbers, with blanks and comments before each."""
    position = 2
    for _ in range(3):
        while position <= LONGEST_PPM_HEADER and (comment := _COMMENT.match(data, position)):
            position = comment.end()
        number = _NUMBER.match(data, position)
        position = number.end() if number else position
    return position
