"""One image's answer to one task, to look at and to hand on: its segments, their masks, pictures, COCO's words, a card for notebooks.

The same for a row of a table and for what a model answered on the spot (`masklake.load`). Knows nothing of models, Ray and tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masklake.errors import ImageFailure, MasklakeError
from masklake.images.decoder import decode_apart
from masklake.images.fetch import fetch_by_uri
from masklake.spelling import plural
from masklake.table.masks import SegmentRow, decode_masks
from masklake.table.masks import overlay as paint

Row = Mapping[str, Any]
"""One row of the table as Python values, as `Table.to_pylist` gives it."""

Pixels = NDArray[np.uint8]


class Unusable(MasklakeError):
    """An image could not be read, decoded or answered; the message says which and why."""


@dataclass(frozen=True)
class Segment:
    """One segment of an image, as the table has it.

    Attributes:
        segment_id: 1..n, largest score first.
        label, label_id: its class.
        isthing: whether the class is countable.
        score: 0 to 1, as the task weighs it; `class_score` is the probability of the class alone, where the model says one.
        area: pixels of its mask.
        box: x, y, width, height, in pixels.
        counts: its mask as COCO's compressed run lengths, of an image of `size` (height, width).
    """

    segment_id: int
    label_id: int
    label: str
    isthing: bool
    score: float
    class_score: float | None
    area: int
    box: tuple[int, int, int, int]
    counts: bytes
    size: tuple[int, int]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """bool [height, width], of the original image's size."""
        masks = decode_masks([{"counts": self.counts}], *self.size)
        mask: NDArray[np.bool_] = masks[0]
        return mask

    def __repr__(self) -> str:
        return f"Segment({self.label!r}, score={self.score:.3f}, area={self.area}, box={self.box})"


class Result:
    """One image's answer to one task.

    `row` is the row of the table that it is, or would be. `len(result)` is the number of segments, and iterating gives them.

    Example:
        >>> from masklake.results import Result
        >>> counts = {"segment_id": 1, "label_id": 0, "label": "cat", "isthing": True, "score": 0.5, "class_score": None, "area": 2,
        ...           "bbox": [0, 0, 1, 2], "counts": b"022"}
        >>> result = Result({"image_uri": "cat.png", "task": "panoptic", "height": 2, "width": 2, "segments": [counts]})
        >>> [(segment.label, segment.area, segment.mask.tolist()) for segment in result]
        [('cat', 2, [[True, False], [True, False]])]
    """

    def __init__(self, row: Row, image: Callable[[], Pixels | ImageFailure] | None = None) -> None:
        """`row` needs `image_uri, task, height, width, segments`; `image` gives the picture, else it is read from its URI."""
        self.row = dict(row)
        self._image = image

    @property
    def name(self) -> str:
        """The image's URI, or what stands for it."""
        return str(self.row["image_uri"])

    @property
    def task(self) -> str:
        return str(self.row["task"])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the upright image, in pixels."""
        self._demand()
        return self.row["height"], self.row["width"]

    @property
    def failure(self) -> str | None:
        """Why there are no segments; None where the image was answered."""
        if self.row["segments"] is not None:
            return None
        return f"{self.row.get('error_code') or 'error'}: {self.row.get('error_message') or 'its status is error'}"

    @property
    def segments(self) -> list[Segment]:
        """Largest score first.

        Raises:
            Unusable: the image could not be answered.
        """
        size = self.size
        return [
            Segment(
                each["segment_id"],
                each["label_id"],
                each["label"],
                each["isthing"],
                each["score"],
                each.get("class_score"),
                each["area"],
                tuple(each["bbox"]),
                each["counts"],
                size,
            )
            for each in self.row["segments"]
        ]

    @property
    def masks(self) -> NDArray[np.bool_]:
        """bool [number of segments, height, width], in the order of `segments`.

        Example:
            anything = result.masks.any(axis=0)
        """
        return decode_masks(self._demand(), *self.size)

    @property
    def image(self) -> Pixels:
        """The picture as the model saw it before it was resized: uint8 RGB [height, width, 3], upright; read again from where it lies.

        Raises:
            Unusable: it cannot be read any more, or is of another size by now.
        """
        size, found = self.size, self._image() if self._image else image_at(self.name, self.row["height"] * self.row["width"])
        if isinstance(found, ImageFailure):
            raise Unusable(f"{self.name} cannot be shown: {found.message}")
        if found.shape[:2] != size:
            raise Unusable(f"{self.name} has changed since it was segmented: its size is {found.shape[:2]}, and was {size}")
        return found

    def overlay(self, alpha: float = 0.5) -> Pixels:
        """The picture with its segments painted over it: uint8 RGB [height, width, 3]; `alpha`, 0 to 1, is how much colours cover.

        Example:
            Image.fromarray(result.overlay(alpha=0.3)).save("overlay.png")  # with Pillow
        """
        return paint(self.image, self._demand(), alpha)

    def cutouts(self) -> list[Pixels]:
        """Each segment cut out of the picture along its box: uint8 RGBA [box height, box width, 4], transparent beside the mask.

        Example:
            for segment, pixels in zip(result, result.cutouts()):
                Image.fromarray(pixels).save(f"{segment.segment_id}-{segment.label}.png")
        """
        return cutouts(self.image, self._demand())

    def to_coco(self) -> dict[str, Any]:
        """COCO's instance JSON of this one image: `images, annotations, categories`; ids begin at 1, masks are compressed run lengths.

        A category's id is the label's id + 1, as `masklake export` has it.

        Example:
            Path("photo.json").write_text(json.dumps(result.to_coco()))  # a file that pycocotools reads
        """
        height, width = self.size
        segments = self._demand()
        labels = {each["label_id"]: each for each in segments}
        return {
            "images": [{"id": 1, "file_name": self.name, "height": height, "width": width}],
            "annotations": [
                {
                    "id": each["segment_id"],
                    "image_id": 1,
                    "category_id": each["label_id"] + 1,
                    "segmentation": {"size": [height, width], "counts": each["counts"].decode("ascii")},
                    "area": each["area"],
                    "bbox": list(each["bbox"]),
                    "iscrowd": 0,
                    "score": each["score"],
                }
                for each in segments
            ],
            "categories": [
                {"id": label_id + 1, "name": each["label"], "isthing": int(each["isthing"])} for label_id, each in sorted(labels.items())
            ],
        }

    def _demand(self) -> Sequence[SegmentRow]:
        segments: Sequence[SegmentRow] | None = self.row["segments"]
        if segments is None:
            raise Unusable(f"{self.name} has no masks: {self.failure}")
        return segments

    def __len__(self) -> int:
        return len(self._demand())

    def __iter__(self) -> Iterator[Segment]:
        return iter(self.segments)

    def __bool__(self) -> bool:
        """Whether the image was answered, be it with nothing."""
        return self.failure is None

    def __repr__(self) -> str:
        found = self.failure or f"{plural(len(self), 'segment')}"
        return f"Result({self.name!r}, {self.task}: {found})"

    def _repr_html_(self) -> str:
        """What a notebook shows: the picture with its masks and names, and the labels below it."""
        from masklake.pages.fragment import fragment  # the templates, for those alone who look

        return fragment(self.row, None if self.failure else self.image, self.failure)


def cutouts(image: Pixels, segments: Sequence[SegmentRow]) -> list[Pixels]:
    """Each segment along its box, uint8 RGBA [h, w, 4], from a picture uint8 RGB [height, width, 3]; masks are decoded one at a time."""
    height, width = image.shape[:2]
    cut = []
    for segment in segments:
        x, y, w, h = segment["bbox"]
        mask = decode_masks([segment], height, width)[0, y : y + h, x : x + w]
        cut.append(np.dstack((image[y : y + h, x : x + w], mask.astype(np.uint8) * np.uint8(255))))
    return cut


def image_at(uri: str, max_pixels: int) -> Pixels | ImageFailure:
    """The image that a table calls so: uint8 RGB [height, width, 3], upright; or why there is none."""
    data = fetch_by_uri(uri)
    found = data if isinstance(data, ImageFailure) else decode_apart(data, max_pixels)
    return found if isinstance(found, ImageFailure) else found.pixels
