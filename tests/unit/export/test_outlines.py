"""Polygons of masks: exact ones are the mask, simplified ones stay within their tolerance, and one line fills as many do."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from masklake.export.outlines import joined, lines, of_mask, overlap, simplified
from masklake.export.polygons import Polygons
from tests.answers import segment

RANDOM = np.random.default_rng(7)
RING = np.pad(np.pad(np.zeros((2, 2), bool), 2, constant_values=True), 1)  # 6 x 6 with a hole of 2 x 2, and nothing around


def masks() -> list[NDArray[np.bool_]]:
    """Random ones of all densities, which have holes, islands in holes and pixels that touch at corners alone."""
    return [RANDOM.random(RANDOM.integers(1, 14, 2)) < RANDOM.random() for _ in range(150)]


def filled(polygon: shapely.Geometry, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels whose centre is inside."""
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]]
    inside: NDArray[np.bool_] = shapely.contains_xy(polygon, x + 0.5, y + 0.5)
    return inside


def test_an_exact_outline_is_its_mask() -> None:
    for mask in masks():
        polygon = of_mask(mask)
        assert polygon.is_valid
        assert polygon.area == mask.sum()
        assert np.array_equal(filled(polygon, mask), mask)
        assert overlap(polygon, simplified(polygon, 0)) == 1


def test_a_ring_has_its_hole_and_a_checkerboard_no_lines_that_cross() -> None:
    ((outer, hole),) = lines(of_mask(RING, left=10, top=20))
    assert sorted(map(tuple, outer)) == [(11, 21), (11, 27), (17, 21), (17, 27)]
    assert sorted(map(tuple, hole)) == [(13, 23), (13, 25), (15, 23), (15, 25)]
    board = np.indices((4, 4)).sum(axis=0) % 2 == 0
    assert len(of_mask(board).geoms) == 8
    assert of_mask(np.zeros((3, 3), bool)).is_empty


def test_one_line_fills_the_same_pixels_by_every_rule() -> None:
    for mask in masks():
        line = joined(of_mask(mask))
        if not mask.any():
            assert not len(line)
            continue
        winding = np.zeros(mask.shape, int)  # of each pixel's centre, by the edges that a ray to the right crosses
        for (x0, y0), (x1, y1) in zip(line, np.roll(line, -1, axis=0), strict=True):
            rows = np.arange(mask.shape[0]) + 0.5
            for row in np.flatnonzero((rows > min(y0, y1)) & (rows < max(y0, y1))):
                crossing = x0 + (rows[row] - y0) * (x1 - x0) / (y1 - y0)
                winding[row, np.arange(mask.shape[1]) + 0.5 < crossing] += 1 if y1 > y0 else -1
        assert np.array_equal(winding != 0, mask)
        assert np.array_equal(winding % 2 == 1, mask)
        assert set(np.unique(winding)) <= {0, winding.flat[np.flatnonzero(mask)[0]]}


@pytest.mark.parametrize("tolerance", [0.75, 1.0, 2.0])
def test_a_simplified_outline_moves_no_further_than_it_may(tolerance: float) -> None:
    picture = Image.new("1", (90, 80))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((5, 5, 80, 70), fill=1)
    draw.ellipse((30, 20, 60, 50), fill=0)
    exact = of_mask(np.asarray(picture))
    less = simplified(exact, tolerance)
    assert less.is_valid
    assert exact.boundary.hausdorff_distance(less.boundary) <= tolerance
    assert len(shapely.get_coordinates(less)) < len(shapely.get_coordinates(exact)) * 0.6
    assert (len(lines(less)), len(lines(less)[0])) == (1, 2)


def test_iou_is_told_by_label() -> None:
    polygons = Polygons(1.0)
    disc = np.hypot(*(np.indices((30, 30)) - 14.5)) < 11
    made = {label: segment(1, mask, label) for label, mask in ((1, disc), (2, np.ones((30, 30), bool)))}
    drawn = {label: polygons.of({"label": each.label, "bbox": each.bbox, "counts": each.counts}, 30, 30) for label, each in made.items()}
    told = polygons.iou()
    assert told["label 2"] == {"mean": 1.0, "least": 1.0, "segments": 1}
    fine = np.kron(disc, np.ones((20, 20), bool))  # 400 points of each pixel
    y, x = (np.indices(fine.shape) + 0.5) / 20
    inside = shapely.contains_xy(drawn[1], x, y)
    assert told["label 1"]["mean"] == pytest.approx((fine & inside).sum() / (fine | inside).sum(), abs=1e-3)
    assert 0.9 < told["label 1"]["mean"] < 1
