"""Small data sets in every format that is learned from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from masklake.training.settings import SourceConfig

CATEGORIES = [
    {"id": 17, "name": "cat", "isthing": 1},
    {"id": 3, "name": "car", "isthing": 1},
    {"id": 119, "name": "sky", "isthing": 0},
]
"""In the order of their ids: car, cat, sky."""


def image(path: Path, height: int, width: int, seed: int = 0) -> None:
    """A picture of noise, without loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)).save(path)


def ids_png(path: Path, ids: NDArray[Any]) -> None:
    """A panoptic PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)).save(path)


def panoptic(folder: Path, ids: NDArray[Any], segments: list[dict[str, int]]) -> SourceConfig:
    """One image with its panoptic truth."""
    height, width = ids.shape
    image(folder / "images" / "a.png", height, width)
    ids_png(folder / "panoptic" / "a.png", ids)
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": height, "width": width}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
        "categories": CATEGORIES,
    }
    (folder / "panoptic.json").write_text(json.dumps(content))
    return config(folder, "coco-panoptic", folder / "panoptic.json")


def instances(folder: Path, size: tuple[int, int], annotations: list[dict[str, Any]]) -> SourceConfig:
    """Two images, the second without annotations."""
    height, width = size
    for name in ("a.png", "b.png"):
        image(folder / "images" / name, height, width)
    content = {
        "images": [{"id": i, "file_name": name, "height": height, "width": width} for i, name in enumerate(("a.png", "b.png"), 1)],
        "annotations": [{"id": i, "image_id": 1, **each} for i, each in enumerate(annotations)],
        "categories": CATEGORIES,
    }
    (folder / "instances.json").write_text(json.dumps(content))
    return config(folder, "coco-instances", folder / "instances.json")


def label_maps(folder: Path, maps: dict[str, NDArray[np.uint8]], labels: Any, **settings: Any) -> SourceConfig:
    """An image for each map."""
    for name, values in maps.items():
        image(folder / "images" / f"{name}.png", *values.shape)
        path = folder / "masks" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)
    (folder / "labels.json").write_text(json.dumps(labels))
    return config(folder, "label-maps", folder / "masks", labels=str(folder / "labels.json"), **settings)


def config(folder: Path, format_: str, truth: Path, **settings: Any) -> SourceConfig:
    """Settings that read this folder's images, and hold out nothing."""
    given = {"images": str(folder / "images"), "validation_share": 0.0, **settings}
    return SourceConfig(format=format_, truth=str(truth), **given)
