"""COCO's masks: polygons, run lengths in numbers, compressed run lengths."""

from __future__ import annotations

from typing import Any

from pycocotools import mask as coco_mask

from masklake.quality.instance import RunLengths
from masklake.truth.formats import Size

_NUMBERS = 6  # of three points


def cleaned(segmentation: Any, size: Size) -> Any:
    """A mask as an annotation has it, fit for `run_lengths`; None where it covers no pixel: no polygon has three points, or all runs are 0.

    Raises:
        ValueError: it is not one of COCO's kinds, or of another size than the image; the message goes on from the mask's name.
    """
    if not segmentation:
        return None
    if isinstance(segmentation, list):
        polygons = [segmentation] if all(isinstance(each, int | float) for each in segmentation) else segmentation
        for polygon in polygons:
            if not isinstance(polygon, list) or len(polygon) % 2 or not all(isinstance(each, int | float) for each in polygon):
                raise ValueError("has a polygon that is not a list of x, y, x, y, ...")
        # pycocotools takes four numbers for a box, and with them all that follow
        return [polygon for polygon in polygons if len(polygon) >= _NUMBERS] or None
    if not isinstance(segmentation, dict) or not isinstance(segmentation.get("counts"), list | str | bytes):
        raise ValueError("is not one of COCO's kinds: polygons, or run lengths as an object of size and counts")
    if list(segmentation.get("size") or ()) != list(size):
        raise ValueError(f"has the size {segmentation.get('size')}, and its image {list(size)}")
    counts = segmentation["counts"]
    if isinstance(counts, list):
        if not all(isinstance(each, int) and each >= 0 for each in counts) or sum(counts) != size[0] * size[1]:
            raise ValueError(f"has runs that do not add up to the {size[0] * size[1]} pixels of the image")
        return segmentation if any(counts[1::2]) else None
    encoded = run_lengths(segmentation, size)
    return encoded if coco_mask.area(encoded) else None


def run_lengths(segmentation: Any, size: Size) -> RunLengths:
    """A `cleaned` mask as compressed run lengths, as pycocotools' `annToRLE`.

    Raises:
        ValueError: it cannot be made.
    """
    try:
        if isinstance(segmentation, list):
            encoded: RunLengths = coco_mask.merge(coco_mask.frPyObjects(segmentation, *size))
        elif isinstance(segmentation["counts"], list):
            encoded = coco_mask.frPyObjects(segmentation, *size)
        else:
            counts = segmentation["counts"]
            encoded = {"size": list(size), "counts": counts.encode("ascii") if isinstance(counts, str) else counts}
    except Exception as error:  # pycocotools raises whatever it meets
        raise ValueError(f"is not one of COCO's kinds: {error}") from None
    return encoded
