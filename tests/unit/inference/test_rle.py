"""Run-length coding equals pycocotools byte for byte."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco

from masklake.inference import rle

Bools = NDArray[np.bool_]


def reference(mask: Bools) -> rle.Encoded:
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    x, y, width, height = (int(value) for value in coco.toBbox(encoded))
    return rle.Encoded(encoded["counts"], int(coco.area(encoded)), (x, y, width, height))


def assert_right(mask: Bools) -> None:
    encoded = rle.encode_mask(mask)
    assert encoded == reference(mask)
    assert np.array_equal(coco.decode({"size": list(mask.shape), "counts": encoded.counts}).astype(bool), mask)
    with rle.compact():
        values = np.frombuffer(rle.encode_mask(mask).counts, "<i4")
    assert rle.written_out(values, np.array([len(values)]))[0].tobytes() == encoded.counts


def blank(height: int, width: int) -> Bools:
    return np.zeros((height, width), np.bool_)


def test_random_masks_of_many_sizes_and_densities() -> None:
    rng = np.random.default_rng(1)
    for _ in range(800):
        height, width = rng.integers(1, 40, 2)
        assert_right(rng.random((height, width)) < rng.choice([0.02, 0.3, 0.5, 0.9, 0.99]))


def test_blocks_with_long_runs_use_several_characters_for_a_count() -> None:
    rng = np.random.default_rng(2)
    for _ in range(60):
        height, width = rng.integers(100, 900, 2)
        mask = blank(height, width)
        for _ in range(int(rng.integers(1, 5))):
            top, left = rng.integers(0, height), rng.integers(0, width)
            mask[top : top + int(rng.integers(1, height + 1)), left : left + int(rng.integers(1, width + 1))] ^= True
        assert_right(mask)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (3, 5), (480, 640)])
def test_empty_and_full_masks(size: tuple[int, int]) -> None:
    assert_right(blank(*size))
    assert_right(~blank(*size))


def test_empty_and_full_masks_worked_out_by_hand() -> None:
    # "6": 6 zeros; "06": no zeros, then 6 ones; every count in one character, 48 is the zero
    assert rle.encode_mask(blank(2, 3)) == rle.Encoded(b"6", 0, (0, 0, 0, 0))
    assert rle.encode_mask(~blank(2, 3)) == rle.Encoded(b"06", 6, (0, 0, 3, 2))


@pytest.mark.parametrize("corner", [(0, 0), (0, -1), (-1, 0), (-1, -1)])
def test_one_pixel_in_a_corner(corner: tuple[int, int]) -> None:
    mask = blank(5, 4)
    mask[corner] = True
    assert_right(mask)


def test_masks_of_more_than_2_to_the_24_pixels() -> None:
    mask = np.ones((4200, 4100), np.bool_)  # 17.2 million: float32 cannot count them one by one
    mask[17, 23] = False
    encoded = rle.encode_mask(mask)
    assert encoded.area == 4200 * 4100 - 1
    assert encoded == reference(mask)
    assert_right(blank(4200, 4100))


def test_all_segments_of_an_id_map_at_once() -> None:
    rng = np.random.default_rng(3)
    for _ in range(300):
        height, width = rng.integers(1, 30, 2)
        count = int(rng.integers(1, 300))
        block = int(rng.integers(1, 6))
        ids = rng.integers(0, count + 1, (height, width)).repeat(block, axis=0)[:height]
        columns = np.ascontiguousarray(ids.T.astype(np.uint16))
        encoded = rle.encode_ids(columns, count)
        assert len(encoded) == count
        for index in rng.integers(1, count + 1, 8):
            assert encoded[index - 1] == reference(ids == index)


def test_neighbouring_runs_of_one_id_are_joined() -> None:
    starts, values = np.array([0, 2, 4, 5]), np.array([1, 1, 0, 1])
    joined = rle.encode_id_runs(starts, values, 1, (2, 3))[0]
    assert joined == reference(np.array([[1, 1, 0], [1, 1, 1]], np.bool_))


def test_compact_run_lengths_of_many_segments_are_written_out_together() -> None:
    ids = np.random.default_rng(3).integers(0, 6, (37, 53)).astype(np.uint8)
    strings = [each.counts for each in rle.encode_ids(ids, 6)]  # the last one has no pixel
    with rle.compact():
        numbers = [each.counts for each in rle.encode_ids(ids, 6)]
    ends = np.cumsum([len(each) // 4 for each in numbers])
    text, cuts = rle.written_out(np.frombuffer(b"".join(numbers), "<i4"), ends)
    assert np.split(text, cuts[:-1])[0].tobytes() == strings[0]
    assert text.tobytes() == b"".join(strings)
    assert np.diff(cuts, prepend=0).tolist() == [len(each) for each in strings]
