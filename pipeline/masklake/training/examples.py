"""Examples to learn from: which image, and where its truth is; loaded as pixels with masks.

An `Example` is small and travels; `load` reads it. Nothing here knows the model, torch or Ray.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from masklake import storage
from masklake.errors import ImageFailure, MasklakeError
from masklake.images.decode import decode
from masklake.images.fetch import fetch_by_uri

MAX_PIXELS = 100_000_000

Size = tuple[int, int]
"""Height, width in pixels."""


class BadExample(MasklakeError):
    """An example that cannot be learned from: the image cannot be read, or its truth contradicts itself or the image."""


@dataclass(frozen=True)
class PanopticPng:
    """COCO's panoptic format: `segments` are (id in the PNG, label id, crowd)."""

    uri: str
    segments: tuple[tuple[int, int, bool], ...]


@dataclass(frozen=True)
class LabelMap:
    """A single-channel PNG; `values` are (pixel value, label id), and every other value but `ignored` is an error."""

    uri: str
    values: tuple[tuple[int, int], ...]
    ignored: frozenset[int]
    shown: tuple[int, ...] = ()
    """The label ids that it is known to show."""


@dataclass(frozen=True)
class Runs:
    """Masks as COCO's compressed run lengths; `segments` are (counts, label id, crowd). They may overlap."""

    size: Size
    segments: tuple[tuple[bytes, int, bool], ...]


Truth = PanopticPng | LabelMap | Runs


@dataclass(frozen=True)
class Example:
    image: str
    """The image's URI."""
    truth: Truth

    def relabelled(self, new_ids: Mapping[int, int]) -> Example:
        """The same with other label ids; segments of labels that have none are left out (of a label map: ignored)."""
        truth = self.truth
        if isinstance(truth, LabelMap):
            kept = tuple((value, new_ids[label]) for value, label in truth.values if label in new_ids)
            dropped = frozenset(value for value, label in truth.values if label not in new_ids)
            shown = tuple(new_ids[label] for label in truth.shown if label in new_ids)
            return replace(self, truth=replace(truth, values=kept, ignored=truth.ignored | dropped, shown=shown))
        if isinstance(truth, PanopticPng):
            # an id of a label that is left out stays known, as -1: it is no mistake of the PNG
            segments = tuple((id_, new_ids.get(label, -1), crowd) for id_, label, crowd in truth.segments)
            return replace(self, truth=replace(truth, segments=segments))
        runs = tuple((counts, new_ids[label], crowd) for counts, label, crowd in truth.segments if label in new_ids)
        return replace(self, truth=replace(truth, segments=runs))


@dataclass(frozen=True)
class DataSet:
    """Examples with one set of labels, ids from 0 on."""

    labels: Mapping[int, str]
    thing_ids: frozenset[int]
    examples: tuple[Example, ...]
    counts: Mapping[int, int]
    """Label id -> how many of the examples show it."""
    skipped: Mapping[str, int]
    """Why something was left out -> how often."""
    source: str = ""
    """What it is, for the model card."""


@dataclass(frozen=True, eq=False)
class Sample:
    """A loaded example. Pixels that no mask covers have no truth."""

    pixels: NDArray[np.uint8]
    """[H, W, 3], RGB, upright."""
    masks: NDArray[np.bool_]
    """[n, H, W]; none is empty."""
    label_ids: NDArray[np.int64]
    """[n]"""
    crowd: NDArray[np.bool_]
    """[n]: stands for several things that are not told apart; not learned from."""


def load(example: Example) -> Sample:
    """Read the image and its truth.

    Raises:
        BadExample: the image or the truth cannot be read, they differ in size, or an id of the map is not explained.
    """
    content = fetch_by_uri(example.image)
    image = content if isinstance(content, ImageFailure) else decode(content, MAX_PIXELS)
    if isinstance(image, ImageFailure):
        raise BadExample(f"{example.image}: {image.message}")
    height, width = image.pixels.shape[:2]
    masks, labels, crowd = _read_truth(example, (height, width))
    kept = masks.any(axis=(1, 2)) if len(masks) else np.zeros(0, np.bool_)
    return Sample(image.pixels, masks[kept], labels[kept], crowd[kept])


def _read_truth(example: Example, size: Size) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.bool_]]:
    truth = example.truth
    if isinstance(truth, Runs):
        _check_size(truth.size, size, example.image, "its annotations")
        encoded = [{"size": list(size), "counts": counts} for counts, _, _ in truth.segments]
        masks = coco_mask.decode(encoded).transpose(2, 0, 1).astype(np.bool_) if encoded else np.zeros((0, *size), np.bool_)
        return _arrays(masks, [(label, crowd) for _, label, crowd in truth.segments])
    if isinstance(truth, PanopticPng):
        ids = panoptic_ids(_read_png(truth.uri), truth.uri)
        _check_size(ids.shape, size, example.image, truth.uri)
        unknown = set(np.unique(ids).tolist()) - {id_ for id_, _, _ in truth.segments} - {0}
        if unknown:
            raise BadExample(f"{truth.uri}: the ids {sorted(unknown)[:5]} are in the PNG but not among its segments in the JSON")
        segments = [(id_, label, crowd) for id_, label, crowd in truth.segments if label >= 0]
        wanted = np.array([id_ for id_, _, _ in segments], np.int64)
        return _arrays(ids[None] == wanted[:, None, None], [(label, crowd) for _, label, crowd in segments])
    values = label_values(_read_png(truth.uri), truth.uri)
    _check_size(values.shape, size, example.image, truth.uri)
    check_values(np.unique(values).tolist(), truth)
    return _masks_by_label(values, truth)


def _masks_by_label(values: NDArray[np.int64], truth: LabelMap) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.bool_]]:
    """One mask per label, of all the values that mean it."""
    labels = sorted({label for _, label in truth.values})
    masks = np.zeros((len(labels), *values.shape), np.bool_)
    for index, label in enumerate(labels):
        masks[index] = np.isin(values, [value for value, meant in truth.values if meant == label])
    return _arrays(masks, [(label, False) for label in labels])


def check_values(found: Sequence[int], truth: LabelMap) -> None:
    """Raise `BadExample` for values of a label map that mean nothing."""
    unknown = set(found) - {value for value, _ in truth.values} - truth.ignored
    if unknown:
        ignored = ", ".join(str(value) for value in sorted(truth.ignored)[:5]) or "none"
        raise BadExample(f"{truth.uri}: the values {sorted(unknown)[:5]} have no label and are not ignored (ignored: {ignored})")


def panoptic_ids(image: Image.Image, uri: str) -> NDArray[np.int64]:
    """Segment id of each pixel, R + 256 G + 256^2 B: int64 [H, W]."""
    if image.mode not in ("RGB", "RGBA"):
        raise BadExample(f"{uri}: a panoptic PNG has three channels, this one has the mode {image.mode}")
    channels = np.asarray(image.convert("RGB"), np.int64)
    ids: NDArray[np.int64] = channels[..., 0] + 256 * channels[..., 1] + 65536 * channels[..., 2]
    return ids


def label_values(image: Image.Image, uri: str) -> NDArray[np.int64]:
    """Value of each pixel of a label map, the palette's index where it has one: int64 [H, W]."""
    if image.mode not in ("L", "P", "I", "I;16", "1"):
        raise BadExample(f"{uri}: a label map has one channel, this one has the mode {image.mode}")
    return np.asarray(image, np.int64)


def _read_png(uri: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(storage.read_bytes(uri)))
        image.load()
    except storage.StorageError as error:
        raise BadExample(f"{uri}: {error}") from None
    except Exception as error:  # decoders raise whatever they like on bad data
        raise BadExample(f"{uri}: cannot be read as an image: {error}") from None
    return image


def read_label_map(uri: str) -> NDArray[np.int64]:
    """The values of a label map, int64 [H, W].

    Raises:
        BadExample: it cannot be read, or has several channels.
    """
    return label_values(_read_png(uri), uri)


def _check_size(truth: tuple[int, ...], image: Size, name: str, of: str) -> None:
    if tuple(truth) != image:
        raise BadExample(f"{name}: the image has (height, width) {image}, and {of} {tuple(truth)}")


def _arrays(
    masks: NDArray[np.bool_], segments: Sequence[tuple[int, bool]]
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.bool_]]:
    return masks, np.array([label for label, _ in segments], np.int64), np.array([crowd for _, crowd in segments], np.bool_)


def labels_of(example: Example) -> tuple[int, ...]:
    """The label ids that an example is known to show, crowd regions left out."""
    truth = example.truth
    if isinstance(truth, LabelMap):
        return truth.shown
    return tuple(label for _, label, crowd in truth.segments if not crowd and label >= 0)


def count_labels(examples: Sequence[Example]) -> dict[int, int]:
    """Label id -> how many of the examples show it."""
    return dict(sorted(Counter(label for example in examples for label in set(labels_of(example))).items()))
