"""Logits of ONE image -> segments at its original size: the original papers' algorithms, exactly.

Every function takes torch tensors of any floating type, on the CPU or an accelerator (computed in float32 there; class
probabilities in float64 on the host), and raises `NotFinite` for NaN or infinite logits. The answer is that of computing every
pixel in float32; pixels whose competing values agree to within float32 rounding (about 1e-6 in a logit) may fall either way.

On the CPU the work is done cell by cell (`cells`), on an accelerator, and for images not larger than a few of their logits' pixels,
pixel by pixel (`dense`). A GPU answers the images of a batch together where it can (`batched`), with the same bytes; what a model finds of
concepts, and maps of class logits, have no kernel and are answered image by image everywhere.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from masklake.inference import dense
from masklake.inference.family import Found
from masklake.inference.geometry import Geometry
from masklake.inference.instance import Pairs, best_pairs, instance_cells, masks_cells, segments_of
from masklake.inference.panoptic import kept_queries, panoptic_cells, softmax
from masklake.inference.segments import NotFinite, Segment, Settings
from masklake.inference.semantic import map_cells, map_geometry, semantic_cells

__all__ = ["Geometry", "NotFinite", "Segment", "Settings", "concepts", "instance", "panoptic", "semantic", "semantic_from_map"]

_log = logging.getLogger(__name__)
_PIXELS_PER_CELL = 4  # below, bounds cost more than the pixels


def panoptic(class_logits: torch.Tensor, mask_logits: torch.Tensor, geometry: Geometry, settings: Settings) -> list[Segment]:
    """Panoptic segments; they never overlap, pixels may stay void.

    `class_logits` [Q, K + 1], the last column being "no object"; `mask_logits` [Q, hm, wm] over the padded input. The score is the
    query's class probability; a stuff segment merged from several queries has the largest of theirs. At equal products of score
    and probability a pixel goes to the first query; below a logit of -88 probabilities count as 0, as float32 has them.
    """
    logits = _host(class_logits)
    _check(logits, mask_logits)
    kept = kept_queries(logits, settings)
    if not kept.query.size:
        return []
    maps = _chosen(mask_logits, kept.query)
    if _by_cells(maps, geometry):
        return panoptic_cells(maps.numpy(), kept, geometry, settings)
    return dense.panoptic_dense(maps, kept, geometry, settings)


def instance(class_logits: torch.Tensor, mask_logits: torch.Tensor, geometry: Geometry, settings: Settings) -> list[Segment]:
    """Instances of thing classes; masks may overlap. Arguments as for `panoptic`; empty masks are left out."""
    logits = _host(class_logits)
    _check(logits, mask_logits)
    pairs = best_pairs(logits, settings)
    if not pairs.query.size:
        return []
    maps = _chosen(mask_logits, np.unique(pairs.query))
    if _by_cells(maps, geometry):
        return instance_cells(maps.numpy(), pairs, geometry, settings)
    return dense.instance_dense(maps, pairs, geometry, settings)


def concepts(found: Mapping[int, Found], geometry: Geometry, settings: Settings) -> list[Segment]:
    """Instances of the concepts of one image, by label id; masks may overlap, empty ones are left out.

    As SAM 3's own processor (facebookresearch/sam3, `Sam3Processor`): the logits go to the original size by one bilinear resize, and the
    mask is where they are above 0. The score is that of the query, not weighed by its mask. Of each concept the best `max_instances`
    count: an answer does not depend on which others are looked for.
    """
    best = {label_id: np.argsort(-each.score, kind="stable")[: settings.max_instances] for label_id, each in found.items()}
    maps = torch.cat([each.mask_logits[torch.from_numpy(best[label_id]).to(each.mask_logits.device)] for label_id, each in found.items()])
    if not all(bool(each.finite.all()) for each in found.values()):
        raise NotFinite("the model answered NaN or infinity")
    if not len(maps):
        return []
    maps = maps.detach().float()
    label = np.repeat(np.array([*found], np.int64), [len(best[label_id]) for label_id in found])
    pairs = Pairs(np.arange(len(maps)), label, np.concatenate([each.score[best[label_id]] for label_id, each in found.items()]))
    coarse = (maps.shape[1], maps.shape[2])
    direct = Geometry(coarse, coarse, geometry.original)
    _say_without_kernel("what is found of concepts", maps.device.type)
    masks = masks_cells(maps.numpy(), direct)[0] if _by_cells(maps, direct) else dense.masks_dense(maps, direct)[0]
    return segments_of(pairs, pairs.query, masks, np.ones(len(maps)), settings)


def semantic(class_logits: torch.Tensor, mask_logits: torch.Tensor, geometry: Geometry, settings: Settings) -> list[Segment]:
    """One segment for each class present; every pixel has one. Arguments as for `panoptic`."""
    logits = _host(class_logits)
    _check(logits, mask_logits)
    weights = np.ascontiguousarray(softmax(logits)[:, :-1].astype(np.float32))
    maps = mask_logits.detach().float()
    if maps.device.type == "cpu":
        return semantic_cells(maps.numpy(), weights, geometry, settings)
    axes = geometry.axes(maps.shape)
    on_device = torch.from_numpy(weights).to(maps.device)
    codes = dense.leading_class(dense.class_values(maps, on_device, axes), geometry.original)
    confidences = torch.einsum("qhw,qk->khw", maps.sigmoid(), on_device).clamp_(max=1)
    return dense.semantic_dense(codes, confidences, axes, settings)


def semantic_from_map(logits: torch.Tensor, geometry: Geometry, settings: Settings) -> list[Segment]:
    """One segment for each class present, from per-pixel class logits [K, h, w] over the padded input; of a single class, where it is."""
    maps = logits.detach().float()
    _check(np.zeros(1), maps)
    if len(maps) == 1:
        return _of_one_label(maps, geometry, settings)
    if maps.device.type == "cpu":
        return map_cells(maps.numpy(), geometry, settings)
    _say_without_kernel("maps of class logits", maps.device.type)
    axes = map_geometry(maps.shape, geometry).axes(maps.shape)
    codes = dense.leading_class(dense.to_padded(maps, axes), geometry.original)
    return dense.semantic_dense(codes, maps.softmax(dim=0), axes, settings)


def _of_one_label(maps: torch.Tensor, geometry: Geometry, settings: Settings) -> list[Segment]:
    """The one label where its probability is 0.5 or more, from its logit [1, h, w]; trained by a binary loss, as transformers' SegFormer.

    That is the first of two classes of which the other one's logit is 0.
    """
    nothing = 1
    two = replace(settings, labels={**settings.labels, nothing: ""})
    found = semantic_from_map(torch.cat((maps, torch.zeros_like(maps))), geometry, two)
    return [replace(segment, segment_id=1) for segment in found if segment.label_id != nothing]


def _host(class_logits: torch.Tensor) -> NDArray[np.float64]:
    logits: NDArray[np.float64] = class_logits.detach().double().cpu().numpy()
    return logits


def _chosen(mask_logits: torch.Tensor, queries: NDArray[np.int64]) -> torch.Tensor:
    index = torch.from_numpy(queries).to(mask_logits.device)
    return mask_logits.detach().index_select(0, index).float()


def _check(class_logits: NDArray[np.float64], mask_logits: torch.Tensor) -> None:
    if not np.isfinite(class_logits).all():
        raise NotFinite("the class logits hold NaN or infinity")
    maps = mask_logits.detach()
    if not bool(maps.sum().isfinite()) and not bool(maps.isfinite().all()):  # a sum is cheap, but finite logits may overflow it
        raise NotFinite("the mask logits hold NaN or infinity")


@cache
def _say_without_kernel(what: str, device: str) -> None:
    """Once in a process: how fast an answer comes should be no riddle."""
    if device != "cpu":
        _log.info("post-processing: there is no kernel for %s, torch's operations do it on %s, image by image", what, device)


def _by_cells(maps: torch.Tensor, geometry: Geometry) -> bool:
    """Whether bounds of cells save work: on the CPU, for images of more than a few pixels per cell."""
    if maps.device.type != "cpu":
        return False
    cells = [len(part.cells.start) for part in geometry.parts(maps.shape)]
    return geometry.original[0] * geometry.original[1] > _PIXELS_PER_CELL * cells[0] * cells[1]
