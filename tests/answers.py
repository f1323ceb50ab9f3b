"""Builders of what the model answers, and of rows of the table made from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from masklake.errors import ErrorCode, ImageFailure
from masklake.table.rows import Answer, RunStamp, build_rows

FINGERPRINTS = {"panoptic": "f-panoptic", "instance": "f-instance", "semantic": "f-semantic"}


@dataclass(frozen=True)
class Segment:
    """As `masklake.inference` gives it."""

    segment_id: int
    label_id: int
    label: str
    isthing: bool
    score: float
    area: int
    bbox: tuple[int, int, int, int]
    counts: bytes
    class_score: float | None = None


def segment(segment_id: int, mask: NDArray[Any], label_id: int = 3, isthing: bool = True) -> Segment:
    """A segment with this mask, [height, width]."""
    encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    x, y, width, height = (int(value) for value in coco_mask.toBbox(encoded))
    label = f"label {label_id}"
    return Segment(segment_id, label_id, label, isthing, 0.5, int(coco_mask.area(encoded)), (x, y, width, height), encoded["counts"])


def rectangle(height: int, width: int, rows: slice, columns: slice) -> NDArray[np.bool_]:
    """A mask of this size that is true in a rectangle."""
    mask = np.zeros((height, width), np.bool_)
    mask[rows, columns] = True
    return mask


def images(uris: Sequence[str], tasks: Sequence[str] = ("panoptic",), **columns: Sequence[Any]) -> pa.Table:
    """Decoded images of 4 x 6 pixels, to be asked for these tasks."""
    count = len(uris)
    table: dict[str, Any] = {
        "image_uri": list(uris),
        "image_etag": [f"etag of {uri}" for uri in uris],
        "image_bytes": [1000] * count,
        "width": [6] * count,
        "height": [4] * count,
        "format": ["JPEG"] * count,
        "tasks": [list(tasks)] * count,
        "error_code": pa.nulls(count, pa.string()),
        "error_message": pa.nulls(count, pa.string()),
    }
    return pa.table({**table, **columns})


def stamp(run_id: str = "run-1", minute: int = 0, order: int | None = None) -> RunStamp:
    """The origin of a run that was at work at this minute by its clock; in the log's order it has this place, or that of the minute."""
    return RunStamp(
        "model", "revision", FINGERPRINTS, run_id, minute if order is None else order, datetime(2026, 11, 22, 12, minute, 0, 123456, UTC)
    )


def rows(
    uris: Sequence[str],
    run_id: str = "run-1",
    partition_by: Sequence[str] = ("task",),
    minute: int = 0,
    failed: Sequence[str] = (),
    order: int | None = None,
    **columns: Sequence[Any],
) -> pa.Table:
    """Panoptic rows with one segment each; an error for those URIs that are among `failed`; `minute` and `order` as of `stamp`."""
    answer = {"panoptic": [segment(1, rectangle(4, 6, slice(0, 2), slice(1, 4)))]}
    failure: dict[str, Answer] = {"panoptic": ImageFailure(ErrorCode.MODEL_FAILED, "no")}
    answers: list[Mapping[str, Answer]] = [failure if uri in failed else answer for uri in uris]
    return build_rows(images(uris, **columns), answers, stamp(run_id, minute, order), partition_by)


def decoded(counts: bytes, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask [height, width] of compressed run lengths, as pycocotools reads them."""
    mask: NDArray[np.bool_] = coco_mask.decode({"size": list(size), "counts": counts}).astype(np.bool_)
    return mask
