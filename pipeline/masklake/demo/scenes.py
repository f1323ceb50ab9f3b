"""Generated scenes with a known panoptic truth: stuff in bands, overlapping things on top.

A scene is a resolution-independent description drawn from a seed; `render` paints it at any size, so one generator serves
training (128 x 128) and the demo's lake (photograph-like sizes and aspect ratios). Lengths are fractions of the shorter side.
"""

from __future__ import annotations

import colorsys
import io
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LABELS = {0: "sky", 1: "water", 2: "grass", 3: "ball", 4: "crate", 5: "cone"}
THING_LABEL_IDS = (3, 4, 5)

HELD_OUT = range(900_000, 900_500)
"""Seeds of the scenes that models are judged on; training draws from `FIRST_TRAINING_SEED` up."""
FIRST_TRAINING_SEED = 1_000_000

PHOTO_SIZES = ((480, 640), (640, 480), (450, 800), (512, 512), (375, 500), (600, 400), (432, 768))
"""(height, width) in pixels of the scenes that stand in for photographs."""

_SKY, _WATER, _GRASS, _BALL, _CRATE, _CONE = range(6)
_HUES = {_BALL: (0.93, 1.07), _CRATE: (0.07, 0.17), _CONE: (0.70, 0.88)}
_PROBE = 96  # pixels along the shorter side of the small render that decides which things are visible enough
_MIN_VISIBLE_FRACTION = 0.4  # of a thing's own area
_MIN_VISIBLE_AREA = 0.008  # of the image

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Surface:
    """A colour with a two-wave texture: RGB in 0..1, wave vectors in cycles per shorter side, amplitude in 0..1."""

    rgb: tuple[float, float, float]
    waves: tuple[tuple[float, float, float], ...]
    amplitude: float


@dataclass(frozen=True)
class Thing:
    label_id: int
    x: float
    y: float
    radius: float
    angle: float
    surface: Surface


@dataclass(frozen=True)
class Scene:
    """One scene: `aspect` is width over height; `bands` are (label_id, top edge as a fraction of the height, surface)."""

    seed: int
    aspect: float
    bands: tuple[tuple[int, float, Surface], ...]
    ripple: tuple[float, float, float]
    things: tuple[Thing, ...]
    light: tuple[float, float, float]
    tint: tuple[float, float, float]
    noise: float

    @cached_property
    def extent(self) -> tuple[float, float]:
        """(height, width) in units of the shorter side."""
        return (1.0, self.aspect) if self.aspect >= 1 else (1 / self.aspect, 1.0)


@dataclass(frozen=True)
class Rendered:
    """`image`: uint8 [H, W, 3]; `ids`: int32 [H, W], 1-based segment id of every pixel; `label_ids`: label of segment i + 1."""

    image: NDArray[np.uint8]
    ids: NDArray[np.int32]
    label_ids: tuple[int, ...]


def sample_scene(seed: int, aspect: float | None = None) -> Scene:
    """Draw a scene; the same seed (and aspect, width / height) always gives the same scene."""
    rng = np.random.default_rng([20261122, seed])
    aspect = float(np.exp(rng.uniform(np.log(0.66), np.log(1.8)))) if aspect is None else aspect
    horizon = rng.uniform(0.25, 0.55)
    bands = [(_SKY, -1.0, _sky(rng)), (_GRASS, horizon, _grass(rng))]
    if rng.random() < 0.5:
        bands = [bands[0], (_WATER, horizon, _water(rng)), (_GRASS, horizon + rng.uniform(0.18, 0.3), bands[1][2])]
    scene = Scene(
        seed=seed,
        aspect=aspect,
        bands=tuple(bands),
        ripple=(rng.uniform(0.0, 0.025), rng.uniform(0.5, 2.5), rng.uniform(-0.08, 0.08)),
        things=(),
        light=(rng.uniform(0.7, 1.15), rng.uniform(-0.25, 0.25), rng.uniform(-0.25, 0.25)),
        tint=(rng.uniform(0.93, 1.07), rng.uniform(0.97, 1.03), rng.uniform(0.93, 1.07)),
        noise=float(rng.choice([0.0, 0.01, 0.02, 0.04])),
    )
    height, width = scene.extent
    things = tuple(_thing(rng, height, width) for _ in range(rng.integers(1, 8)))
    return _keep_visible(replace(scene, things=things))


def render(scene: Scene, height: int, width: int) -> Rendered:
    """Paint a scene at `height` x `width` pixels; a size of another aspect ratio stretches it, as resizing would."""
    ys, xs = _grid(scene, height, width)
    pixel = max(scene.extent[0] / height, scene.extent[1] / width)
    canvas, ids, label_ids = _paint_bands(scene, ys, xs)
    for thing in scene.things:
        rows, columns = _window(thing, ys, xs)
        box_ys, box_xs = ys[rows], xs[:, columns]
        distance = _distance(thing, box_ys, box_xs)
        cover = np.clip(0.5 - distance / pixel, 0, 1)[..., None]
        paint = _paint(thing.surface, box_ys, box_xs) * _shade(thing, distance, box_ys, box_xs)[..., None]
        canvas[rows, columns] = canvas[rows, columns] * (1 - cover) + paint * cover
        label_ids.append(thing.label_id)
        ids[rows, columns][distance < 0] = len(label_ids)
    return Rendered(_expose(scene, canvas, ys, xs), *_compact(ids, label_ids))


def photograph(seed: int) -> Rendered:
    """The scene of a seed at one of `PHOTO_SIZES`, chosen by the seed."""
    height, width = PHOTO_SIZES[seed % len(PHOTO_SIZES)]
    return render(sample_scene(seed, width / height), height, width)


def jpeg(rendered: Rendered, quality: int = 90) -> bytes:
    """The picture as an encoded JPEG file."""
    file = io.BytesIO()
    Image.fromarray(rendered.image).save(file, "JPEG", quality=quality)
    return file.getvalue()


def _grid(scene: Scene, height: int, width: int) -> tuple[Floats, Floats]:
    """Pixel centres as a column of y and a row of x, in units of the shorter side."""
    ys = (np.arange(height, dtype=np.float32)[:, None] + 0.5) * (scene.extent[0] / height)
    xs = (np.arange(width, dtype=np.float32)[None, :] + 0.5) * (scene.extent[1] / width)
    return ys.astype(np.float32), xs.astype(np.float32)


def _colour(hue: float, saturation: float, value: float) -> tuple[float, float, float]:
    return colorsys.hsv_to_rgb(hue % 1, min(saturation, 1), min(value, 1))


def _waves(rng: np.random.Generator, low: float, high: float, flat: float = 1.0) -> tuple[tuple[float, float, float], ...]:
    """Two wave vectors (y, x, phase); `flat` < 1 shortens the x part, which makes ripples."""
    found = []
    for _ in range(2):
        angle, frequency = rng.uniform(0, np.pi), rng.uniform(low, high)
        found.append((frequency * np.sin(angle), frequency * np.cos(angle) * flat, rng.uniform(0, 2 * np.pi)))
    return tuple(found)


def _sky(rng: np.random.Generator) -> Surface:
    hue = rng.uniform(0.53, 0.62) if rng.random() < 0.8 else rng.uniform(0.0, 0.1)
    return Surface(_colour(hue, rng.uniform(0.05, 0.45), rng.uniform(0.75, 1)), _waves(rng, 0.5, 2.5), rng.uniform(0, 0.08))


def _water(rng: np.random.Generator) -> Surface:
    rgb = _colour(rng.uniform(0.48, 0.62), rng.uniform(0.5, 0.9), rng.uniform(0.35, 0.6))
    return Surface(rgb, _waves(rng, 8, 20, flat=0.15), rng.uniform(0.04, 0.15))


def _grass(rng: np.random.Generator) -> Surface:
    rgb = _colour(rng.uniform(0.2, 0.38), rng.uniform(0.35, 0.8), rng.uniform(0.3, 0.65))
    return Surface(rgb, _waves(rng, 6, 22), rng.uniform(0.03, 0.2))


def _thing(rng: np.random.Generator, height: float, width: float) -> Thing:
    label_id = int(rng.choice(THING_LABEL_IDS))
    # One thing in ten has any colour at all, so that the shape has to be learned as well.
    hue = rng.uniform(0, 1) if rng.random() < 0.1 else rng.uniform(*_HUES[label_id])
    rgb = _colour(hue, rng.uniform(0.5, 0.95), rng.uniform(0.5, 1))
    return Thing(
        label_id=label_id,
        x=rng.uniform(0.08, width - 0.08),
        y=rng.uniform(0.15, height - 0.08),
        radius=float(np.exp(rng.uniform(np.log(0.12), np.log(0.3)))),
        angle=rng.uniform(-0.6, 0.6),
        surface=Surface(rgb, _waves(rng, 3, 12), float(rng.choice([0.0, 0.06, 0.15]))),
    )


def _keep_visible(scene: Scene) -> Scene:
    """Drop things that the ones in front of them, or the frame, hide too much of; what is dropped hides nothing."""
    height, width = scene.extent
    ys, xs = _grid(scene, round(_PROBE * height), round(_PROBE * width))
    covered = np.zeros((ys.size, xs.size), bool)
    kept: list[Thing] = []
    for thing in reversed(scene.things):
        mask = _distance(thing, ys, xs) < 0
        visible = np.count_nonzero(mask & ~covered)
        if visible >= _MIN_VISIBLE_FRACTION * np.count_nonzero(mask) and visible >= _MIN_VISIBLE_AREA * mask.size:
            kept.append(thing)
            covered |= mask
    return replace(scene, things=tuple(reversed(kept)))


def _paint_bands(scene: Scene, ys: Floats, xs: Floats) -> tuple[Floats, NDArray[np.int32], list[int]]:
    canvas = np.empty((ys.size, xs.size, 3), np.float32)
    ids = np.empty((ys.size, xs.size), np.int32)
    label_ids: list[int] = []
    amplitude, frequency, tilt = scene.ripple
    height, width = scene.extent
    edge = amplitude * np.sin(2 * np.pi * frequency * xs) + tilt * (xs / width - 0.5)
    for label_id, top, surface in scene.bands:
        below = ys >= top * height + edge * (top > 0)
        label_ids.append(label_id)
        ids[below] = len(label_ids)
        canvas[below] = _paint(surface, ys, xs)[below]
    return canvas, ids, label_ids


def _paint(surface: Surface, ys: Floats, xs: Floats) -> Floats:
    """float32 [H, W, 3]: the surface's colour with its texture."""
    texture = np.ones((ys.size, xs.size), np.float32)
    for wave_y, wave_x, phase in surface.waves:
        texture += surface.amplitude * np.sin(2 * np.pi * (wave_y * ys + wave_x * xs) + phase)
    return np.asarray(texture[..., None] * np.asarray(surface.rgb, np.float32))


def _window(thing: Thing, ys: Floats, xs: Floats) -> tuple[slice, slice]:
    """The rows and columns that the thing can touch."""
    reach = thing.radius * 1.5
    top, bottom = np.searchsorted(ys[:, 0], [thing.y - reach, thing.y + reach])
    left, right = np.searchsorted(xs[0], [thing.x - reach, thing.x + reach])
    return slice(int(top), int(bottom)), slice(int(left), int(right))


def _distance(thing: Thing, ys: Floats, xs: Floats) -> Floats:
    """float32 [H, W]: signed distance to the thing's outline, negative inside."""
    cos, sin = np.float32(np.cos(thing.angle)), np.float32(np.sin(thing.angle))
    v = (ys - np.float32(thing.y)) * cos - (xs - np.float32(thing.x)) * sin
    u = (ys - np.float32(thing.y)) * sin + (xs - np.float32(thing.x)) * cos
    radius = np.float32(thing.radius)
    distance: Floats
    if thing.label_id == _BALL:
        distance = np.sqrt(u * u + v * v) - radius
    elif thing.label_id == _CRATE:
        distance = np.maximum(np.abs(u), np.abs(v)) - np.float32(0.85) * radius
    else:  # a cone is an upright triangle: a base below, two slanted sides above
        slope = np.float32(0.45)
        distance = np.maximum(v - radius * np.float32(0.85), (np.abs(u) - slope * v - slope * radius) / np.float32(np.hypot(1, 0.45)))
    return distance


def _shade(thing: Thing, distance: Floats, ys: Floats, xs: Floats) -> Floats:
    """float32 [H, W]: lit from the upper left, darker along the rim, so that equal neighbours can be told apart."""
    lit = 1 - np.float32(0.25) * ((ys - thing.y) + (xs - thing.x)) / np.float32(thing.radius)
    rim = 1 - np.float32(0.35) * np.clip(1 + distance / np.float32(0.12 * thing.radius), 0, 1)
    shade: Floats = (lit * rim).astype(np.float32)
    return shade


def _expose(scene: Scene, canvas: Floats, ys: Floats, xs: Floats) -> NDArray[np.uint8]:
    """Apply light, tint and sensor noise, and round to uint8."""
    gain, slope_y, slope_x = scene.light
    height, width = scene.extent
    light = gain + slope_y * (ys / height - 0.5) + slope_x * (xs / width - 0.5)
    lit = canvas * light[..., None] * np.asarray(scene.tint, np.float32)
    if scene.noise:
        rng = np.random.default_rng([1, scene.seed])
        lit = lit + np.float32(scene.noise) * rng.standard_normal(lit.shape, dtype=np.float32)
    return (np.clip(lit, 0, 1) * 255 + 0.5).astype(np.uint8)


def _compact(ids: NDArray[np.int32], label_ids: list[int]) -> tuple[NDArray[np.int32], tuple[int, ...]]:
    """Renumber so that only segments with pixels remain, 1..n."""
    present = np.bincount(ids.ravel(), minlength=len(label_ids) + 1) > 0
    renumber = (np.cumsum(present) * present).astype(np.int32)
    return renumber[ids], tuple(label for i, label in enumerate(label_ids, 1) if present[i])
