"""Triton kernels: every pixel of an image straight from coarse maps to one code, without maps of the image's size in between.

Their arithmetic is that of `dense` to the last bit: rows before columns, taps in order, products and sums rounded one by one (launch with
`enable_fp_fusion=False`), exponentials and divisions as torch's own on CUDA. Only imported where Triton is: see `fused`.

A map is found at `maps + n * map_size`, its pixel (row, column) at `row * row_stride + column * column_stride`. Taps are [taps, pixels].
Original pixels are counted column by column. A row of `table` (int64) is one image of a launch: its first map, how many maps it has,
and where its answer begins.
"""
# mypy: ignore-errors
# ruff: noqa: N803, PLR0913, PLR0917

from __future__ import annotations

import triton
import triton.language as tl
from triton.runtime.interpreter import InterpretedFunction

TAPS_MOST = 3
INTERPRETED = False


@triton.jit
def _tap(t: tl.constexpr, first, second, third):
    return first if t == 0 else (second if t == 1 else third)


@triton.jit
def _load_tap(table, at, t: tl.constexpr, pixels, inside, TAPS: tl.constexpr):
    return tl.load(table + (t if t < TAPS else 0) * pixels + at, mask=inside, other=0)


@triton.jit
def _taps(index, weight, at, stride, pixels, inside, TAPS: tl.constexpr):
    """Where an axis's pixels `at` look, times the stride, and how much each place counts."""
    return (
        _load_tap(index, at, 0, pixels, inside, TAPS).to(tl.int32) * stride,
        _load_tap(index, at, 1, pixels, inside, TAPS).to(tl.int32) * stride,
        _load_tap(index, at, 2, pixels, inside, TAPS).to(tl.int32) * stride,
        _load_tap(weight, at, 0, pixels, inside, TAPS),
        _load_tap(weight, at, 1, pixels, inside, TAPS),
        _load_tap(weight, at, 2, pixels, inside, TAPS),
    )


@triton.jit
def _value(
    source, r0, r1, r2, u0, u1, u2, c0, c1, c2, v0, v1, v2, inside, ROW_TAPS: tl.constexpr, COLUMN_TAPS: tl.constexpr
):  # fmt: skip
    """The map's value at pixels: rows `r` (times stride) with weights `u`, columns `c` with weights `v`."""
    value = v0
    for c in tl.static_range(COLUMN_TAPS):
        column = _tap(c, c0, c1, c2)
        over_rows = v0
        for r in tl.static_range(ROW_TAPS):
            part = tl.load(source + column + _tap(r, r0, r1, r2), mask=inside, other=0) * _tap(r, u0, u1, u2)
            over_rows = part if r == 0 else over_rows + part
        part = over_rows * _tap(c, v0, v1, v2)
        value = part if c == 0 else value + part
    return value


if isinstance(_tap, InterpretedFunction):  # TRITON_INTERPRET=1: on the CPU, by numpy
    INTERPRETED = True

    @triton.jit
    def _exp(value):
        return tl.exp(value)

    @triton.jit
    def _sigmoid(value):
        return 1 / (1 + tl.exp(-value))

else:
    from triton.language.extra import libdevice

    @triton.jit
    def _exp(value):
        return libdevice.exp(value)  # tl.exp is an approximation

    @triton.jit
    def _sigmoid(value):
        return tl.div_rn(tl.full(value.shape, 1.0, tl.float32), 1 + libdevice.exp(-value))


_SIZES = ["height", "width", "row_stride", "column_stride", "map_size", "tiles", "first_row"]


@triton.jit(do_not_specialize=_SIZES)
def panoptic_codes(
    maps, cost, table, own, codes, row_index, row_weight, column_index, column_weight, threshold, height, width,
    row_stride, column_stride, map_size, ROW_TAPS: tl.constexpr, COLUMN_TAPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write 2 x winner + (1 where its value reaches the threshold); add each map's pixels at or above the threshold to `own`."""
    image = table + 3 * tl.program_id(1)
    first, count, out = tl.load(image), tl.load(image + 1).to(tl.int32), tl.load(image + 2)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < height * width
    x = pixel // height
    y = pixel - x * height
    r0, r1, r2, u0, u1, u2 = _taps(row_index, row_weight, y, row_stride, height, inside, ROW_TAPS)
    c0, c1, c2, v0, v1, v2 = _taps(column_index, column_weight, x, column_stride, width, inside, COLUMN_TAPS)
    least = tl.full([BLOCK], float("inf"), tl.float32)
    code = tl.zeros([BLOCK], tl.int32)
    query = 0
    while query < count:  # the interpreter cannot count to a tensor
        source = maps + (first + query) * map_size
        value = _value(source, r0, r1, r2, u0, u1, u2, c0, c1, c2, v0, v1, v2, inside, ROW_TAPS, COLUMN_TAPS)
        reached = ((value >= threshold) & inside).to(tl.int32)
        tl.atomic_add(own + first + query, tl.sum(reached))
        here = (_exp(-value) + 1) * tl.load(cost + first + query)
        better = (here < least) | (query == 0)
        least = tl.where(better, here, least)
        code = tl.where(better, 2 * query + reached, code)
        query += 1
    tl.store(codes + out + pixel, code.to(codes.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=_SIZES)
def leading_codes(
    maps, table, codes, row_index, row_weight, column_index, column_weight, height, width,
    row_stride, column_stride, map_size, ROW_TAPS: tl.constexpr, COLUMN_TAPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write which map has the largest value, the first at a tie."""
    image = table + 3 * tl.program_id(1)
    first, count, out = tl.load(image), tl.load(image + 1).to(tl.int32), tl.load(image + 2)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < height * width
    x = pixel // height
    y = pixel - x * height
    r0, r1, r2, u0, u1, u2 = _taps(row_index, row_weight, y, row_stride, height, inside, ROW_TAPS)
    c0, c1, c2, v0, v1, v2 = _taps(column_index, column_weight, x, column_stride, width, inside, COLUMN_TAPS)
    most = tl.full([BLOCK], float("-inf"), tl.float32)
    code = tl.zeros([BLOCK], tl.int32)
    label = 0
    while label < count:  # the interpreter cannot count to a tensor
        source = maps + (first + label) * map_size
        value = _value(source, r0, r1, r2, u0, u1, u2, c0, c1, c2, v0, v1, v2, inside, ROW_TAPS, COLUMN_TAPS)
        better = value > most
        most = tl.where(better, value, most)
        code = tl.where(better, label, code)
        label += 1
    tl.store(codes + out + pixel, code.to(codes.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=_SIZES)
def instance_bits(
    maps, table, sums, words, row_index, row_weight, column_index, column_weight, height, width,
    row_stride, column_stride, map_size, ROW_TAPS: tl.constexpr, COLUMN_TAPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write a word of up to 32 masks' bits (1 where the value is above 0); add the sigmoids there to `sums` in units of 2^-24.

    A sigmoid of a positive float32 is a whole number of these units, so that the sum is exact, in whatever order.
    """
    image = table + 3 * tl.program_id(1)
    first, count, out = tl.load(image), tl.load(image + 1).to(tl.int32), tl.load(image + 2)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < height * width
    x = pixel // height
    y = pixel - x * height
    r0, r1, r2, u0, u1, u2 = _taps(row_index, row_weight, y, row_stride, height, inside, ROW_TAPS)
    c0, c1, c2, v0, v1, v2 = _taps(column_index, column_weight, x, column_stride, width, inside, COLUMN_TAPS)
    word = tl.zeros([BLOCK], tl.int32)
    query = 0
    while query < count:  # the interpreter cannot count to a tensor
        source = maps + (first + query) * map_size
        value = _value(source, r0, r1, r2, u0, u1, u2, c0, c1, c2, v0, v1, v2, inside, ROW_TAPS, COLUMN_TAPS)
        is_mask = (value > 0) & inside
        word = word | (is_mask.to(tl.int32) << query)
        units = tl.where(is_mask, _sigmoid(value) * 16777216.0, 0.0)
        tl.atomic_add(sums + first + query, tl.sum(units.to(tl.int64)))
        query += 1
    tl.store(words + out + pixel, word, mask=inside)


@triton.jit(do_not_specialize=_SIZES)
def resized_sigmoid(
    maps, out, row_index, row_weight, column_index, column_weight, first_row, height, width, tiles,
    row_stride, column_stride, map_size, ROW_TAPS: tl.constexpr, COLUMN_TAPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write sigmoids of resized maps for the rows from `first_row` on, row by row: `out` [maps, rows, width]; `tiles`: rows x width."""
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < tiles
    y = pixel // width
    x = pixel - y * width
    y += first_row
    r0, r1, r2, u0, u1, u2 = _taps(row_index, row_weight, y, row_stride, height, inside, ROW_TAPS)
    c0, c1, c2, v0, v1, v2 = _taps(column_index, column_weight, x, column_stride, width, inside, COLUMN_TAPS)
    query = tl.program_id(1).to(tl.int64)
    source = maps + query * map_size
    value = _value(source, r0, r1, r2, u0, u1, u2, c0, c1, c2, v0, v1, v2, inside, ROW_TAPS, COLUMN_TAPS)
    tl.store(out + query * tiles + pixel, _sigmoid(value), mask=inside)
