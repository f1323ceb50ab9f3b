"""What is painted over a reduced picture: the nearest pixel of the full masks, the first segment on top."""

from __future__ import annotations

import numpy as np
import pytest

from masklake.inference.rle import encode_mask
from masklake.pages.cards import nearest, paint
from masklake.table.masks import id_map, painting


@pytest.mark.parametrize("to", [(61, 83), (20, 27), (7, 83), (1, 1)])
def test_is_the_nearest_pixel_of_all_masks(to: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    segments = []
    for number in range(1, 9):
        mask = np.zeros((61, 83), np.bool_)
        top, left = random.integers(0, 50), random.integers(0, 70)
        mask[top : top + random.integers(1, 40), left : left + random.integers(1, 40)] = True
        mask &= random.random(mask.shape) < 0.8
        about = {"segment_id": number, "label_id": number % 3, "label": "x", "isthing": True, "score": 0.5}
        segments.append({**about, "counts": encode_mask(mask).counts})
    rows, columns = nearest((61, 83), to)
    ids = np.ascontiguousarray(id_map(segments, 61, 83)[np.ix_(rows, columns)])
    assert np.array_equal(paint(segments, (61, 83), to).layer, painting(segments, ids, 0.45))
