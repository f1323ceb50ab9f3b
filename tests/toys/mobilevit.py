"""MobileViT. Its place: masklake/inference/; its line: an entry of FAMILIES."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from masklake.inference.families import Answer, ClassMap, Family

if TYPE_CHECKING:
    import torch


class MobileViT(Family):
    """It was trained on BGR."""

    def run(self, module: Any, pixel_values: torch.Tensor, tasks: Sequence[str]) -> dict[str, Answer]:
        """Answer a batch for each of `tasks`."""
        answer = ClassMap(module(pixel_values=pixel_values.flip(1)).logits)
        return dict.fromkeys(tasks, answer)


FAMILY = MobileViT("MobileViTForSemanticSegmentation", "Segformer", head="segmentation_head.classifier.convolution", divisor=32)
