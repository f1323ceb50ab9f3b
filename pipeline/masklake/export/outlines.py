"""Outlines of masks: polygons with holes, exact or simplified, and as one closed line for formats that know no holes.

**Exact.** An outline runs along the edges of the mask's pixels, so its corners are whole numbers, (0, 0) is the image's upper left corner,
and a pixel is in the mask where its centre is inside. Pixels that touch at a corner alone are apart. Nothing is lost.

**Simplified** by `tolerance` pixels: corners are left out (Douglas and Peucker, 1973) as long as no part of the outline moves further than
that and the polygon stays one, as GEOS does it. A part that would be lost keeps its exact outline.

**One line** (`joined`): where a format has one closed line for an object, its parts and holes are strung together by cuts of no width,
between nearest corners, as Ultralytics' own converter does it. Outer lines and holes run in opposite directions, so every fill rule gives
the same pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import MultiPolygon, Polygon
from shapely.geometry.polygon import orient

from masklake.table.masks import SegmentRow, decode_masks

Line = NDArray[np.float64]
"""Corners x, y [n, 2] of a closed line, the first not repeated."""


def outline(segment: SegmentRow, height: int, width: int) -> MultiPolygon:
    """A segment's exact outline. Only the part within its box is decoded into corners."""
    x, y, w, h = segment["bbox"]
    mask = decode_masks([segment], height, width)[0, y : y + h, x : x + w]
    return of_mask(mask, x, y)


def of_mask(mask: NDArray[np.bool_], left: int = 0, top: int = 0) -> MultiPolygon:
    """The exact outline of a mask [height, width] whose upper left pixel is at (`left`, `top`)."""
    outer, holes = list[Line](), list[tuple[Line, tuple[float, float]]]()
    for ring in _rings(mask):
        x, y = ring[np.lexsort((ring[:, 0], ring[:, 1]))[0]]
        line: Line = np.asarray(ring + np.array([left, top]), np.float64)
        if mask[y, x]:
            outer.append(line)
        else:  # the pixel above a hole's first corner belongs to the part that the hole is in
            holes.append((line, (left + float(x) + 0.5, top + float(y) - 0.5)))
    shells = np.array([Polygon(line) for line in outer], dtype=object)
    inside: list[list[Line]] = [[] for _ in outer]
    areas = np.array([shell.area for shell in shells])
    for hole, point in holes:
        around = np.flatnonzero(shapely.contains_xy(shells, *point))
        inside[around[areas[around].argmin()]].append(hole)
    found = MultiPolygon([Polygon(line, cut) for line, cut in zip(outer, inside, strict=True)])
    # a line that comes back to a corner, where two pixels of a part touch, becomes a line and a hole
    return found if found.is_valid else _parts(shapely.make_valid(found, method="structure"))


def simplified(exact: MultiPolygon, tolerance: float) -> MultiPolygon:
    """With fewer corners; see above."""
    if not tolerance:
        return exact
    parts = []
    for part in exact.geoms:
        less = part.simplify(tolerance, preserve_topology=True)
        parts.append(less if isinstance(less, Polygon) and less.area else part)
    made = MultiPolygon(parts)
    return made if made.is_valid else _parts(shapely.union_all(parts))  # parts that came to overlap


def overlap(exact: MultiPolygon, other: MultiPolygon) -> float:
    """Intersection over union of a mask and its polygon; 1 where they are the same."""
    union = exact.union(other).area
    return exact.intersection(other).area / union if union else 1.0


def joined(polygon: MultiPolygon) -> Line:
    """All of it as one closed line; see above."""
    parts = [orient(part) for part in sorted(polygon.geoms, key=lambda each: -each.area)]
    lines = [_corners(ring) for part in parts for ring in (part.exterior, *part.interiors)]
    whole = lines[0] if lines else np.zeros((0, 2))
    for line in lines[1:]:
        apart = ((whole[:, None] - line[None]) ** 2).sum(axis=2)
        at, start = divmod(int(apart.argmin()), len(line))
        whole = np.concatenate((whole[: at + 1], np.roll(line, -start, axis=0), line[start : start + 1], whole[at:]))
    return whole


def lines(polygon: MultiPolygon) -> list[list[Line]]:
    """Of each part its outer line and its holes."""
    return [[_corners(ring) for ring in (part.exterior, *part.interiors)] for part in map(orient, polygon.geoms)]


def _corners(ring: shapely.LinearRing) -> Line:
    corners: Line = shapely.get_coordinates(ring)[:-1]
    return corners


def _parts(found: shapely.Geometry) -> MultiPolygon:
    return found if isinstance(found, MultiPolygon) else MultiPolygon([each for each in [found] if isinstance(each, Polygon) and each.area])


def _rings(mask: NDArray[np.bool_]) -> Sequence[NDArray[np.int64]]:
    """Closed lines along the pixels' edges: corners x, y [n, 2].

    Corners are where one or three of the four pixels around a point are set, or two that touch at it, which are two corners: each belongs
    to one of the two. In a row of corners, the first and the second are the ends of an edge, the third and the fourth, and so on, and the
    same in a column: lines alternate between the two kinds of edges.
    """
    around = np.pad(mask, 1).astype(np.int8)
    nw, ne, sw, se = around[:-1, :-1], around[:-1, 1:], around[1:, :-1], around[1:, 1:]
    falling, rising = (nw & se & ~ne & ~sw & 1).astype(bool), (ne & sw & ~nw & ~se & 1).astype(bool)
    single_y, single_x = np.nonzero((nw + ne + sw + se) % 2)
    first_y, first_x = np.nonzero(falling)
    second_y, second_x = np.nonzero(rising)
    y = np.concatenate((single_y, first_y, first_y, second_y, second_y))
    x = np.concatenate((single_x, first_x, first_x, second_x, second_x))
    one, two = len(first_y), len(second_y)
    zeros = np.zeros(len(single_y), np.int8)
    # of two corners at a point, which is the end of the edge from the left, and which that of the edge from above
    left = np.concatenate((zeros, np.zeros(one), np.ones(one), np.zeros(two), np.ones(two)))
    above = np.concatenate((zeros, np.zeros(one), np.ones(one), np.ones(two), np.zeros(two)))
    across, down = _partners(np.lexsort((left, x, y))), _partners(np.lexsort((above, y, x)))
    corners, seen, rings = np.stack((x, y), axis=1), bytearray(len(x)), []
    to_across, to_down = across.tolist(), down.tolist()
    for start in range(len(x)):
        if not seen[start]:
            ring, here = [], start
            while not seen[here]:
                other = to_across[here]
                ring += [here, other]
                seen[here] = seen[other] = 1
                here = to_down[other]
            rings.append(corners[ring])
    return rings


def _partners(order: NDArray[np.intp]) -> NDArray[np.intp]:
    """The other end of each corner's edge, where corners in this order are the ends of edges, two by two."""
    partner = np.empty_like(order)
    partner[order[0::2]], partner[order[1::2]] = order[1::2], order[0::2]
    return partner
