"""One image's truth as what is asked of it: an id map, a class map, instances, or masks to learn from. Run wherever the image is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from masklake.inference.rle import encode_ids
from masklake.quality.instance import TrueInstance
from masklake.quality.semantic import NONE
from masklake.truth.classes import Classes
from masklake.truth.formats import BACKGROUND_ID, Drawing, Drawn, Painted, Region, Size

Meaning = Mapping[int, int | None]
"""Category of truth -> class; None, or absent: what does not count."""


@dataclass(frozen=True)
class Regions:
    """`ids` int32 [H, W], 0 where nothing is judged; `labels` gives each id its class; `crowds` are the ids of crowds."""

    ids: NDArray[np.int32]
    labels: Mapping[int, int]
    crowds: frozenset[int]


def size_of(found: Painted | Drawn) -> Size:
    """Height and width of the image."""
    if isinstance(found, Drawn):
        return found.size
    height, width = found.ids.shape
    return height, width


def regions(found: Painted | Drawn, classes: Classes) -> Regions:
    """A panoptic truth. Stuff of several categories that are one class becomes one segment; what is not judged becomes void."""
    truth = _seen(_flat(found))
    new_id: dict[int, int] = {}
    labels: dict[int, int] = {}
    crowds: set[int] = set()
    shared = _mixed_stuff(truth, classes)
    for place, segment in enumerate(truth.segments, 1):
        index = classes.of_category.get(segment.category_id)
        if index is None:
            continue
        new_id[place] = place
        if index in shared and not segment.crowd:
            new_id[place] = shared[index] = shared[index] or place
        labels[new_id[place]] = index
        if segment.crowd:
            crowds.add(place)
    table = np.array([0, *(new_id.get(place, 0) for place in range(1, len(truth.segments) + 1))], np.int32)
    return Regions(table[truth.ids], labels, frozenset(crowds))


def _mixed_stuff(truth: Painted, classes: Classes) -> dict[int, int]:
    """Classes of stuff of which the image has segments of several categories; each with 0, the place for the id that they share."""
    seen: defaultdict[int, set[int]] = defaultdict(set)
    for segment in truth.segments:
        index = classes.of_category.get(segment.category_id)
        if index is not None and not classes.judged[index].isthing:
            seen[index].add(segment.category_id)
    return {index: 0 for index, categories in seen.items() if len(categories) > 1}


def classes_of_ids(ids: NDArray[np.int32], labels: Mapping[int, int]) -> NDArray[np.int32]:
    """The class of every pixel of an id map, `NONE` where its id has none: int32 [H, W]."""
    table = np.zeros(
        int(ids.max(initial=0)) + 1, np.int32
    )  # memory that is touched where ids are; sorting the pixels would take far longer
    for segment_id, index in labels.items():
        table[segment_id] = index - NONE
    return table[ids] + np.int32(NONE)


def class_map(found: Painted | Drawn, meaning: Meaning) -> NDArray[np.int32]:
    """The class of every pixel, int32 [H, W], `NONE` where it does not count. Crowds are of their class; masks lie over each other as in
    `over`."""
    if isinstance(found, Painted):
        table = np.array([NONE, *(_index(meaning, segment.category_id) for segment in found.segments)], np.int32)
        return table[found.ids]
    painted = np.full(found.size, _index(meaning, BACKGROUND_ID), np.int32)
    for each in over(found):
        painted[coco_mask.decode(each.mask).view(np.bool_)] = _index(meaning, each.category_id)
    return painted


def _index(meaning: Meaning, category_id: int) -> int:
    index = meaning.get(category_id)
    return NONE if index is None else index


def over(found: Drawn) -> list[Drawing]:
    """The objects as they lie over each other, the lowest first: crowds below the others, and smaller ones on top of larger ones."""
    return sorted(found.objects, key=lambda each: (not each.crowd, -each.area))


def _seen(truth: Painted) -> Painted:
    """Without segments that have no pixel."""
    areas = np.bincount(truth.ids.ravel(), minlength=len(truth.segments) + 1)[1:]
    seen = np.flatnonzero(areas)
    if len(seen) == len(truth.segments):
        return truth
    table = np.zeros(len(truth.segments) + 1, np.int32)
    table[seen + 1] = np.arange(1, len(seen) + 1)
    return Painted(table[truth.ids], tuple(truth.segments[place] for place in seen))


def _flat(found: Painted | Drawn) -> Painted:
    """Without overlaps."""
    if isinstance(found, Painted):
        return found
    ids = np.zeros(found.size, np.int32)
    lying = over(found)
    for place, each in enumerate(lying, 1):
        ids[coco_mask.decode(each.mask).view(np.bool_)] = place
    return Painted(ids, tuple(Region(each.category_id, each.crowd) for each in lying))


def instances(found: Painted | Drawn, classes: Classes) -> list[TrueInstance]:
    """The instances that are judged, crowds among them."""
    drawings = found.objects if isinstance(found, Drawn) else _drawings(found)
    of_class = ((classes.of_category.get(each.category_id), each) for each in drawings)
    return [TrueInstance(index, each.mask, each.area, each.crowd) for index, each in of_class if index is not None]


def _drawings(found: Painted) -> list[Drawing]:
    """The segments of an id map as objects."""
    encoded = encode_ids(np.ascontiguousarray(found.ids.T), len(found.segments))
    size = list(found.ids.shape)
    pairs = zip(found.segments, encoded, strict=True)
    return [
        Drawing(segment.category_id, {"size": size, "counts": each.counts}, float(each.area), segment.crowd)
        for segment, each in pairs
        if each.area
    ]


def masks(found: Painted | Drawn, meaning: Meaning) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.bool_]]:
    """The segments of classes that count: masks [n, H, W], classes [n], whether each is a crowd [n]; as they lie, the lowest first."""
    if isinstance(found, Painted):
        kept = [(place, each) for place, each in enumerate(found.segments, 1) if meaning.get(each.category_id) is not None]
        wanted = np.array([place for place, _ in kept], np.int32)
        stacked = found.ids[None] == wanted[:, None, None]
        return stacked, *_facts(meaning, [each for _, each in kept])
    lying = [each for each in over(found) if meaning.get(each.category_id) is not None]
    if not lying:
        return np.zeros((0, *found.size), np.bool_), *_facts(meaning, [])
    decoded = coco_mask.decode([each.mask for each in lying]).transpose(2, 0, 1).view(np.bool_)
    return np.ascontiguousarray(decoded), *_facts(meaning, lying)


def _facts(meaning: Meaning, segments: Sequence[Region | Drawing]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    classes = np.array([meaning[each.category_id] for each in segments], np.int64)
    return classes, np.array([each.crowd for each in segments], np.bool_)
