"""A picture and what is painted over it, reduced for a page: what galleries and evaluations show of a row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from masklake.pages import rendering
from masklake.pages.names import Name, place
from masklake.table.masks import RGB, is_painted, painting, palette, segment_colours

LONG_SIDE = 960  # of an inlined picture, pixels
ALPHA = 0.45
"""How much colours cover a picture between their edges."""

Size = tuple[int, int]
"""Height, width in pixels."""


@dataclass(frozen=True)
class LegendEntry:
    """One label of one picture: its colour there (RGB, 0..255; None where nothing is painted), the highest score and the number of its
    segments."""

    label: str
    colour: RGB | None
    score: float
    count: int


@dataclass(frozen=True)
class Painting:
    """What lies over a picture: `layer`, uint8 RGBA [H, W, 4], names where they stand, and the legend of both."""

    layer: NDArray[np.uint8]
    legend: tuple[LegendEntry, ...]
    names: tuple[Name, ...] = ()


@dataclass(frozen=True)
class Card:
    """One picture of the gallery: `image`, uint8 [H, W, 3], and what lies over it, of the same size."""

    uri: str
    task: str
    image: NDArray[np.uint8]
    painting: Painting


def card_from(image: NDArray[np.uint8], row: Mapping[str, Any]) -> Card:
    """One row of the table beside its picture, both reduced to at most `LONG_SIDE` pixels.

    Args:
        image: uint8 [H, W, 3], the upright picture, of the row's size or reduced.
        row: `image_uri, task, height, width, segments` of a row with status `ok`.
    """
    small = reduced(image)
    height, width, _ = small.shape
    return Card(row["image_uri"], row["task"], small, paint(row["segments"], (row["height"], row["width"]), (height, width)))


def reduced(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture, uint8 [H, W, 3], of at most `LONG_SIDE` pixels."""
    height, width = reduced_size(image.shape[:2])
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0))


def reduced_size(size: Sequence[int], longest: int = LONG_SIDE) -> Size:
    """What becomes of a picture's (height, width)."""
    scale = min(1.0, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def paint(segments: Sequence[Mapping[str, Any]], size: Size, to: Size, scores: bool = True, alpha: float = ALPHA) -> Painting:
    """Segments of a row over a picture that was reduced from `size` to `to`; full-size masks are decoded one at a time.

    Args:
        segments: as in the table.
        size: of the row.
        to: of the picture that they are painted over.
        scores: whether names say them.
        alpha: how much colours cover between the edges, 0 to 1.
    """
    ids = _reduced_ids(segments, size, to)
    named = {
        segment["segment_id"]: Name(segment["label"], colour, float(segment["score"]) if scores else None)
        for segment, colour in zip(segments, segment_colours(segments), strict=True)
        if is_painted(segment["label"])
    }
    return Painting(painting(segments, ids, alpha), _legend(segments), place(named, ids))


def shot(name: str, shows: str, painting: Painting, image: NDArray[np.uint8] | None = None) -> dict[str, Any]:
    """A picture as the template `picture` takes it.

    Args:
        name: what it is called.
        shows: what is to be seen, for those who do not see it.
        painting: what lies over it.
        image: uint8 [H, W, 3]; None where the element around it has it.
    """
    height, width, _ = painting.layer.shape
    return {
        "name": name,
        "shows": shows,
        "width": width,
        "height": height,
        "image": None if image is None else rendering.photograph(image),
        "layer": rendering.layer(painting.layer),
        "names": painting.names,
    }


def kinds(legends: Sequence[Sequence[LegendEntry]]) -> tuple[list[tuple[str, RGB | None, int]], list[list[int]]]:
    """The labels by which pictures can be chosen: those of all legends, their colours and in how many pictures they are, the most frequent
    first; and of each picture the places of its labels in that list."""
    labels = [{entry.label: entry.colour for entry in legend} for legend in legends]
    colours = {label: colour for each in reversed(labels) for label, colour in each.items()}
    pictures = Counter(label for each in labels for label in each)
    found = sorted(pictures, key=lambda label: (-pictures[label], label))
    places = {label: place for place, label in enumerate(found)}
    return [(label, colours[label], pictures[label]) for label in found], [sorted(places[label] for label in each) for each in labels]


def nearest(size: Size, to: Size) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the pixels that stand for all, as `np.ix_` takes them, where [height, width] `size` is reduced to `to`."""
    rows, columns = ((2 * np.arange(small) + 1) * full // (2 * small) for full, small in zip(size, to, strict=True))
    return rows, columns


def _reduced_ids(segments: Sequence[Mapping[str, Any]], size: Size, to: Size) -> NDArray[np.int32]:
    """`masks.id_map` of masks of [height, width] `size`, made smaller by taking the nearest pixels; of each mask, its box alone."""
    rows, columns = nearest(size, to)
    ids = np.zeros((to[1], to[0]), np.int32)  # by columns, as masks are encoded
    for segment in reversed(segments):
        encoded = {"size": list(size), "counts": segment["counts"]}
        mask, (x, y, width, height) = coco_mask.decode(encoded).T.view(np.bool_), coco_mask.toBbox(encoded)
        across, down = slice(*np.searchsorted(columns.ravel(), (x, x + width))), slice(*np.searchsorted(rows.ravel(), (y, y + height)))
        np.copyto(ids[across, down], segment["segment_id"], where=mask[np.ix_(columns[across], rows[down])])
    return np.ascontiguousarray(ids.T)


def _legend(segments: Sequence[Mapping[str, Any]]) -> tuple[LegendEntry, ...]:
    """One entry per label, in the order of the segments: largest score first."""
    by_label: dict[tuple[int, str], list[float]] = {}
    for segment in segments:
        by_label.setdefault((segment["label_id"], segment["label"]), []).append(float(segment["score"]))
    return tuple(
        LegendEntry(label, palette(label_id) if is_painted(label) else None, max(scores), len(scores))
        for (label_id, label), scores in by_label.items()
    )
