"""What both peers do with a batch of images: transformers' processor, model and post-processing, and pycocotools run lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from transformers import AutoImageProcessor, AutoModelForUniversalSegmentation


class TransformersAnswer:
    """A checkpoint behind transformers' own panoptic post-processing."""

    def __init__(self, model: str) -> None:
        self.processor = AutoImageProcessor.from_pretrained(model)
        self.model = AutoModelForUniversalSegmentation.from_pretrained(model).eval()

    @torch.inference_mode()
    def __call__(self, images: list[Image.Image]) -> list[list[dict[str, Any]]]:
        """The segments of each image, with masks as COCO run lengths."""
        inputs = self.processor(images=images, return_tensors="pt")
        outputs = self.model(**inputs)
        sizes = [(image.height, image.width) for image in images]
        answers = self.processor.post_process_panoptic_segmentation(outputs, target_sizes=sizes, label_ids_to_fuse={0, 1, 2})
        return [_segments(answer) for answer in answers]


def _segments(answer: dict[str, Any]) -> list[dict[str, Any]]:
    ids = answer["segmentation"].numpy()
    found = []
    for segment in answer["segments_info"]:
        counts = coco_mask.encode(np.asfortranarray(ids == segment["id"]).astype(np.uint8))
        found.append(
            {
                "segment_id": segment["id"],
                "label_id": segment["label_id"],
                "score": segment["score"],
                "area": int(coco_mask.area(counts)),
                "bbox": [int(x) for x in coco_mask.toBbox(counts)],
                "counts": counts["counts"],
            }
        )
    return found
