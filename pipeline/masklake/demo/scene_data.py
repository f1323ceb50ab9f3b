"""Generated scenes as a data set in COCO's panoptic format, for training and validation."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from PIL import Image

from masklake import storage
from masklake.demo.scenes import LABELS, THING_LABEL_IDS, Rendered, jpeg, render, sample_scene


def write_coco_panoptic(folder: str, seeds: Iterable[int], side: int, on_scene: Callable[[int], None] = lambda done: None) -> int:
    """Write `images/*.jpg`, `panoptic/*.png` and, last, `panoptic.json` below `folder`; returns how many scenes there are.

    Args:
        folder: local or in object storage.
        seeds: of the scenes; training takes those from `scenes.FIRST_TRAINING_SEED` up, so that held-out scenes stay unseen.
        side: the shorter side in pixels; scenes keep their own aspect ratios.
        on_scene: called with the number of scenes written so far.
    """
    root = storage.normalise(folder).rstrip("/")
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for seed in seeds:
        rendered = _rendered(seed, side)
        storage.write_bytes(f"{root}/images/{seed}.jpg", jpeg(rendered))
        storage.write_bytes(f"{root}/panoptic/{seed}.png", _id_png(rendered))
        height, width = rendered.ids.shape
        images.append({"id": seed, "file_name": f"{seed}.jpg", "height": height, "width": width})
        annotations.append({"image_id": seed, "file_name": f"{seed}.png", "segments_info": _segments(rendered)})
        on_scene(len(images))
    categories = [{"id": index + 1, "name": label, "isthing": int(index in THING_LABEL_IDS)} for index, label in LABELS.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    storage.write_bytes(f"{root}/panoptic.json", json.dumps(content).encode())
    return len(images)


def _rendered(seed: int, side: int) -> Rendered:
    scene = sample_scene(seed)
    height, width = (round(side * each) for each in scene.extent)
    return render(scene, height, width)


def _id_png(rendered: Rendered) -> bytes:
    file = io.BytesIO()
    channels = np.stack([rendered.ids % 256, rendered.ids // 256 % 256, rendered.ids // 65536], axis=-1)
    Image.fromarray(channels.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def _segments(rendered: Rendered) -> list[dict[str, int]]:
    return [{"id": index, "category_id": label + 1, "iscrowd": 0} for index, label in enumerate(rendered.label_ids, 1)]
