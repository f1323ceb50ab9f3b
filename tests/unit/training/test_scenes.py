"""Generated scenes: the truth is what the picture shows, and a seed is a scene."""

from __future__ import annotations

import numpy as np
import pytest

from masklake.demo.scenes import HELD_OUT, LABELS, PHOTO_SIZES, THING_LABEL_IDS, photograph, render, sample_scene


@pytest.mark.parametrize("seed", range(20))
def test_every_pixel_belongs_to_a_labelled_segment_and_every_segment_has_pixels(seed: int) -> None:
    scene = render(sample_scene(seed), 96, 128)
    assert scene.image.shape == (96, 128, 3)
    assert sorted(np.unique(scene.ids)) == list(range(1, len(scene.label_ids) + 1))
    assert set(scene.label_ids) <= set(LABELS)


def test_a_seed_always_gives_the_same_scene_and_another_seed_another() -> None:
    first, again, other = (render(sample_scene(seed), 64, 64) for seed in (5, 5, 6))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.ids, again.ids)
    assert not np.array_equal(first.image, other.image)


def test_a_scene_keeps_its_layout_at_any_size() -> None:
    small, large = (render(sample_scene(11, 4 / 3), height, height * 4 // 3).ids for height in (96, 384))
    agree = np.mean(small == large[2::4, 2::4])
    assert agree > 0.97


@pytest.mark.slow
def test_things_overlap_and_stuff_of_a_label_is_one_segment() -> None:
    labels = [photograph(seed).label_ids for seed in HELD_OUT[:40]]
    stuff = [[label for label in found if label not in THING_LABEL_IDS] for found in labels]
    assert all(len(set(found)) == len(found) for found in stuff)
    assert {label for found in labels for label in found} == set(LABELS)
    assert np.mean([len(found) for found in labels]) > 4


@pytest.mark.slow
def test_photographs_come_in_several_sizes() -> None:
    assert {photograph(seed).ids.shape for seed in range(7)} == set(PHOTO_SIZES)
