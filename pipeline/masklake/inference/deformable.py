"""Multi-scale deformable attention, as a pixel decoder uses it: every token looks at a few points around its own place.

Zhu et al., Deformable DETR (arXiv:2010.04159), equation 3, with the tokens themselves as queries, so that a query's reference point is the
middle of its own pixel. Places and weights are computed in float32 whatever the values' dtype: in bfloat16, a place on a map of 136
columns is off by up to 0.75 pixels. On a GPU one Triton kernel does it without intermediate tensors; elsewhere, torch.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
from collections.abc import Sequence
from typing import Any

import torch

from masklake.inference.limits import is_lost, is_out_of_memory

Shapes = Sequence[tuple[int, int]]
"""Height and width of each level's map."""

_log = logging.getLogger(__name__)
_LEVELS_MOST = 4
_QUERIES_PER_PROGRAM = 32

_broken: list[str] = []
"""Why the kernel is not used any more in this process."""


def attend(values: torch.Tensor, offsets: torch.Tensor, logits: torch.Tensor, shapes: Shapes) -> torch.Tensor:
    """The weighed sum of the values at each token's points.

    Args:
        values: [N, S, heads, D]; S tokens, level by level, row by row.
        offsets: [N, S, heads, levels, points, 2]: from the token's own place, (x, y) in pixels of the level that is looked at.
        logits: [N, S, heads, levels * points]: of the weights, before softmax.
        shapes: of the levels; their areas sum to S.

    Returns:
        [N, S, heads * D] in the dtype of `values`. Beyond a map's edge, values are zero (bilinear, pixel centres at halves).
    """
    if values.is_cuda and not _broken and _is_fit(values, shapes) and _has_triton():
        try:
            return by_triton(values, offsets, logits, shapes)
        except Exception as error:  # no compiler, a card that Triton does not know: torch does the same, slower
            if is_lost(error) or is_out_of_memory(error):
                raise
            _broken.append(f"{type(error).__name__}: {error}")
            _log.warning("deformable attention: Triton cannot be used here (%s), torch's operations do it, slower", _broken[-1])
    return by_torch(values, offsets, logits, shapes)


def by_torch(values: torch.Tensor, offsets: torch.Tensor, logits: torch.Tensor, shapes: Shapes) -> torch.Tensor:
    """`attend` by torch's `grid_sample`, in float32, point by point: twice as fast on a CPU as to lay all points' values side by side."""
    count, tokens, heads, width_of_head = values.shape
    points = offsets.shape[4]
    own = own_places(shapes, values.device)
    weights = logits.float().softmax(dim=-1).permute(0, 2, 3, 1).reshape(count * heads, len(shapes) * points, 1, tokens)
    apart = offsets.float().permute(0, 2, 3, 4, 1, 5)
    summed = values.new_zeros((count * heads, width_of_head, tokens), dtype=torch.float32)
    start = 0
    for level, (height, width) in enumerate(shapes):
        maps = values[:, start : start + height * width].float().permute(0, 2, 3, 1).reshape(count * heads, width_of_head, height, width)
        x, y = apart[:, :, level].unbind(-1)
        places = own + torch.stack((x / width, y / height), dim=-1)
        grid = (2 * places - 1).view(count * heads, points, tokens, 2)
        sampled = torch.nn.functional.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        for point in range(points):
            summed.addcmul_(sampled[:, :, point], weights[:, level * points + point])
        start += height * width
    return summed.view(count, heads * width_of_head, tokens).transpose(1, 2).to(values.dtype).contiguous()


def own_places(shapes: Shapes, device: torch.device) -> torch.Tensor:
    """The middle of every token's own pixel, float32 [S, 2] as (x, y), 0 to 1 over the map."""
    places = []
    for height, width in shapes:
        y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
        x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
        places.append(torch.stack((x[None].expand(height, width), y[:, None].expand(height, width)), dim=-1).flatten(0, 1))
    return torch.cat(places)


def by_triton(values: torch.Tensor, offsets: torch.Tensor, logits: torch.Tensor, shapes: Shapes) -> torch.Tensor:
    """`attend` by one kernel that accumulates in float32."""
    import triton

    count, tokens, heads, width_of_head = values.shape
    points = offsets.shape[4]
    out = torch.empty((count, tokens, heads * width_of_head), dtype=values.dtype, device=values.device)
    sides = [side for shape in shapes for side in shape] + [1] * (2 * (_LEVELS_MOST - len(shapes)))
    grid = (triton.cdiv(tokens, _QUERIES_PER_PROGRAM), heads, count)
    _kernel()[grid](
        values.contiguous(),
        offsets.contiguous(),
        logits.contiguous(),
        out,
        tokens,
        *sides,
        HEADS=heads,
        LEVELS=len(shapes),
        POINTS=points,
        PADDED=triton.next_power_of_2(len(shapes) * points),
        DIM=width_of_head,
        BLOCK=_QUERIES_PER_PROGRAM,
    )
    return out


def _is_fit(values: torch.Tensor, shapes: Shapes) -> bool:
    """Triton's blocks have sides of powers of two, and at least 16 bytes are worth a load."""
    width = values.shape[3]
    return len(shapes) <= _LEVELS_MOST and width >= 8 and width & (width - 1) == 0


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


@functools.cache
def _kernel() -> Any:
    """The kernel; made where it is first used, since Triton is not everywhere."""
    import triton
    import triton.language as tl

    @triton.jit  # type: ignore[untyped-decorator]
    def kernel(  # type: ignore[no-untyped-def]  # noqa: PLR0913, PLR0917
        values, offsets, logits, out, tokens, h0, w0, h1, w1, h2, w2, h3, w3,
        HEADS: tl.constexpr, LEVELS: tl.constexpr, POINTS: tl.constexpr, PADDED: tl.constexpr,  # noqa: N803
        DIM: tl.constexpr, BLOCK: tl.constexpr,  # noqa: N803
    ):  # fmt: skip
        head, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
        query = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        is_query = query < tokens
        own_x = tl.zeros([BLOCK], tl.float32)
        own_y = tl.zeros([BLOCK], tl.float32)
        start = 0
        for level in tl.static_range(LEVELS):
            height = h0 if level == 0 else (h1 if level == 1 else (h2 if level == 2 else h3))
            width = w0 if level == 0 else (w1 if level == 1 else (w2 if level == 2 else w3))
            place = query - start
            is_here = (place >= 0) & (place < height * width)
            own_x = tl.where(is_here, ((place % width).to(tl.float32) + 0.5) / width, own_x)
            own_y = tl.where(is_here, ((place // width).to(tl.float32) + 0.5) / height, own_y)
            start += height * width
        row = (image * tokens + query) * HEADS + head
        which = tl.arange(0, PADDED)
        is_point = is_query[:, None] & (which < LEVELS * POINTS)[None, :]
        weighed = tl.load(logits + row[:, None] * (LEVELS * POINTS) + which[None, :], mask=is_point, other=0).to(tl.float32)
        weighed = tl.where((which < LEVELS * POINTS)[None, :], weighed, float("-inf"))
        highest = tl.max(weighed, axis=1)
        total = tl.sum(tl.exp(weighed - highest[:, None]), axis=1)
        summed = tl.zeros([BLOCK, DIM], tl.float32)
        channel = tl.arange(0, DIM)
        start = 0
        for level in tl.static_range(LEVELS):
            height = h0 if level == 0 else (h1 if level == 1 else (h2 if level == 2 else h3))
            width = w0 if level == 0 else (w1 if level == 1 else (w2 if level == 2 else w3))
            for point in range(POINTS):
                at = offsets + row * (2 * LEVELS * POINTS) + 2 * (level * POINTS + point)
                x = own_x * width + tl.load(at, mask=is_query, other=0).to(tl.float32) - 0.5
                y = own_y * height + tl.load(at + 1, mask=is_query, other=0).to(tl.float32) - 0.5
                logit = tl.load(logits + row * (LEVELS * POINTS) + level * POINTS + point, mask=is_query, other=0).to(tl.float32)
                weight = tl.exp(logit - highest) / total
                left, top = tl.floor(x), tl.floor(y)
                for corner in tl.static_range(4):
                    column, line = left + corner % 2, top + corner // 2
                    share = weight * (1 - tl.abs(x - column)) * (1 - tl.abs(y - line))
                    is_inside = is_query & (column >= 0) & (column < width) & (line >= 0) & (line < height)
                    token = start + line.to(tl.int32) * width + column.to(tl.int32)
                    source = ((image * tokens + token) * HEADS + head) * DIM
                    value = tl.load(values + source[:, None] + channel[None, :], mask=is_inside[:, None], other=0).to(tl.float32)
                    summed += share[:, None] * value
            start += height * width
        tl.store(out + row[:, None] * DIM + channel[None, :], summed.to(out.dtype.element_ty), mask=is_query[:, None])

    return kernel
