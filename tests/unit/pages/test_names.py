from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from masklake.pages.names import Name, place, squared_depth

RED = (255, 0, 0)


def ids(**regions: tuple[slice, slice]) -> tuple[Mapping[int, Name], NDArray[np.int32]]:
    """A map of 600 x 800 pixels with these regions, the later ones on top."""
    found = np.zeros((600, 800), np.int32)
    for number, where in enumerate(regions.values(), 1):
        found[where] = number
    return {number: Name(text, RED, 0.5) for number, text in enumerate(regions, 1)}, found


def test_a_name_stands_where_its_region_is_widest() -> None:
    # A frame of 100 pixels, and the square of 200 within one corner of it.
    regions, found = ids(frame=(slice(0, 600), slice(0, 800)), hole=(slice(100, 500), slice(100, 700)))
    found[400:600, 600:800] = 1
    frame = next(name for name in place(regions, found) if name.text == "frame")
    assert abs(frame.x - 700 / 800) < 0.02
    assert abs(frame.y - 500 / 600) < 0.02


def test_a_name_lies_within_the_picture() -> None:
    regions, found = ids(a_very_long_name=(slice(0, 60), slice(740, 800)))
    (name,) = place(regions, found)
    assert name.x < 0.87
    assert name.y >= 9 / 330


def test_no_name_covers_another_and_the_larger_region_comes_first() -> None:
    regions, found = ids(**{f"region {row} {column}": (slice(row * 10, row * 10 + 10), slice(column * 40, column * 40 + 40 - row % 2))
                            for row in range(20) for column in range(4)})  # fmt: skip
    placed = place(regions, found)
    assert 3 < len(placed) < 80
    for room, width, height in (("grid", 440, 330), ("alone", 1067, 800)):
        shown = [name for name in placed if name.small or room == "alone"]
        assert shown
        for one, other in combinations(shown, 2):
            assert abs(one.x - other.x) * width > 60 or abs(one.y - other.y) * height > 16, (room, one, other)
    assert sum(name.small for name in placed) < len(placed), "there is more room where the picture is alone"


def test_what_is_tiny_or_thinner_than_asked_is_not_named() -> None:
    regions, found = ids(tiny=(slice(0, 5), slice(0, 5)), line=(slice(100, 108), slice(0, 800)), square=(slice(300, 400), slice(300, 400)))
    assert {name.text for name in place(regions, found)} == {"line", "square"}
    assert {name.text for name in place(regions, found, thinnest=0.02)} == {"square"}


def test_a_region_without_a_pixel_or_a_name_is_passed_over() -> None:
    regions, found = ids(square=(slice(300, 400), slice(300, 400)))
    assert place({**regions, 7: Name("nowhere", RED)}, found) == place(regions, found)
    assert place({}, found) == ()


def test_depths_are_those_of_scipy() -> None:
    from scipy.ndimage import distance_transform_edt

    random = np.random.default_rng(0)
    for _ in range(100):
        mask = random.random(random.integers(1, 50, 2)) < random.random()
        exact = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
        assert np.array_equal(squared_depth(mask), np.rint(exact**2))
