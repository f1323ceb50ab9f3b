"""The answers of a whole batch of images on a GPU: what `postprocess` gives image by image, the same bytes, with few waits.

Whatever is enqueued for one image is enqueued for all, and the host waits for the device a fixed number of times a batch: for class
logits, for the number of runs, for the runs. Run lengths of all segments of all images are made by the same few numpy operations.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray

from masklake.inference import fused, instance, panoptic, semantic
from masklake.inference.fused import Maps
from masklake.inference.geometry import Axis, Geometry, Ints
from masklake.inference.limits import is_lost, is_out_of_memory
from masklake.inference.rle import Encoded, Runs, encode_runs
from masklake.inference.segments import NotFinite, Segment, Settings

Answer = list[Segment] | NotFinite
"""The segments of an image, or why there can be none."""

_log = logging.getLogger(__name__)
_PIXELS_MOST = 1 << 27  # of codes or words that are looked at together


@dataclass(frozen=True)
class Logits:
    """What a model says of images: `classes` [B, Q, K + 1], `masks` [B, Q, hm, wm], and the sizes of each image, [B]."""

    classes: torch.Tensor
    masks: torch.Tensor
    geometries: Sequence[Geometry]

    @cached_property
    def probabilities(self) -> _Probabilities:
        """For all tasks: one copy to the host says both the class logits and whether the mask logits are finite."""
        return _probabilities(self)

    @property
    def finite(self) -> list[int]:
        """The images that can be answered."""
        return [index for index in range(len(self.geometries)) if index not in self.probabilities.failures]

    def is_fused(self, task: str) -> bool:
        """Whether `TASKS[task]` can do it: `postprocess` answers the images one by one where it cannot."""
        for geometry in set(self.geometries):
            axes = geometry.axes(self.masks.shape)
            if not fused.is_usable(self.masks, axes):
                return False
            if task == "semantic" and not fused.is_usable_for_classes(self.masks, axes):
                return False
        return True


@dataclass(frozen=True)
class _Probabilities:
    """Class probabilities [B, Q, K + 1] on the host, and which images have none."""

    values: NDArray[np.float64]
    failures: dict[int, NotFinite]


def panoptic_answers(logits: Logits, settings: Settings) -> list[Answer]:
    """`postprocess.panoptic` of every image."""
    found = {index: panoptic.kept_of(logits.probabilities.values[index], settings) for index in logits.finite}
    kept = {index: queries for index, queries in found.items() if queries.query.size}
    return _in_chunks(logits, kept, {}, lambda images: _panoptic_chunk(logits, images, [kept[index] for index in images], settings))


def instance_answers(logits: Logits, settings: Settings) -> list[Answer]:
    """`postprocess.instance` of every image."""
    found = {index: instance.best_of(logits.probabilities.values[index], settings) for index in logits.finite}
    pairs = {index: best for index, best in found.items() if best.query.size}
    words = {index: -(-len(np.unique(best.query)) // fused.WORD) for index, best in pairs.items()}
    return _in_chunks(logits, pairs, words, lambda images: _instance_chunk(logits, images, [pairs[index] for index in images], settings))


def semantic_answers(logits: Logits, settings: Settings) -> list[Answer]:
    """`postprocess.semantic` of every image."""
    weights = np.ascontiguousarray(logits.probabilities.values[:, :, :-1].astype(np.float32))
    on_device = _to_device(weights, logits.masks.device)
    return _in_chunks(logits, logits.finite, {}, lambda images: _semantic_chunk(logits, images, on_device, settings))


def _in_chunks(
    logits: Logits, images: Iterable[int], planes: dict[int, int], answer: Callable[[list[int]], list[list[Segment]]]
) -> list[Answer]:
    """Every image's answer: of `images` by `answer`, chunk by chunk; others have no segments, or cannot have any."""
    answers: list[Answer] = [logits.probabilities.failures.get(index, []) for index in range(len(logits.geometries))]
    for some in _chunks(logits, list(images), planes):
        for index, segments in zip(some, answer(some), strict=True):
            answers[index] = segments
    return answers


TASKS: dict[str, Callable[[Logits, Settings], list[Answer]]] = {
    "panoptic": panoptic_answers,
    "instance": instance_answers,
    "semantic": semantic_answers,
}


def answered_together(task: str, logits: Logits, settings: Settings) -> list[Answer] | None:
    """The answers of all images for `task`; None where they are to be made one by one: without Triton, or when something went wrong."""
    try:
        return TASKS[task](logits, settings) if logits.is_fused(task) else None
    except fused.Unusable:  # which is logged
        return None
    except Exception as error:
        if is_lost(error):
            raise
        if is_out_of_memory(error):  # one by one they need less
            return None
        # an image may be to blame: it will have to say so itself
        _log.warning("post-processing: a batch is answered image by image, since together: %s: %s", type(error).__name__, error)
        return None


def _probabilities(logits: Logits) -> _Probabilities:
    count = len(logits.geometries)
    classes, masks = logits.classes.detach()[:count], logits.masks.detach()[:count]
    sums = masks.flatten(1).sum(dim=1, dtype=torch.float32)
    host = torch.cat((classes.float().flatten(1), sums[:, None]), dim=1).cpu().numpy()
    values = host[:, :-1].reshape(tuple(classes.shape))
    failures = {}
    for index in np.flatnonzero(~np.isfinite(host).all(axis=1)).tolist():
        if not np.isfinite(values[index]).all():
            failures[index] = NotFinite("the class logits hold NaN or infinity")
        elif not bool(masks[index].isfinite().all()):  # finite logits may overflow a sum
            failures[index] = NotFinite("the mask logits hold NaN or infinity")
    if failures:
        values = values.copy()
        values[list(failures)] = 0
    return _Probabilities(panoptic.softmax(values.astype(np.float64)), failures)


def _chunks(logits: Logits, images: list[int], planes: dict[int, int]) -> Iterator[list[int]]:
    """Images of the same geometry side by side, as many together as memory is for; `planes`: of words of an image, else 1."""
    ordered = sorted(images, key=lambda index: _order(logits.geometries[index]))
    chunk: list[int] = []
    pixels = 0
    for index in ordered:
        height, width = logits.geometries[index].original
        here = height * width * planes.get(index, 1)
        if chunk and pixels + here > _PIXELS_MOST:
            yield chunk
            chunk, pixels = [], 0
        chunk.append(index)
        pixels += here
    if chunk:
        yield chunk


def _order(geometry: Geometry) -> tuple[tuple[int, int], tuple[int, int]]:
    return geometry.original, geometry.resized


def _to_device(values: NDArray[np.generic], device: torch.device) -> torch.Tensor:
    """Without a wait: from page-locked memory."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


@dataclass(frozen=True)
class _Layout:
    """Where each image's maps and codes lie in what all of a chunk share.

    `first` [n + 1]: its first map. `begin` [n + 1]: its first code. `height`, `width` [n].
    """

    first: Ints
    begin: Ints
    height: Ints
    width: Ints

    @classmethod
    def of(cls, geometries: Sequence[Geometry], maps: Sequence[int], between: int = 0) -> _Layout:
        """`maps`: how many each image has; `between`: codes left free after each image."""
        size = np.array([geometry.original for geometry in geometries], np.int64)
        return cls(_ends(np.array(maps, np.int64)), _ends(size[:, 0] * size[:, 1] + between), size[:, 0], size[:, 1])

    @property
    def images(self) -> Ints:
        """The kernels' table."""
        return np.stack((self.first[:-1], np.diff(self.first), self.begin[:-1]), axis=1)


def _ends(sizes: Ints) -> Ints:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(sizes)))


_Three = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _maps(logits: Logits, images: Sequence[int], queries: Sequence[Ints], layout: _Layout) -> _Three:
    """The chosen maps float32 of all images, the kernels' table, and where the second image's codes begin, and so on; one copy."""
    masks = logits.masks.detach()
    index = np.concatenate([query + image * masks.shape[1] for image, query in zip(images, queries, strict=True)])
    packed = _to_device(np.concatenate((layout.images.reshape(-1), index, layout.begin[1:-1])), masks.device)
    table, chosen, bounds = torch.split(packed, [layout.images.size, len(index), len(layout.begin) - 2])
    return fused.lanes_along_rows(masks.flatten(0, 1).index_select(0, chosen).float()), table.view(-1, 3), bounds


def _by_geometry(logits: Logits, images: Sequence[int]) -> Iterator[tuple[slice, tuple[Axis, Axis]]]:
    """Stretches of neighbouring images of one geometry."""
    start = 0
    for geometry, members in groupby(images, key=lambda index: logits.geometries[index]):
        end = start + len(list(members))
        yield slice(start, end), geometry.axes(logits.masks.shape)
        start = end


def _code_type(codes: int) -> torch.dtype:
    """That holds codes below `codes`; torch does little with unsigned types but bytes."""
    return torch.uint8 if codes <= 256 else torch.int16 if codes <= 1 << 15 else torch.int32


@dataclass(frozen=True)
class _CodeRuns:
    """Runs of equal codes of all images; none reaches from one image into another."""

    start: Ints
    code: Ints
    image: Ints
    total: int

    @property
    def length(self) -> Ints:
        return np.diff(self.start, append=self.total)


def _code_runs(
    codes: torch.Tensor, bounds: torch.Tensor, layout: _Layout, more: Sequence[torch.Tensor]
) -> tuple[_CodeRuns, list[NDArray[np.int32]]]:
    """The runs of the flat `codes`, and `more` int32 that is copied along: two waits."""
    change = torch.ones(len(codes), dtype=torch.bool, device=codes.device)
    torch.ne(codes[1:], codes[:-1], out=change[1:])
    change.index_fill_(0, bounds, True)
    starts = change.nonzero()[:, 0]
    host = torch.cat((starts.int(), codes[starts].int(), *more)).cpu().numpy()
    sizes = [len(starts), len(starts), *(len(part) for part in more)]
    start, code, *others = np.split(host, np.cumsum(sizes)[:-1])
    start = start.astype(np.int64)
    runs_before = np.searchsorted(start, layout.begin)
    image = np.repeat(np.arange(len(layout.height)), np.diff(runs_before))
    return _CodeRuns(start, code.astype(np.int64), image, int(layout.begin[-1])), others


def _encode(runs: _CodeRuns, ids: Ints, image_of: Ints, layout: _Layout) -> list[Encoded]:
    """The masks of all images' segments 1.. from the id of each run; `image_of` [segments]."""
    new = np.concatenate((np.ones(1, np.bool_), ids[1:] != ids[:-1]))
    starts, values = runs.start[new], ids[new]
    ends = np.append(starts[1:], runs.total)
    taken = values > 0
    segment = values[taken] - 1
    begin = layout.begin[image_of][segment]
    size = layout.height[image_of], layout.width[image_of]
    return encode_runs(Runs(segment, starts[taken] - begin, ends[taken] - begin), len(image_of), size)


def _panoptic_chunk(logits: Logits, images: Sequence[int], kept: Sequence[panoptic.Kept], settings: Settings) -> list[list[Segment]]:
    geometries = [logits.geometries[index] for index in images]
    layout = _Layout.of(geometries, [len(found.query) for found in kept])
    maps, table, bounds = _maps(logits, images, [found.query for found in kept], layout)
    cost = _to_device(np.concatenate([1 / found.score for found in kept]).astype(np.float32), maps.device)
    most = max(len(found.query) for found in kept)
    codes = torch.empty(int(layout.begin[-1]), dtype=_code_type(2 * most), device=maps.device)
    own = torch.zeros(len(maps), dtype=torch.int64, device=maps.device)
    for members, axes in _by_geometry(logits, images):
        fused.panoptic_codes(Maps(maps, table[members], axes), cost, panoptic.logit(settings.mask_threshold), own, codes)
    runs, (areas,) = _code_runs(codes, bounds, layout, [own.int()])
    code = runs.code + 2 * layout.first[runs.image]
    won = np.bincount(code, weights=runs.length, minlength=2 * len(maps)).astype(np.int64).reshape(-1, 2)
    orders = []
    ids = np.zeros(2 * len(maps), np.int64)
    count = 0
    for place, found in enumerate(kept):
        mine = slice(layout.first[place], layout.first[place + 1])
        area = areas[mine].astype(np.int64)
        order = panoptic.segment_order(won[mine], found, settings, panoptic.OwnAreas(area, area, area.__getitem__))
        ids[2 * mine.start : 2 * mine.stop] = np.where(order.ids > 0, order.ids.astype(np.int64) + count, 0)
        count += len(order.first)
        orders.append(order)
    image_of = np.repeat(np.arange(len(kept)), [len(order.first) for order in orders])
    masks = iter(_encode(runs, ids[code], image_of, layout))
    return [
        panoptic.segments_in(order, found, [next(masks) for _ in order.first], settings) for order, found in zip(orders, kept, strict=True)
    ]


def _instance_chunk(logits: Logits, images: Sequence[int], pairs: Sequence[instance.Pairs], settings: Settings) -> list[list[Segment]]:
    queries = [np.unique(found.query) for found in pairs]
    words_of = [-(-len(query) // fused.WORD) for query in queries]
    owner = np.repeat(np.arange(len(images)), words_of).tolist()  # the image of each word
    maps_of_word = [min(fused.WORD, len(query) - first) for query in queries for first in range(0, len(query), fused.WORD)]
    layout = _Layout.of([logits.geometries[images[image]] for image in owner], maps_of_word, between=1)
    maps, table, _ = _maps(logits, images, queries, layout)
    words = torch.zeros(int(layout.begin[-1]) + 1, dtype=torch.int32, device=maps.device)  # zero before each image and at the end
    sums = torch.zeros(len(maps), dtype=torch.int64, device=maps.device)
    for members, axes in _by_geometry(logits, [images[image] for image in owner]):
        fused.instance_words(Maps(maps, table[members], axes), sums, words[1:])
    change = words[1:] ^ words[:-1]
    position = change.nonzero()[:, 0]
    bit = torch.arange(fused.WORD, dtype=torch.int32, device=maps.device)[:, None]
    edge = ((change[position] >> bit) & 1).nonzero()
    host = torch.cat((edge[:, 0].int(), position[edge[:, 1]].int(), sums.view(torch.int32))).cpu().numpy()
    plane, at = host[: len(edge)], host[len(edge) : 2 * len(edge)].astype(np.int64)
    probability = host[2 * len(edge) :].view(np.int64) * 2.0**-24
    word = np.searchsorted(layout.begin, at[::2], side="right") - 1
    segment = layout.first[word] + plane[::2]
    word_of_map = np.repeat(np.arange(len(maps_of_word)), maps_of_word)
    begin = layout.begin[word]
    size = layout.height[word_of_map], layout.width[word_of_map]
    masks = encode_runs(Runs(segment, at[::2] - begin, at[1::2] - begin), len(maps), size)
    certainty = probability / np.maximum(np.array([mask.area for mask in masks], np.int64), 1)
    ends = _ends(np.array([len(query) for query in queries], np.int64)).tolist()
    return [
        instance.segments_of(found, query, masks[start:end], certainty[start:end], settings)
        for found, query, start, end in zip(pairs, queries, ends, ends[1:], strict=False)
    ]


@lru_cache(maxsize=1024)
def _points(axis: Axis, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(axis.coarse_points[1]).to(device)


def _semantic_chunk(logits: Logits, images: Sequence[int], weights: torch.Tensor, settings: Settings) -> list[list[Segment]]:
    geometries = [logits.geometries[index] for index in images]
    classes = weights.shape[2]
    layout = _Layout.of(geometries, [classes] * len(images))
    device = weights.device
    one = np.stack((np.zeros(len(images), np.int64), layout.images[:, 1], layout.begin[:-1]), axis=1)  # an image's classes are its maps
    packed = _to_device(np.concatenate((one.reshape(-1), layout.begin[1:-1])), device)
    table, bounds = torch.split(packed, [one.size, len(images) - 1])
    table = table.view(-1, 3)
    codes = torch.empty(int(layout.begin[-1]), dtype=_code_type(classes), device=device)
    confidences = torch.empty((len(images), classes, *logits.masks.shape[2:]), device=device)
    labels, certain, shapes = [], [], []
    for place, index in enumerate(images):
        axes = geometries[place].axes(logits.masks.shape)
        maps = logits.masks[index].detach().float()
        values = fused.class_values(maps, weights[index], axes)
        resized = geometries[place].resized
        straight = Geometry(resized, resized, geometries[place].original).axes(resized)
        fused.leading_codes(Maps(values, table[place : place + 1], straight), codes)
        torch.clamp(torch.einsum("qhw,qk->khw", maps.sigmoid(), weights[index]), max=1, out=confidences[place])
        mine = codes[layout.begin[place] : layout.begin[place + 1]].view(int(layout.width[place]), int(layout.height[place]))
        label = mine[_points(axes[1], device)][:, _points(axes[0], device)].T
        shapes.append(tuple(label.shape))
        labels.append(label.reshape(-1).int())
        grid = confidences[place, :, : label.shape[0], : label.shape[1]]
        certain.append(grid.gather(0, label[None].long())[0].reshape(-1).view(torch.int32))
    runs, others = _code_runs(codes, bounds, layout, [*labels, *certain])
    points = [part.reshape(shape) for part, shape in zip(others, shapes, strict=False)]
    known = [part.view(np.float32) for part in others[len(images) :]]
    return _semantic_segments(runs, (points, known), confidences, (geometries, layout), settings)


def _semantic_segments(
    runs: _CodeRuns,
    points: tuple[list[NDArray[np.int32]], list[NDArray[np.float32]]],
    confidences: torch.Tensor,
    sizes: tuple[Sequence[Geometry], _Layout],
    settings: Settings,
) -> list[list[Segment]]:
    """Segments of all images from their runs and, at the coarse points, their classes and these classes' confidences."""
    geometries, layout = sizes
    classes = confidences.shape[1]
    found, first = np.unique(runs.code + runs.image * classes, return_index=True)
    scored, labels = [], []
    for place, geometry in enumerate(geometries):
        mine = slice(*np.searchsorted(found, [place * classes, (place + 1) * classes]).tolist())
        labels.append(found[mine] - place * classes)
        begins = runs.start[first[mine]] - layout.begin[place]
        scored.append(semantic.scored_points(points[0][place], labels[-1], begins, geometry.axes(confidences.shape)))
    looked_up = _look_up(confidences, scored, [len(known) for known in points[1]])
    ids = np.zeros(len(geometries) * classes, np.int64)
    orders = []
    count = 0
    for place, (known, missing) in enumerate(zip(points[1], looked_up, strict=True)):
        order = semantic.segment_order(labels[place], scored[place][2], np.concatenate((known, missing)))
        ids[np.array(order.label) + place * classes] = np.arange(1, len(order.label) + 1) + count
        count += len(order.label)
        orders.append(order)
    image_of = np.repeat(np.arange(len(geometries)), [len(order.label) for order in orders])
    masks = iter(_encode(runs, ids[runs.code + runs.image * classes], image_of, layout))
    return [semantic.segments_in(order, [next(masks) for _ in order.label], settings) for order in orders]


def _look_up(confidences: torch.Tensor, scored: Sequence[tuple[Ints, Ints, Ints]], known: Sequence[int]) -> list[NDArray[np.float32]]:
    """Confidences at the scored points of each image after the first `known`: of small segments, none in most images."""
    extra = [np.stack((np.full(len(row) - have, place), label[have:], row[have:], column[have:]))
             for place, ((row, column, label), have) in enumerate(zip(scored, known, strict=True))]  # fmt: skip
    index = np.concatenate(extra, axis=1)
    if not index.shape[1]:
        return [np.zeros(0, np.float32) for _ in scored]
    image, label, row, column = _to_device(np.ascontiguousarray(index), confidences.device)
    values = confidences[image, label, row, column].cpu().numpy()
    return np.split(values, np.cumsum([part.shape[1] for part in extra])[:-1])
