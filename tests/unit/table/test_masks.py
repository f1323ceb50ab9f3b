from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from masklake.table.masks import decode_masks, id_map, overlay, palette, segment_colours
from tests.answers import rectangle, segment

LEFT = rectangle(40, 60, slice(5, 35), slice(5, 30))
RIGHT = rectangle(40, 60, slice(10, 30), slice(20, 50))  # overlaps LEFT in columns 20 to 29


def row(*segments: Any) -> list[dict[str, Any]]:
    return [asdict(one) for one in segments]


def test_masks_decode_in_the_order_of_the_segments() -> None:
    masks = decode_masks(row(segment(1, RIGHT), segment(2, LEFT)), 40, 60)
    assert (masks.dtype, masks.shape) == (np.dtype(bool), (2, 40, 60))
    assert np.array_equal(masks, np.stack([RIGHT, LEFT]))


def test_no_segments_are_no_masks_of_the_right_size() -> None:
    assert decode_masks([], 40, 60).shape == (0, 40, 60)
    assert not id_map([], 40, 60).any()


def test_where_masks_overlap_the_first_segment_is_on_top() -> None:
    ids = id_map(row(segment(1, LEFT), segment(2, RIGHT)), 40, 60)
    assert (ids[20, 25], ids[20, 40], ids[6, 6], ids[0, 0]) == (1, 2, 1, 0)


def test_an_overlay_leaves_the_rest_of_the_picture_alone() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    painted = overlay(image, row(segment(1, LEFT)))
    assert (painted.dtype, painted.shape) == (image.dtype, image.shape)
    assert np.array_equal(painted[~LEFT], image[~LEFT])
    assert (painted[LEFT] != image[LEFT]).any(axis=1).mean() > 0.95
    assert np.array_equal(overlay(image, []), image)


def test_a_segment_has_its_labels_colour_inside_and_a_dark_line_around_a_bright_one() -> None:
    white = np.full((40, 60, 3), 255, np.uint8)
    painted = overlay(white, row(segment(1, LEFT, label_id=3)), alpha=1.0)
    assert tuple(painted[20, 15]) == palette(3)
    assert painted[5, 15].astype(int).sum() < 0.8 * painted[20, 15].astype(int).sum()
    assert painted[6, 15].astype(int).sum() > 1.2 * painted[20, 15].astype(int).sum()
    assert (painted[7, 15] == painted[20, 15]).all()


@pytest.mark.parametrize("ground", [(0, 0, 0), (255, 255, 255), (128, 128, 128), *(palette(label_id) for label_id in range(24))])
def test_an_edge_can_be_told_from_any_ground_even_one_of_the_labels_colour(ground: tuple[int, int, int]) -> None:
    image = np.full((40, 60, 3), ground, np.uint8)
    for label_id in range(24):
        painted = overlay(image, row(segment(1, LEFT, label_id=label_id)))
        assert max(_contrast(painted[5, 15], ground), _contrast(painted[6, 15], ground)) >= 3  # WCAG 2.2, 1.4.11: graphics


def test_instances_that_touch_have_bright_edges_with_a_dark_line_between_them() -> None:
    image = np.full((40, 60, 3), 128, np.uint8)
    halves = [rectangle(40, 60, slice(0, 40), columns) for columns in (slice(0, 30), slice(30, 60))]
    across = overlay(image, row(*(segment(number, half) for number, half in enumerate(halves, 1))))[20].astype(int).sum(axis=1)
    assert across[28] > across[20] > across[29]
    assert across[31] > across[40] > across[30]


def _contrast(first: Any, second: Any) -> float:
    """WCAG 2.2's contrast ratio of two sRGB colours, 0..255."""
    parts = np.array([first, second]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    darker, lighter = sorted((linear @ [0.2126, 0.7152, 0.0722]).tolist())
    return float((lighter + 0.05) / (darker + 0.05))


def test_instances_of_a_thing_differ_in_shade_and_stuff_does_not() -> None:
    things = segment_colours(row(segment(1, LEFT), segment(2, RIGHT)))
    assert things[0] == palette(3)
    assert things[0] != things[1]
    stuff = segment_colours(row(segment(1, LEFT, isthing=False), segment(2, RIGHT, isthing=False)))
    assert stuff[0] == stuff[1]


def test_colours_of_labels_are_stable_and_apart_from_each_other() -> None:
    colours = np.array([palette(label_id) for label_id in range(24)], int)
    assert palette(0) == (246, 121, 112)
    apart = np.abs(colours[:, None] - colours[None]).sum(axis=2)[~np.eye(24, dtype=bool)]
    assert apart.min() > 20
    assert colours.min() >= 0
    assert colours.max() <= 255


def test_background_is_not_painted() -> None:
    image = np.full((40, 60, 3), 100, np.uint8)
    background = {**asdict(segment(1, ~LEFT)), "label": "background"}
    painted = overlay(image, [background, *row(segment(2, LEFT))])
    assert np.array_equal(painted[~LEFT], image[~LEFT])
    assert not np.array_equal(painted[LEFT], image[LEFT])
