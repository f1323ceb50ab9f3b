"""What transformers' own `post_process_*_segmentation` answers, as segments: to compare with, not to rely on.

Its functions run as they are, with the thresholds that the user set and else their own defaults. Their answer is an id map, so instances
cannot overlap; a semantic class has no score there and gets 1.
"""

from __future__ import annotations

import importlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from masklake.inference import rle
from masklake.inference.families import FAMILIES, Answer, ClassMap, Found
from masklake.inference.segments import NotFinite, Segment

if TYPE_CHECKING:
    from masklake.inference.checkpoint import ModelDescription

_THRESHOLDS = {
    "panoptic": {"object_threshold": "threshold", "overlap_threshold": "overlap_mask_area_threshold"},
    "instance": {"score_threshold": "threshold"},
}


def segments(description: ModelDescription, answer: Answer, row: int, task: str, size: tuple[int, int]) -> list[Segment]:
    """transformers' segments of one image of `size` (height, width).

    Raises:
        NotFinite: the logits hold NaN or infinity.
    """
    assert not isinstance(answer, Found), "refused when the checkpoint was described"
    tensors = (answer.logits,) if isinstance(answer, ClassMap) else (answer.class_logits, answer.mask_logits)
    if not all(bool(torch.isfinite(tensor[row]).all()) for tensor in tensors):
        raise NotFinite("the model answered NaN or infinity")
    family = FAMILIES[description.family]
    processor = _processor(family.processor)
    outputs = family.hf_outputs(answer, row)
    if isinstance(answer, ClassMap):
        resized = torch.nn.functional.interpolate(outputs.logits, size=size, mode="bilinear", align_corners=False)
        return _of_semantic(resized[0].argmax(dim=0), description)
    arguments: dict[str, Any] = {"target_sizes": [size]}
    if family.processor == "Eomt":
        side = description.frame.square
        arguments["size"] = {"shortest_edge": side, "longest_edge": side}
    if task == "semantic":
        return _of_semantic(processor.post_process_semantic_segmentation(outputs, **arguments)[0], description)
    for ours, theirs in _THRESHOLDS[task].items():
        if ours in description.asked:
            arguments[theirs] = description.asked[ours]
    if task == "panoptic" and family.processor != "Eomt":
        arguments["label_ids_to_fuse"] = set()  # their default, given to spare a warning for each image
    result = getattr(processor, f"post_process_{task}_segmentation")(outputs, **arguments)[0]
    found = {int(info["id"]): (int(info["label_id"]), float(info["score"])) for info in reversed(result["segments_info"])}
    return _segments(result["segmentation"], found, description)


def _of_semantic(classes: torch.Tensor, description: ModelDescription) -> list[Segment]:
    return _segments(classes, {int(label_id): (int(label_id), 1.0) for label_id in np.unique(classes.cpu().numpy())}, description)


def _segments(ids: torch.Tensor, found: dict[int, tuple[int, float]], description: ModelDescription) -> list[Segment]:
    """Segments of an id map [H, W], largest score first; ids that hold no pixel are left out."""
    pixels = ids.cpu().numpy()
    order = sorted(found, key=lambda key: (-found[key][1], key))
    result: list[Segment] = []
    for key in order:
        encoded = rle.encode_mask(np.equal(pixels, key))
        if encoded.area == 0:
            continue
        label_id, score = found[key]
        result.append(
            Segment(
                segment_id=len(result) + 1,
                label_id=label_id,
                label=description.labels[label_id],
                isthing=label_id in description.thing_ids,
                score=score,
                area=encoded.area,
                bbox=encoded.bbox,
                counts=encoded.counts,
            )
        )
    return result


class _TorchvisionResize:
    """The one function of torchvision.transforms.v2.functional that OneFormer's PIL processor calls, with the same arithmetic."""

    class InterpolationMode:
        """Only what is asked for."""

        BILINEAR = "bilinear"

    @staticmethod
    def resize(image: torch.Tensor, size: tuple[int, int], interpolation: str) -> torch.Tensor:
        """Bilinear with antialiasing, which is torchvision's default."""
        return torch.nn.functional.interpolate(image, size=tuple(size), mode=interpolation, align_corners=False, antialias=True)


@lru_cache
def _processor(name: str) -> Any:
    """transformers' PIL image processor, whose post-processing does not depend on what else is installed."""
    folder = {"Mask2Former": "mask2former", "MaskFormer": "maskformer", "OneFormer": "oneformer", "Detr": "detr", "Eomt": "eomt"}.get(name)
    if folder is None:
        return None
    module: Any = importlib.import_module(f"transformers.models.{folder}.image_processing_pil_{folder}")
    if name == "OneFormer" and not hasattr(module, "tvF"):
        module.tvF = _TorchvisionResize  # its panoptic function calls torchvision's resize even where torchvision is absent
    processor = getattr(module, f"{name}ImageProcessorPil")()
    if name == "OneFormer":
        processor.class_info_file = ""  # named, it would be fetched from a hub repository; its instance function only looks into the name
    return processor
