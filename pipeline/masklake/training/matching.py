"""Which query learns which object: the assignment of transformers' losses, for all images of a batch together.

transformers' matchers of Mask2Former, MaskFormer and OneFormer go through a batch image by image and wait for the device at each, in every
layer of the decoder. Here the costs of all images are computed together, by the same formulas, and the host waits once a layer. Assignments
stay scipy's, on each image's own costs. The indices are returned where the model is, so that what they select is not waited for either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch.nn.functional import binary_cross_entropy_with_logits, grid_sample, interpolate
from torch.nn.utils.rnn import pad_sequence

Indices = list[tuple[torch.Tensor, torch.Tensor]]
"""Of each image: queries, ascending, and the object of each, int64."""
Flat = tuple[torch.Tensor, torch.Tensor]
"""Mask logits [N, Q, P] and objects [N, n, P] at the same P places of each image."""

_VALUES_AT_ONCE = 1 << 26  # of sampled logits: some hundred MB with what is made of them
_ALPHA, _GAMMA = 0.25, 2.0  # of the focal loss, as MaskFormer's matcher has them


def together(module: Any) -> None:
    """Let the matchers of a model of transformers match a whole batch at once, in place; other models are left alone."""
    for part in module.modules():
        find = _MATCHERS.get(type(part).__name__)
        if find is not None:
            part.forward = MethodType(find, part)


def _by_points(self: Any, masks: torch.Tensor, classes: torch.Tensor, mask_labels: Any, class_labels: Any) -> Indices:
    """Of Mask2FormerHungarianMatcher."""
    return _match(self, (masks, classes), (mask_labels, class_labels), _sampled, _cross_entropy)


def _by_points_in_float32(self: Any, masks: torch.Tensor, classes: torch.Tensor, mask_labels: Any, class_labels: Any) -> Indices:
    """Of OneFormerHungarianMatcher: masks are compared in float32, under autocast, too."""

    def exact(matcher: Any, masks: torch.Tensor, objects: torch.Tensor) -> Flat:
        logits, targets = _sampled(matcher, masks, objects)
        return logits.float(), targets.float()

    return _match(self, (masks, classes), (mask_labels, class_labels), exact, _cross_entropy, in_float32=True)


def _by_pixels(self: Any, masks: torch.Tensor, classes: torch.Tensor, mask_labels: Any, class_labels: Any) -> Indices:
    """Of MaskFormerHungarianMatcher: at the logits' own pixels."""

    def nearest(matcher: Any, masks: torch.Tensor, objects: torch.Tensor) -> Flat:
        return masks.flatten(2), interpolate(objects, size=masks.shape[-2:], mode="nearest").flatten(2)

    return _match(self, (masks, classes), (mask_labels, class_labels), nearest, _focal)


_MATCHERS: dict[str, Callable[..., Indices]] = {
    "Mask2FormerHungarianMatcher": _by_points,
    "OneFormerHungarianMatcher": _by_points_in_float32,
    "MaskFormerHungarianMatcher": _by_pixels,
}


@torch.no_grad()
def _match(
    matcher: Any,
    logits: tuple[torch.Tensor, torch.Tensor],
    truth: tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]],
    compared_at: Callable[[Any, torch.Tensor, torch.Tensor], Flat],
    mask_cost: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    in_float32: bool = False,
) -> Indices:
    masks, classes = logits
    counts = [len(labels) for labels in truth[1]]
    objects, labels = pad_sequence(list(truth[0]), batch_first=True), pad_sequence(list(truth[1]), batch_first=True)
    if not max(counts):
        nothing = torch.zeros(0, dtype=torch.int64, device=masks.device)
        return [(nothing, nothing) for _ in counts]
    points = getattr(matcher, "num_points", masks.shape[-2] * masks.shape[-1])
    step = max(1, _VALUES_AT_ONCE // (masks.shape[1] * points))
    costs = []
    for first in range(0, len(masks), step):
        some = slice(first, first + step)
        values, targets = compared_at(matcher, masks[some], objects[some].to(masks))
        chosen = labels[some, None].expand(-1, masks.shape[1], -1)
        wrong_class = -classes[some].softmax(-1).gather(2, chosen)
        with torch.autocast(masks.device.type, enabled=torch.is_autocast_enabled(masks.device.type) and not in_float32):
            cost = matcher.cost_mask * mask_cost(values, targets) + matcher.cost_class * wrong_class
            costs.append(cost + matcher.cost_dice * _dice(values, targets))
    return _assigned(torch.cat(costs), counts)


def _assigned(costs: torch.Tensor, counts: Sequence[int]) -> Indices:
    """The cheapest assignment of each image from `costs` [N, Q, n], of which the image's first `counts` columns are objects."""
    largest = torch.finfo(costs.dtype).max
    host = torch.nan_to_num(costs, nan=largest, posinf=largest, neginf=largest).float().cpu().numpy()
    pairs = [linear_sum_assignment(cost[:, :count]) for cost, count in zip(host, counts, strict=True)]
    flat = torch.from_numpy(np.concatenate([np.stack(pair) for pair in pairs], axis=1))
    if costs.is_cuda:
        flat = flat.pin_memory()
    queries, objects = flat.to(costs.device, non_blocking=True)
    sizes = [len(pair[0]) for pair in pairs]
    return list(zip(queries.split(sizes), objects.split(sizes), strict=True))


def _sampled(matcher: Any, masks: torch.Tensor, objects: torch.Tensor) -> Flat:
    """At random points, the same for all masks of an image."""
    places = 2.0 * torch.rand(len(masks), 1, matcher.num_points, 2, device=masks.device) - 1.0
    values, targets = (grid_sample(maps, places, align_corners=False)[:, :, 0] for maps in (masks, objects))
    return values, targets


def _cross_entropy(values: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    points = values.shape[2]
    is_object = binary_cross_entropy_with_logits(values, torch.ones_like(values), reduction="none")
    is_none = binary_cross_entropy_with_logits(values, torch.zeros_like(values), reduction="none")
    return is_object / points @ targets.mT + is_none / points @ (1 - targets).mT


def _focal(values: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    probability = values.sigmoid()
    is_object = (1 - probability) ** _GAMMA * binary_cross_entropy_with_logits(values, torch.ones_like(values), reduction="none")
    is_none = probability**_GAMMA * binary_cross_entropy_with_logits(values, torch.zeros_like(values), reduction="none")
    found: torch.Tensor = ((is_object * _ALPHA) @ targets.mT + (is_none * (1 - _ALPHA)) @ (1 - targets).mT) / values.shape[2]
    return found


def _dice(values: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    probability = values.sigmoid()
    shared = 2 * (probability @ targets.mT)
    return 1 - (shared + 1) / (probability.sum(-1)[:, :, None] + targets.sum(-1)[:, None, :] + 1)
