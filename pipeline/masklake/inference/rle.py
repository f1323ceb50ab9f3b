"""COCO's compressed run-length encoding, for all segments of an image at once.

A mask's pixels are read column by column; `counts` holds the lengths of alternating runs of zeros and ones (zeros first), each
stored as its difference to the count two places before it, in groups of 5 bits (`rleToString` in cocoapi's common/maskApi.c).
Bytes equal those of `pycocotools.mask.encode`. Nothing here loops over runs: numpy works on the runs of all segments together.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_MAX_GROUPS = 7  # of 5 bits: COCO's counts are 32-bit


_is_compact: ContextVar[bool] = ContextVar("compact", default=False)


@contextmanager
def compact() -> Iterator[None]:
    """Within, `Encoded.counts` are the numbers that make up the strings, for `written_out` to write them elsewhere: half of the work."""
    token = _is_compact.set(True)
    try:
        yield
    finally:
        _is_compact.reset(token)


@dataclass(frozen=True, slots=True)
class Encoded:
    """One mask: `counts` as COCO's compressed string (but see `compact`), `area` in pixels, `bbox` as x, y, width, height in pixels."""

    counts: bytes
    area: int
    bbox: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Runs:
    """Maximal runs of ones, in positions of the column-major image: `start` inclusive, `end` exclusive, ascending per segment.

    `segment` [R] says whose run it is, 0-based; runs of one segment never touch.
    """

    segment: NDArray[Any]
    start: Ints
    end: Ints


def encode_mask(mask: Bools) -> Encoded:
    """Encode one bool mask [H, W]."""
    height, width = mask.shape
    columns = np.ascontiguousarray(mask.T).reshape(-1)
    starts, values = id_runs(columns)
    return encode_id_runs(starts, values, 1, (height, width))[0]


def encode_ids(columns: NDArray[Any], count: int) -> list[Encoded]:
    """Encode segments 1..`count` of an id map given column by column: `columns` [W, H] of any integer type, 0 is void."""
    width, height = columns.shape
    starts, values = id_runs(columns.reshape(-1))
    return encode_id_runs(starts, values, count, (height, width))


def id_runs(flat: NDArray[Any]) -> tuple[Ints, NDArray[Any]]:
    """Runs of equal values in a flat array: (start of each run, its value)."""
    starts = np.concatenate((np.zeros(1, np.int64), np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    return starts, flat[starts]


def encode_id_runs(starts: Ints, values: NDArray[Any], count: int, size: tuple[int, int]) -> list[Encoded]:
    """Encode segments 1..`count` from the runs of a column-major id map of `size` (height, width); 0 is void.

    Neighbouring runs may carry the same id.
    """
    new = np.concatenate((np.ones(1, np.bool_), values[1:] != values[:-1]))
    if not new.all():
        starts, values = starts[new], values[new]
    ends = np.append(starts[1:], size[0] * size[1])
    taken = values > 0
    return encode_runs(Runs(values[taken] - 1, starts[taken], ends[taken]), count, size)


def encode_runs(runs: Runs, count: int, size: tuple[int | Ints, int | Ints]) -> list[Encoded]:
    """Encode segments 0..`count`-1 from their runs; a segment may have none. `size`: (height, width) of the image, or [count] each, of
    the image that each segment lies in."""
    short = np.uint16 if count <= 1 << 16 else np.int64  # numpy sorts 16 bits by radix
    order = np.argsort(runs.segment.astype(short), kind="stable")
    segment, start, end = runs.segment[order].astype(np.int64), runs.start[order], runs.end[order]
    height = size[0] if isinstance(size[0], int) else size[0][segment]
    per_segment = np.bincount(segment, minlength=count)
    last = np.cumsum(per_segment)  # exclusive index of each segment's last run
    strings = _counts_strings(segment, start, end, (per_segment, last), size[0] * size[1])
    present = np.flatnonzero(per_segment)
    first = (last - per_segment)[present]
    areas, boxes = np.zeros(count, np.int64), np.zeros((count, 4), np.int64)
    if present.size:
        areas[present] = np.add.reduceat(end - start, first)
        boxes[present] = _boxes(start, end, first, last[present] - 1, height)
    return [
        Encoded(counts, area, (box[0], box[1], box[2], box[3]))
        for counts, area, box in zip(strings, areas.tolist(), boxes.tolist(), strict=True)
    ]


def _counts_strings(segment: Ints, start: Ints, end: Ints, shares: tuple[Ints, Ints], pixels: int | Ints) -> list[bytes]:
    """The compressed strings of all segments. A segment of r runs has 2 r + 1 slots here; its last one, the zeros after its last
    run, is left out of the string where there are none."""
    per_segment, last = shares
    runs, count = len(segment), len(per_segment)
    rank = np.arange(runs) - (last - per_segment)[segment]
    zeros = start.copy()
    zeros[1:] -= np.where(rank[1:] > 0, end[:-1], 0)
    ones = end - start
    slot = 2 * np.arange(runs) + segment
    values = np.zeros(2 * runs + count, np.int64)
    values[slot] = zeros
    values[slot[1:]] -= np.where(rank[1:] > 1, zeros[:-1], 0)
    values[slot + 1] = ones
    values[slot[1:] + 1] -= np.where(rank[1:] > 0, ones[:-1], 0)
    tail_slot = 2 * last + np.arange(count)
    tail = np.zeros(count, np.int64) + pixels
    some = per_segment > 0
    tail[some] -= end[last[some] - 1]
    absent = some & (tail == 0)
    many = per_segment > 1
    tail[many] -= zeros[last[many] - 1]
    values[tail_slot] = tail
    return (_compact if _is_compact.get() else _strings)(values, tail_slot, absent)


def _strings(values: Ints, tail_slot: Ints, absent: Bools) -> list[bytes]:
    """The strings of all segments, cut after each of `tail_slot`, from which the tails of zero pixels are left out."""
    groups = _groups(values)
    groups[tail_slot[absent]] = 0
    text, ends = _text(values, groups)
    written = text.tobytes()
    cuts = [0, *ends[tail_slot].tolist()]
    return [written[a:b] for a, b in pairwise(cuts)]


def _compact(values: Ints, tail_slot: Ints, absent: Bools) -> list[bytes]:
    """What `_strings` would write, not written yet: little-endian int32."""
    written = np.delete(values, tail_slot[absent]).astype("<i4").tobytes()
    cuts = [0, *(4 * (tail_slot + 1 - np.cumsum(absent))).tolist()]
    return [written[a:b] for a, b in pairwise(cuts)]


def written_out(values: NDArray[np.int32], ends: Ints) -> tuple[NDArray[np.uint8], Ints]:
    """What was left compact by `compact`, of many segments one after the other, as COCO's strings.

    Args:
        values: of all segments.
        ends: where each segment's end, in values.

    Returns:
        the text of all, uint8, and where each segment's ends, in bytes.
    """
    wide = values.astype(np.int64)
    text, text_ends = _text(wide, _groups(wide))
    return text, np.concatenate((np.zeros(1, np.int64), text_ends))[ends]


def _groups(values: Ints) -> Ints:
    """How many groups of 5 bits each value takes: the top bit is the sign, so n groups hold -2^(5n-1) .. 2^(5n-1)-1."""
    magnitude = values ^ (values >> 63)
    groups = np.ones(len(values), np.int64)
    for place in range(1, _MAX_GROUPS):
        more = magnitude >= 1 << (5 * place - 1)
        if not more.any():
            break
        groups += more
    return groups


def _text(values: Ints, groups: Ints) -> tuple[NDArray[np.uint8], Ints]:
    """Write every value in groups of 5 bits, lowest first, two's complement; the text, and where each value's ends."""
    ends = np.cumsum(groups)
    begins = ends - groups
    text = np.empty(int(ends[-1]) if len(ends) else 0, np.uint8)
    chosen = np.flatnonzero(groups)
    place = 0
    while chosen.size:
        follows = groups[chosen] > place + 1
        text[begins[chosen] + place] = ((values[chosen] >> (5 * place)) & 31) + (follows * 32 + 48)
        chosen = chosen[follows]
        place += 1
    return text, ends


def _boxes(start: Ints, end: Ints, first: Ints, last: Ints, height: int | Ints) -> Ints:
    """Bounding boxes [n, 4] of segments whose runs lie at `first`..`last` (inclusive)."""
    left, right = start // height, (end - 1) // height
    spans = left != right  # a run over a column's end holds the bottom of one column and the top of the next
    top = np.minimum.reduceat(np.where(spans, 0, start - left * height), first)
    bottom = np.maximum.reduceat(np.where(spans, height - 1, end - 1 - right * height), first)
    x = left[first]
    return np.stack((x, top, right[last] - x + 1, bottom - top + 1), axis=1)
