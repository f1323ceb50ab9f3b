"""Image and masks are varied together; what a step sees is a function of the seed and the step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from masklake.errors import MasklakeError
from masklake.inference.preprocess import ResizePlan
from masklake.training import batches
from masklake.training.augment import Augmentation, Window, draw_window, show
from masklake.training.examples import BadExample, Example, Sample
from masklake.truth.formats import TruthImage

PLAN = ResizePlan("exact", (40, 60), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
VARIED = Augmentation(PLAN, (32, 32), flip=0.5, scale_min=0.5, scale_max=2.0)
RECIPE = batches.Recipe(seed=3, batch=4, micro=2, augmentation=VARIED)


def picture_of_masks(height: int = 80, width: int = 120) -> Sample:
    """A sample whose image tells its masks: red where the first is, green where the second is."""
    masks = np.zeros((2, height, width), bool)
    masks[0, 10:50, 20:60] = True
    masks[1, 40:75, 50:110] = True
    masks[1] &= ~masks[0]
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[masks[0]] = (255, 0, 0)
    pixels[masks[1]] = (0, 255, 0)
    return Sample(pixels, masks, np.array([4, 2]), np.zeros(2, bool))


def test_masks_stay_on_what_they_mask_however_the_image_is_varied() -> None:
    sample = picture_of_masks()
    mirrored = 0
    for number in range(60):
        window = draw_window((80, 120), VARIED, np.random.default_rng(number))
        mirrored += window.mirrored
        shown = show(sample, window, Image.Resampling.BILINEAR)
        assert shown.pixels.shape[:2] == shown.masks.shape[1:] == window.size
        assert max(window.size) <= 32
        for mask, label in zip(shown.masks, shown.label_ids, strict=True):
            channel = shown.pixels[..., 0 if label == 4 else 1]
            assert mask[channel == 255].all()  # what the filter blends at edges is between the two
            assert not mask[channel == 0].any()
    assert 15 < mirrored < 45


def test_a_window_of_the_whole_image_is_the_image() -> None:
    sample = picture_of_masks()
    shown = show(sample, Window((0, 0, 120, 80), (80, 120), False), Image.Resampling.BILINEAR)
    assert np.array_equal(shown.pixels, sample.pixels)
    assert np.array_equal(shown.masks, sample.masks)


def test_without_jitter_and_crop_the_input_is_what_the_segmenter_would_see() -> None:
    sample = picture_of_masks()
    plain = Augmentation(PLAN, (40, 60), flip=0, scale_min=1, scale_max=1)
    shown = show(sample, draw_window((80, 120), plain, np.random.default_rng(0)), PLAN.resample)
    expected = np.asarray(Image.fromarray(sample.pixels).resize((60, 40), Image.Resampling.BILINEAR))
    assert np.array_equal(shown.pixels, expected)
    assert np.array_equal(shown.masks, sample.masks[:, 1::2, 1::2])


def test_masks_out_of_sight_are_left_out_and_a_smaller_image_leaves_room() -> None:
    sample = picture_of_masks()
    shown = show(sample, Window((0, 0, 30, 10), (10, 30), False), Image.Resampling.BILINEAR)
    assert len(shown.masks) == 0
    recipe = replace(RECIPE, augmentation=replace(VARIED, scale_min=0.5, scale_max=0.5, flip=0))
    made = batches.make(recipe, range(1), [Example("a", TruthImage(0, "a"))], lambda _: sample)
    assert made.pixel_values.shape == (1, 3, 32, 32)  # 20 x 30 are filled
    assert not made.pixel_values[:, :, 20:].any()
    assert not made.pixel_values[:, :, :, 30:].any()
    assert not made.masks[0][:, 20:].any()
    black = (0 - 0.5) / 0.25
    assert made.pixel_values[0, 0, 0, 0] == pytest.approx(black)


def test_every_epoch_shows_each_example_once_in_another_order() -> None:
    count = 10
    seen = [
        index
        for step in range(10)
        for micro in range(2)
        for index in batches.examples_at(count, RECIPE, batches.places(RECIPE, step, micro))
    ]
    epochs = [seen[first : first + count] for first in range(0, 40, count)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_a_micro_batch_is_the_same_whenever_it_is_made_and_another_epoch_varies_it() -> None:
    sample = picture_of_masks()
    examples = [Example(name, TruthImage(0, name)) for name in "ab"]
    first, again, later = (batches.make(RECIPE, places, examples, lambda _: sample) for places in (range(2), range(2), range(20, 22)))
    assert np.array_equal(first.pixel_values, again.pixel_values)
    assert all(np.array_equal(one, two) for one, two in zip(first.masks, again.masks, strict=True))
    assert not np.array_equal(first.pixel_values, later.pixel_values)


def test_a_bad_example_ends_the_run_or_is_skipped_and_named() -> None:
    def read(example: Example) -> Sample:
        if example.image == "bad":
            raise BadExample("bad: broken")
        return picture_of_masks()

    examples = [Example(name, TruthImage(0, name)) for name in ("good", "bad")]
    with pytest.raises(MasklakeError, match="bad: broken; mend it, or give --bad-examples skip"):
        batches.make(RECIPE, range(2), examples, read)
    made = batches.make(replace(RECIPE, skip_bad=True), range(2), examples, read)
    assert made.images == ["good"]
    assert made.skipped == ["bad: broken"]


def test_crowd_regions_are_not_learned_from_as_objects() -> None:
    sample = replace(picture_of_masks(), crowd=np.array([False, True]))
    assert batches.for_task(sample, "", frozenset()).label_ids.tolist() == [4]
    assert batches.for_task(sample, "instance", frozenset({2, 4})).label_ids.tolist() == [4]
    assert batches.for_task(sample, "semantic", frozenset()).label_ids.tolist() == [2, 4]  # their pixels are of their class all the same


def test_a_task_takes_its_part_of_the_truth() -> None:
    masks = np.eye(4, dtype=bool).reshape(4, 2, 2)
    sample = Sample(np.zeros((2, 2, 3), np.uint8), masks, np.array([1, 0, 1, 2]), np.zeros(4, bool))
    assert batches.for_task(sample, "panoptic", frozenset({1})).label_ids.tolist() == [1, 0, 1, 2]
    things = batches.for_task(sample, "instance", frozenset({1}))
    assert things.label_ids.tolist() == [1, 1]
    assert np.array_equal(things.masks, masks[[0, 2]])
    classes = batches.for_task(sample, "semantic", frozenset({1}))
    assert classes.label_ids.tolist() == [0, 1, 2]
    assert classes.masks.astype(int).reshape(3, 4).tolist() == [[0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]
