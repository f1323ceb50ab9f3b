"""Reading a table of masks: the newest answer per image and task, its masks as arrays, and pictures of them.

    from masklake import reading

    table = reading.open_table("s3://lake/masks")
    for row in table.newest(task="panoptic", where="dt = '2026-11-22' AND status = 'ok'"):
        masks = reading.masks(row)              # bool [segments, height, width], at the image's resolution
        picture = reading.overlay(row)          # uint8 [height, width, 3]: the image with its segments

It is a Delta table: `polars.read_delta`, DuckDB, Spark and pandas read it as well. Credentials and endpoint come from the environment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masklake.errors import ImageFailure, MasklakeError
from masklake.images.decoder import decode_apart
from masklake.images.fetch import fetch_by_uri
from masklake.table.masks import SegmentRow, decode_masks
from masklake.table.masks import id_map as segment_ids
from masklake.table.masks import overlay as paint
from masklake.table.read import MaskTable, open_table

__all__ = ["MaskTable", "Row", "id_map", "masks", "open_table", "overlay"]

Row = Mapping[str, Any]
"""One row of the table as Python values, as `Table.to_pylist` gives it."""


def masks(row: Row) -> NDArray[np.bool_]:
    """A row's masks: bool, [number of segments, height, width], at the image's original resolution, in the order of `segments`.

    Needs the columns `segments`, `height` and `width`.

    Raises:
        ValueError: the row is an error, so there are none.
    """
    return decode_masks(_segments(row), row["height"], row["width"])


def id_map(row: Row) -> tuple[NDArray[np.int32], dict[int, int]]:
    """`segment_id` of each pixel, int32 [height, width] with 0 where there is none, and the `label_id` of each segment.

    Where an instance answer's masks overlap, the segment with the highest score is on top. Needs the columns `segments`, `height`, `width`.

    Raises:
        ValueError: the row is an error, so there are no masks.
    """
    segments = _segments(row)
    return segment_ids(segments, row["height"], row["width"]), {segment["segment_id"]: segment["label_id"] for segment in segments}


def overlay(row: Row, alpha: float = 0.5) -> NDArray[np.uint8]:
    """The row's image, read from storage, with its segments painted over it: uint8 RGB, [height, width, 3].

    Needs the columns `image_uri`, `segments`, `height` and `width`.

    Raises:
        ValueError: the row is an error, so there are no masks.
        MasklakeError: the image cannot be read any more, or is of another size by now.
    """
    segments, uri = _segments(row), row["image_uri"]
    data = fetch_by_uri(uri)
    image = data if isinstance(data, ImageFailure) else decode_apart(data, max_pixels=row["height"] * row["width"])
    if isinstance(image, ImageFailure):
        raise MasklakeError(f"{uri} cannot be shown: {image.message}")
    now, then = image.pixels.shape[:2], (row["height"], row["width"])
    if now != then:
        raise MasklakeError(f"{uri} has changed since it was segmented: its size is {now}, and was {then}")
    return paint(image.pixels, segments, alpha)


def _segments(row: Row) -> Sequence[SegmentRow]:
    segments: Sequence[SegmentRow] | None = row["segments"]
    if segments is None:
        raise ValueError(f"{row.get('image_uri', 'this row')} has no masks: {row.get('error_code', 'its status is error')}")
    return segments
