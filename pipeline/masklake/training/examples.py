"""Examples to learn from: which image, and what is true of it; loaded as pixels with masks.

An `Example` is small and travels; a `Reader`, the same for all of a data set, loads it. Nothing here knows the model, torch or Ray.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from masklake.errors import ImageFailure, MasklakeError
from masklake.images.decode import Decoded
from masklake.images.decoder import decode_apart
from masklake.images.fetch import fetch_by_uri
from masklake.truth.formats import BadTruth, Coding, Truth, TruthImage
from masklake.truth.regions import class_map, masks, size_of

MAX_PIXELS = 100_000_000

MEND = "mend it, or give --bad-examples skip"

Size = tuple[int, int]
"""Height, width in pixels."""


class BadExample(MasklakeError):
    """An example that cannot be learned from: the image cannot be read, or its truth contradicts itself or the image."""


@dataclass(frozen=True)
class Example:
    """`image` is the URI; `shown` are the label ids of what is on it: one for each object, or, in semantic work, for each class."""

    image: str
    truth: TruthImage
    shown: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Sample:
    """A loaded example. Pixels that no mask covers have no truth. Where masks overlap, a later one lies over an earlier one."""

    pixels: NDArray[np.uint8]
    """[H, W, 3], RGB, upright."""
    masks: NDArray[np.bool_]
    """[n, H, W]; none is empty."""
    label_ids: NDArray[np.int64]
    """[n]"""
    crowd: NDArray[np.bool_]
    """[n]: stands for several things that are not told apart; not learned from as an object."""


@dataclass(frozen=True)
class Reader:
    """How a data set's examples are read: `meaning` gives a category of truth its label id; `by_class`: for semantic work alone, with one
    mask for each class.
    """

    coding: Coding
    meaning: Mapping[int, int]
    by_class: bool = False

    def load(self, example: Example) -> Sample:
        """Read the image and what is true of it.

        Raises:
            BadExample: the image or the truth cannot be read, or they differ in size.
        """
        image = load_image(example.image)
        height, width = size = image.pixels.shape[:2]
        try:
            found = self.coding.read(example.truth.in_image((height, width)))
        except BadTruth as error:
            raise BadExample(str(error)) from None
        if size_of(found) != size:
            of = example.truth.pictures[0] if example.truth.pictures else "the ground truth"
            raise BadExample(f"{example.image}: the image has (height, width) {size}, and {of} {size_of(found)}")
        if self.by_class:
            return Sample(image.pixels, *by_label(class_map(found, self.meaning)))
        stacked, labels, crowd = masks(found, self.meaning)
        kept = stacked.any(axis=(1, 2)) if len(stacked) else np.zeros(0, np.bool_)
        return Sample(image.pixels, stacked[kept], labels[kept], crowd[kept])


def load_image(uri: str) -> Decoded:
    """The image of an example.

    Raises:
        BadExample: it cannot be read.
    """
    content = fetch_by_uri(uri)
    image = content if isinstance(content, ImageFailure) else decode_apart(content, MAX_PIXELS)
    if isinstance(image, ImageFailure):
        raise BadExample(f"{uri}: {image.message}")
    return image


def by_label(labels: NDArray[np.int32]) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.bool_]]:
    """A map of labels [H, W], negative where there is none, as a mask for each label: masks, label ids, no crowds."""
    present = np.unique(labels[labels >= 0]).astype(np.int64)
    return labels[None] == present[:, None, None], present, np.zeros(len(present), np.bool_)


@dataclass(frozen=True)
class DataSet:
    """Examples with one set of labels, ids from 0 on."""

    labels: Mapping[int, str]
    thing_ids: frozenset[int]
    examples: tuple[Example, ...]
    reader: Reader
    truth: Truth
    """What it was read from, without the images."""
    read_as: str
    """What that is, as a sentence for the user."""
    skipped: Mapping[str, int]
    """Why something was left out -> how often."""

    @property
    def counts(self) -> Mapping[int, int]:
        """Label id -> how many of the examples show it."""
        return count_labels(self.examples)

    @property
    def source(self) -> str:
        """What it is, for the model card."""
        return f"{self.truth.format}, {self.truth.uri}"


def count_labels(examples: Sequence[Example]) -> dict[int, int]:
    """Label id -> how many of the examples show it."""
    return dict(sorted(Counter(label for example in examples for label in set(example.shown)).items()))
