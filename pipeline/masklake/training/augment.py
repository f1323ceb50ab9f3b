"""A sample as the model is trained on it: mirrored, scaled and cropped, image and masks together, by a generator of random numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from masklake.inference.preprocess import ResizePlan
from masklake.training.examples import Sample, Size


@dataclass(frozen=True)
class Augmentation:
    """How samples are varied; `Augmentation(plan, crop, 0, 1, 1)` only resizes, and crops at random where the image is larger."""

    plan: ResizePlan
    """How the model's input is made of an image; the jitter is relative to it."""
    crop: Size
    """Size of the model's input in training: a smaller image leaves room at the bottom and right."""
    flip: float
    scale_min: float
    scale_max: float


@dataclass(frozen=True)
class Window:
    """What a training input shows: a box (left, top, right, bottom) of the original in pixels, at `size`, mirrored or not."""

    box: tuple[float, float, float, float]
    size: Size
    mirrored: bool


def draw_window(size: Size, augmentation: Augmentation, rng: np.random.Generator) -> Window:
    """Draw how an image of `size` is shown; the same numbers are drawn whatever they decide."""
    jitter = float(np.exp(rng.uniform(np.log(augmentation.scale_min), np.log(augmentation.scale_max))))
    mirrored = bool(rng.random() < augmentation.flip)
    places = rng.random(2)
    scaled = [max(1, round(side * jitter)) for side in augmentation.plan.target(*size)]
    starts, shown = [], []
    for side, most, place in zip(scaled, augmentation.crop, places, strict=True):
        shown.append(min(side, most))
        starts.append(int(place * (side - shown[-1] + 1)))
    y, x = size[0] / scaled[0], size[1] / scaled[1]
    box = (starts[1] * x, starts[0] * y, (starts[1] + shown[1]) * x, (starts[0] + shown[0]) * y)
    return Window(box, (shown[0], shown[1]), mirrored)


def show(sample: Sample, window: Window, resample: int) -> Sample:
    """The sample through the window. The image is resized by Pillow's filter `resample`; a mask's pixel is what the original has at the
    pixel's centre. Masks that are not in sight are left out.
    """
    pixels = _resized(sample.pixels, window, resample)
    left, top, right, bottom = window.box
    ys = _centres(top, bottom, window.size[0], sample.masks.shape[1])
    xs = _centres(left, right, window.size[1], sample.masks.shape[2])
    masks = sample.masks[:, ys[:, None], xs[None, :]]
    if window.mirrored:
        pixels, masks = pixels[:, ::-1], masks[:, :, ::-1]
    seen = masks.any(axis=(1, 2)) if len(masks) else np.zeros(0, np.bool_)
    return Sample(np.ascontiguousarray(pixels), np.ascontiguousarray(masks[seen]), sample.label_ids[seen], sample.crowd[seen])


def _resized(pixels: NDArray[np.uint8], window: Window, resample: int) -> NDArray[np.uint8]:
    height, width = window.size
    whole = window.box == (0, 0, pixels.shape[1], pixels.shape[0])
    if whole and pixels.shape[:2] == (height, width):
        return pixels
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((width, height), Image.Resampling(resample), box=window.box))


def _centres(start: float, end: float, count: int, most: int) -> NDArray[np.int64]:
    places = start + (np.arange(count) + 0.5) * ((end - start) / count)
    inside: NDArray[np.int64] = np.clip(np.floor(places), 0, most - 1).astype(np.int64)
    return inside
