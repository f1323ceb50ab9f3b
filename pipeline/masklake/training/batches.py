"""Which images a step sees, and how: pure functions of the seed and the step, so that a run goes on exactly where it was.

A step's batch is made of micro-batches, one forward pass each. What a micro-batch holds does not depend on who computes it: the same
run on more workers sums the same gradients in another order. Nothing here imports torch: processes that load start quickly, and stay small.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from masklake.errors import MasklakeError
from masklake.inference import preprocess
from masklake.inference.families import ALL_TASKS, INSTANCE, SEMANTIC
from masklake.training.augment import Augmentation, draw_window, show
from masklake.training.examples import MEND, BadExample, Example, Sample, by_label

_ORDER, _SHOWN, _TASK, POINTS = range(4)  # streams of random numbers


@dataclass(frozen=True)
class Recipe:
    """How micro-batches are made of examples."""

    seed: int
    batch: int
    """Images of a step."""
    micro: int
    """Images of a micro-batch; `batch` is a multiple of it."""
    augmentation: Augmentation
    tasks: tuple[str, ...] = ()
    """For models that are told their task: each image is trained for one of these, drawn evenly."""
    thing_ids: frozenset[int] = frozenset()
    skip_bad: bool = False


@dataclass(frozen=True, eq=False)
class MicroBatch:
    """Images of one forward pass, as arrays."""

    pixel_values: NDArray[np.float32]
    """[N, 3, H, W], normalised; where an image does not reach, zeros."""
    masks: list[NDArray[np.bool_]]
    """Of each image [n, H, W]; n may be 0."""
    label_ids: list[NDArray[np.int64]]
    """Of each image [n]."""
    tasks: list[str]
    """Of each image; empty where the model is not told any."""
    images: list[str]
    skipped: list[str]
    """Why an example is not there."""


def random(seed: int, stream: int, *place: int) -> np.random.Generator:
    """Random numbers that are a function of where they are used."""
    return np.random.default_rng([20261124, seed, stream, *place])


def order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """In which order an epoch sees the examples."""
    return random(seed, _ORDER, epoch).permutation(count)


def places(recipe: Recipe, step: int, index: int) -> range:
    """The positions, counted from the beginning of the training, of micro-batch `index` of step `step` (both from 0)."""
    first = step * recipe.batch + index * recipe.micro
    return range(first, first + recipe.micro)


def examples_at(count: int, recipe: Recipe, positions: range) -> list[int]:
    """The examples' indices at positions: every epoch shows each example once."""
    orders = {epoch: order(count, recipe.seed, epoch) for epoch in {position // count for position in positions}}
    return [int(orders[position // count][position % count]) for position in positions]


def make(recipe: Recipe, positions: range, examples: Sequence[Example], read: Callable[[Example], Sample]) -> MicroBatch:
    """Load, by `read`, and augment the examples of one micro-batch; `examples` are those of `examples_at`, in order.

    Raises:
        BadExample: one cannot be learned from, and the recipe does not skip those.
    """
    shown: list[tuple[Sample, str, str]] = []
    skipped: list[str] = []
    for position, example in zip(positions, examples, strict=True):
        try:
            sample = read(example)
        except BadExample as error:
            if not recipe.skip_bad:
                raise BadExample(f"{error}; {MEND}") from None
            skipped.append(str(error))
            continue
        window = draw_window(sample.pixels.shape[:2], recipe.augmentation, random(recipe.seed, _SHOWN, position))
        task = str(random(recipe.seed, _TASK, position).choice(recipe.tasks)) if recipe.tasks else ""
        seen = show(sample, window, recipe.augmentation.plan.resample)
        shown.append((for_task(seen, task, recipe.thing_ids), task, example.image))
    return _stacked(shown, skipped, recipe)


def make_packed(arguments: bytes) -> MicroBatch | MasklakeError:
    """`make` of its pickled arguments, in a process that only loads. The job's own errors travel as values, with their class."""
    asked: tuple[Recipe, range, list[Example], Callable[[Example], Sample]] = pickle.loads(arguments)  # noqa: S301 - our own caller's
    try:
        return make(*asked)
    except MasklakeError as error:
        return error


def without_crowd(sample: Sample) -> Sample:
    """As published for Mask2Former: crowd regions are not learned from, neither as objects nor as background of a query."""
    kept = ~sample.crowd
    return Sample(sample.pixels, sample.masks[kept], sample.label_ids[kept], sample.crowd[kept])


def for_task(sample: Sample, task: str, thing_ids: frozenset[int]) -> Sample:
    """The segments that `task` asks for, as OneFormer derives them from panoptic truth (arXiv:2211.06220, section 3.1).

    For semantic work, one per class, crowds among them; for instance work, the things; without a task, all. Of these two, no crowds.
    """
    assert task in ("", *ALL_TASKS)
    if task == SEMANTIC:
        labels = np.full(sample.pixels.shape[:2], -1, np.int32)
        for mask, label in zip(sample.masks, sample.label_ids, strict=True):
            labels[mask] = label
        return Sample(sample.pixels, *by_label(labels))
    sample = without_crowd(sample)
    if task == INSTANCE:
        kept = np.isin(sample.label_ids, list(thing_ids))
        return Sample(sample.pixels, sample.masks[kept], sample.label_ids[kept], sample.crowd[kept])
    return sample


def _stacked(shown: list[tuple[Sample, str, str]], skipped: list[str], recipe: Recipe) -> MicroBatch:
    height, width = recipe.augmentation.crop
    pixel_values = np.zeros((len(shown), 3, height, width), np.float32)
    masks = []
    for row, (sample, _, _) in enumerate(shown):
        h, w = sample.pixels.shape[:2]
        pixel_values[row, :, :h, :w] = preprocess.normalise(sample.pixels, recipe.augmentation.plan)
        masks.append(np.pad(sample.masks, ((0, 0), (0, height - h), (0, width - w))))
    return MicroBatch(
        pixel_values,
        masks,
        [sample.label_ids for sample, _, _ in shown],
        [task for _, task, _ in shown if task],
        [image for _, _, image in shown],
        skipped,
    )
