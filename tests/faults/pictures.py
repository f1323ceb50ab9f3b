"""The pictures of the harness: generated scenes, of which it is known what is where. So a row's masks tell which picture they are of.

Each file is of its own bytes, etag and size, for it holds its name as a comment; files of the same scene decode to the same pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from masklake.demo.scenes import HELD_OUT, LABELS, jpeg, photograph

SCENES = 16
"""Different scenes; every answer is known from another file of the same one."""

_LABEL_IDS = {label: label_id for label_id, label in LABELS.items()}
_NOTHING = 255
_GRID = 64  # scenes are compared at so many points in each direction
_SHIFTS = ((-8, 0), (8, 0), (0, -8), (0, 8))  # pixels


@dataclass(frozen=True)
class Picture:
    """One version of an image."""

    name: str
    scene: int

    @cached_property
    def content(self) -> bytes:
        """A JPEG file, with the name in its first segment."""
        text = f"{self.name} {self.scene} ".encode() * (1 + int(hashlib.sha256(self.name.encode()).hexdigest(), 16) % 7)
        plain = _plain(self.scene)
        return plain[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + plain[2:]

    @cached_property
    def etag(self) -> str:
        """S3's, of an object that was uploaded in one piece."""
        return hashlib.md5(self.content, usedforsecurity=False).hexdigest()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = truth(self.scene).shape
        return height, width


@cache
def _plain(scene: int) -> bytes:
    return jpeg(photograph(HELD_OUT[scene]))


@cache
def truth(scene: int) -> NDArray[np.uint8]:
    """The label of every pixel [height, width] of a scene, as it was drawn."""
    drawn = photograph(HELD_OUT[scene])
    labels: NDArray[np.uint8] = np.asarray(drawn.label_ids, np.uint8)[drawn.ids - 1]
    return labels


def wrong_masks(scene: int, segments: Sequence[Mapping[str, Any]]) -> str:
    """What is wrong with an answer to a scene; '' where nothing is. That a model errs here and there is not."""
    height, width = truth(scene).shape
    if not segments:
        return "nothing was found in it"
    shown = np.full((height, width), _NOTHING, np.uint8)
    for segment in segments:
        encoded = {"size": [height, width], "counts": segment["counts"]}
        try:
            mask = coco.decode(encoded)
        except ValueError:
            return f"the mask of {segment['label']} is of another size than the picture"
        if int(mask.sum()) != segment["area"]:
            return f"the mask of {segment['label']} has another size or area than its row says"
        if [round(edge) for edge in coco.toBbox(encoded)] != segment["bbox"]:
            return f"the mask of {segment['label']} has another box than its row says"
        shown[mask.astype(bool)] = _LABEL_IDS[segment["label"]]
    return _elsewhere(scene, shown)


def _elsewhere(scene: int, shown: NDArray[np.uint8]) -> str:
    likeness = [float(np.mean(_sampled(truth(other)) == _sampled(shown))) for other in range(SCENES)]
    if int(np.argmax(likeness)) != scene:
        return f"its masks are those of another picture, scene {int(np.argmax(likeness))} instead of {scene}"
    here = np.mean(truth(scene) == shown)
    if any(np.mean(truth(scene) == np.roll(shown, shift, (0, 1))) >= here for shift in _SHIFTS):
        return "its masks lie beside what they show"
    return ""


def _sampled(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rows, columns = ((np.arange(_GRID) * 2 + 1) * length // (2 * _GRID) for length in labels.shape)
    return labels[np.ix_(rows, columns)]
