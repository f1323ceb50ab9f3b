"""Segments back to masks, and masks onto pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

RGB = tuple[int, int, int]
SegmentRow = Mapping[str, Any]
"""One segment as it is read from the table: a mapping with the fields of `masklake.schema.SEGMENT`."""

UNPAINTED = "background"
"""VOC's name for everything else: a colour over it would only hide the picture."""

_GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))  # successive hues as far as can be from all before them
_TONES = ((0.72, 0.155), (0.60, 0.165), (0.81, 0.12), (0.66, 0.09))  # OKLCH lightness, chroma: near hues differ in tone
_SHADES = (0.0, -0.09, 0.08, -0.045, 0.045)  # lightness of the first, second, ... instance of a label


def decode_masks(segments: Sequence[SegmentRow], height: int, width: int) -> NDArray[np.bool_]:
    """The masks of a row: bool, [number of segments, height, width], in the order of the segments.

    `height` and `width` are the row's, of the upright image in pixels.
    """
    if not segments:
        return np.zeros((0, height, width), np.bool_)
    encoded = [{"size": [height, width], "counts": segment["counts"]} for segment in segments]
    # pycocotools gives [height, width, n] in Fortran order, so this transposition is contiguous
    return np.ascontiguousarray(coco_mask.decode(encoded).transpose(2, 0, 1)).view(np.bool_)


def id_map(segments: Sequence[SegmentRow], height: int, width: int) -> NDArray[np.int32]:
    """`segment_id` of each pixel, int32 [height, width]; 0 where there is none. Where masks overlap, the first segment is on top."""
    columns = np.zeros((width, height), np.int32)  # as masks are encoded: turning each of them round would take most of the time
    for segment in reversed(segments):
        mask = coco_mask.decode({"size": [height, width], "counts": segment["counts"]})
        np.copyto(columns, segment["segment_id"], where=mask.T.view(np.bool_))
    return np.ascontiguousarray(columns.T)


def overlay(image: NDArray[np.uint8], segments: Sequence[SegmentRow], alpha: float = 0.5) -> NDArray[np.uint8]:
    """Paint segments over a picture, as `painting` says.

    Args:
        image: uint8 RGB, [height, width, 3], upright: of the size that the row says.
        segments: of one row; where they overlap, the first one is on top.
        alpha: how much the colour covers, 0 to 1.

    Returns:
        uint8 RGB, [height, width, 3].
    """
    height, width = image.shape[:2]
    paint = painting(segments, id_map(segments, height, width), alpha)
    opacity = paint[..., 3:] * np.float32(1 / 255)
    painted: NDArray[np.uint8] = np.rint(image * (1 - opacity) + paint[..., :3] * opacity).astype(np.uint8)
    return painted


def painting(segments: Sequence[SegmentRow], ids: NDArray[np.int32], alpha: float = 0.5) -> NDArray[np.uint8]:
    """What lies over a picture: a colour per label, a shade of it per instance, and an edge that can be told from any ground.

    As roads are drawn on maps, the edge is a dark line with a bright one inside it: one of them differs from what is beside. A label called
    "background" is left unpainted.

    Args:
        segments: of one row, or reduced.
        ids: `id_map` of these segments, int32 [height, width].
        alpha: how much the colour covers between the edges, 0 to 1.

    Returns:
        uint8 RGBA, [height, width, 4], not premultiplied; transparent where nothing is painted.
    """
    painted = [
        (segment, colour) for segment, colour in zip(segments, segment_colours(segments), strict=True) if is_painted(segment["label"])
    ]
    # Tables of colours by segment id: one look-up paints all segments at once. Row 0 is the picture itself.
    fill = np.zeros((max((segment["segment_id"] for segment in segments), default=0) + 1, 4), np.uint8)
    bright, dark = fill.copy(), fill.copy()
    for segment, colour in painted:
        number = segment["segment_id"]
        fill[number] = (*colour, round(255 * alpha))
        bright[number] = (*_tint(colour, 255, 0.75), 245)
        dark[number] = (*_tint(colour, 0, 0.85), 190)
    diagonal = math.hypot(*ids.shape)
    layer = fill[ids]
    within = _near_border(ids, max(2, round(diagonal / 400)))
    layer[within] = bright[ids[within]]
    outermost = _near_border(ids, max(1, round(diagonal / 1200)))
    layer[outermost] = dark[ids[outermost]]
    return layer


def is_painted(label: str) -> bool:
    """Whether segments of this label are painted over a picture."""
    return label != UNPAINTED


def _tint(colour: RGB, towards: int, share: float) -> RGB:
    red, green, blue = (round(part + (towards - part) * share) for part in colour)
    return red, green, blue


def _near_border(ids: NDArray[np.int32], distance: int) -> NDArray[np.bool_]:
    """Pixels of a segment with another one, or none, at most so many pixels beside, above or below: bool [height, width]."""
    near = np.zeros(ids.shape, np.bool_)
    for step in range(1, distance + 1):
        across, down = ids[:, step:] != ids[:, :-step], ids[step:] != ids[:-step]
        near[:, step:] |= across
        near[:, :-step] |= across
        near[step:] |= down
        near[:-step] |= down
    return near & (ids > 0)


def segment_colours(segments: Sequence[SegmentRow]) -> list[RGB]:
    """The colour of each segment: its label's, and for things a shade that tells neighbours apart."""
    seen: dict[int, int] = {}
    colours = []
    for segment in segments:
        label_id = segment["label_id"]
        number = seen.get(label_id, 0) if segment["isthing"] else 0
        seen[label_id] = number + 1
        colours.append(_colour(label_id, _SHADES[number % len(_SHADES)]))
    return colours


def palette(label_id: int) -> RGB:
    """The colour of a label: the same in every run, and as even in brightness as colours of different labels can be."""
    return _colour(label_id, 0.0)


@lru_cache(maxsize=4096)
def _colour(label_id: int, shade: float) -> RGB:
    lightness, chroma = _TONES[label_id % len(_TONES)]
    return _oklch_to_rgb(lightness + shade, chroma, 0.45 + label_id * _GOLDEN_ANGLE)


def _oklch_to_rgb(lightness: float, chroma: float, hue: float) -> RGB:
    """sRGB of an OKLCH colour (Ottosson, 2020, "A perceptual color space for image processing"), with less chroma where sRGB ends."""
    while chroma > 0.01:
        linear = _oklab_to_linear(lightness, chroma * math.cos(hue), chroma * math.sin(hue))
        if all(-1e-4 <= value <= 1 + 1e-4 for value in linear):
            break
        chroma -= 0.005
    red, green, blue = (_gamma(min(1.0, max(0.0, value))) for value in linear)
    return round(red * 255), round(green * 255), round(blue * 255)


def _oklab_to_linear(lightness: float, a: float, b: float) -> tuple[float, float, float]:
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )


def _gamma(value: float) -> float:
    return 12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055
