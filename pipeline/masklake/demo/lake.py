"""A generated lake: scenes as JPEG files in hive-style day folders, and files that no decoder should trust."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
from PIL import Image

from masklake import storage
from masklake.demo import MODEL
from masklake.demo.scenes import HELD_OUT, LABELS, THING_LABEL_IDS, jpeg, photograph

_DAYS = ("2026-11-20", "2026-11-21", "2026-11-22")


def scene_uri(prefix: str, index: int) -> str:
    """Where scene `index` lies: `<prefix>dt=<day>/scene-<index>.jpg`."""
    return f"{prefix}dt={_DAYS[index % len(_DAYS)]}/scene-{index:06d}.jpg"


def scene_seed(index: int) -> int:
    """Scenes of the lake are held-out ones, which no model was trained on; past the held-out range the seeds go on below it."""
    return HELD_OUT[index] if index < len(HELD_OUT) else HELD_OUT[0] - index


def upload_scenes(prefix: str, indices: Iterable[int]) -> None:
    """Generate scenes on all cores and store them."""
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        chosen = list(indices)
        for index, data in zip(chosen, pool.map(_scene_file, chosen, chunksize=16), strict=True):
            storage.write_bytes(scene_uri(prefix, index), data)


def upload_truth(uri: str, prefix: str, indices: Iterable[int]) -> None:
    """Store what the scenes were painted from, as COCO panoptic: a JSON at `uri`, and the PNGs in the folder beside it that has its name.

    Args:
        uri: ends in `.json`.
        prefix: where the scenes lie.
        indices: of the scenes.
    """
    chosen = list(indices)
    names = [scene_uri(prefix, index).removeprefix(prefix) for index in chosen]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        drawn = pool.map(_truth_file, chosen, chunksize=16)
        for index, name, (data, label_ids, (height, width)) in zip(chosen, names, drawn, strict=True):
            picture = name.removesuffix(".jpg") + ".png"
            storage.write_bytes(f"{uri.removesuffix('.json')}/{picture}", data)
            images.append({"id": index, "file_name": name, "height": height, "width": width})
            segments = [{"id": number, "category_id": label_id + 1, "iscrowd": 0} for number, label_id in enumerate(label_ids, 1)]
            annotations.append({"image_id": index, "file_name": picture, "segments_info": segments})
    categories = [{"id": label_id + 1, "name": label, "isthing": int(label_id in THING_LABEL_IDS)} for label_id, label in LABELS.items()]
    storage.write_bytes(uri, json.dumps({"images": images, "annotations": annotations, "categories": categories}).encode())


def upload_model(uri: str) -> None:
    """Store the demo model as a folder of the lake."""
    for path in MODEL.iterdir():
        storage.upload_file(path, f"{uri}/{path.name}")


def upload_broken(prefix: str) -> None:
    """Store the files of `broken_files`, one folder with the first day's scenes."""
    for name, data in broken_files().items():
        storage.write_bytes(f"{prefix}dt={_DAYS[0]}/{name}", data)


def broken_files() -> dict[str, bytes]:
    """Name -> content: a truncated JPEG, an empty file, text called .jpg, and a PNG that claims 60,000 x 60,000 pixels."""
    return {
        "cut-short.jpg": _scene_file(0)[:9000],
        "empty.jpg": b"",
        "login-page.jpg": b"<!doctype html><title>Please log in</title><script>alert('not an image')</script>",
        "bomb.png": _png_header(60_000, 60_000),
    }


def _scene_file(index: int) -> bytes:
    return jpeg(photograph(scene_seed(index)))


def _truth_file(index: int) -> tuple[bytes, tuple[int, ...], tuple[int, int]]:
    """A scene's ids as a panoptic PNG, the label of each, and its size."""
    scene = photograph(scene_seed(index))
    ids = np.asarray(scene.ids, np.int32)
    file = io.BytesIO()
    Image.fromarray(np.stack((ids & 255, ids >> 8 & 255, ids >> 16), axis=-1).astype(np.uint8)).save(file, "PNG")
    height, width = ids.shape
    return file.getvalue(), tuple(scene.label_ids), (height, width)


def _png_header(width: int, height: int) -> bytes:
    """A PNG whose header claims a size; its pixels are a few bytes of zeros."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")
