"""CVAT for images 1.1: an XML with the exact masks, which CVAT imports onto images of the same names.

A mask is `rle` in its box: lengths of runs, row by row, of pixels outside and inside in turn, beginning outside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from numpy.typing import NDArray

from masklake import storage
from masklake.export.categories import Categories
from masklake.export.format import Job, Written
from masklake.export.pictures import store_files
from masklake.export.selection import Row
from masklake.export.sources import Images
from masklake.pages.rendering import hex_colour
from masklake.spelling import visible
from masklake.table.masks import decode_masks, palette


def write_cvat(job: Job, name: str) -> Written:
    """The labels, then an `<image>` per row with a `<mask>` per segment; the score is an attribute.

    Raises:
        Refused: two rows are of models that do not agree on labels.
    """
    labels, categories, images = job.selection.labels(), Categories(), Images(job.settings.copy_images)
    path = job.scratch / "annotations.xml"
    with path.open("w", encoding="utf-8") as file:
        file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n<meta><task>\n')
        file.write(f"<name>masklake {escape(str(job.selection.task))}</name><size>{job.selection.rows}</size><labels>\n")
        for label_id, label in labels.items():
            file.write(
                f"<label><name>{_text(label)}</name><color>{hex_colour(palette(label_id))}</color><type>mask</type>{_ATTRIBUTES}</label>\n"
            )
        file.write("</labels></task></meta>\n")
        for row in store_files(job.selection.numbered_rows(), lambda row: images.copied(row, f"{job.output}images/")):
            file.write(_image(row, categories))
        file.write("</annotations>\n")
    storage.upload_file(path, job.output + name)
    return categories.written(remarks=images.remarks())


_ATTRIBUTES = (
    "<attributes><attribute><name>score</name><mutable>False</mutable><input_type>text</input_type><default_value></default_value>"
    "<values></values></attribute></attributes>"
)


def _image(row: Row, categories: Categories) -> str:
    head = f'<image id="{row["id"] - 1}" name={_quoted(row["file_name"])} width="{row["width"]}" height="{row["height"]}">'
    masks = []
    for place, segment in enumerate(reversed(row["segments"])):  # the first segment is on top
        categories.note(segment, row["image_uri"])
        masks.append(_mask(segment, row, place))
    return "\n".join([head, *masks, "</image>\n"])


def _mask(segment: Mapping[str, Any], row: Row, order: int) -> str:
    x, y, w, h = segment["bbox"]
    counts = _runs(decode_masks([segment], row["height"], row["width"])[0, y : y + h, x : x + w])
    return (
        f'<mask label={_quoted(segment["label"])} source="auto" occluded="0" rle="{", ".join(map(str, counts))}" '
        f'left="{x}" top="{y}" width="{w}" height="{h}" z_order="{order}">'
        f'<attribute name="score">{segment["score"]:.4f}</attribute></mask>'
    )


def _runs(mask: NDArray[np.bool_]) -> list[int]:
    """Lengths of runs outside and inside, row by row."""
    flat = np.concatenate(([False], mask.ravel()))
    ends = np.concatenate((np.flatnonzero(flat[1:] != flat[:-1]), [mask.size]))
    counts: list[int] = np.diff(ends, prepend=0).tolist()
    return counts


def _text(text: str) -> str:
    return escape(visible(text))


def _quoted(text: str) -> str:
    return quoteattr(visible(text))
