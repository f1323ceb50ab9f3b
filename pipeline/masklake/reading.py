"""Reading a table of masks: the newest answer per image and task, its masks as arrays, pictures of them, and data sets of both.

    import masklake

    table = masklake.open_table("s3://lake/masks")
    for row in table.newest(task="panoptic", where="dt = '2026-11-22' AND status = 'ok'"):
        masks = masklake.masks(row)             # bool [segments, height, width], at the image's resolution
        picture = masklake.overlay(row)         # uint8 [height, width, 3]: the image with its segments
    for result in table.results(task="instance"):
        result.segments, result.cutouts()       # as `masklake.load` answers
    images = table.dataset(task="instance")     # for torch's DataLoader

It is a Delta table: `polars.read_delta`, DuckDB, Spark and pandas read it as well. Credentials and endpoint come from the environment.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from masklake.results import Result, Row
from masklake.results import cutouts as cut
from masklake.table import read
from masklake.table.masks import SegmentRow, decode_masks
from masklake.table.masks import id_map as segment_ids
from masklake.table.read import MaskTable
from masklake.table.selection import Choice

if TYPE_CHECKING:
    from masklake.datasets import MaskDataset, MaskStream

__all__ = ["MaskTable", "Row", "Table", "cutouts", "id_map", "masks", "open_table", "overlay"]


class Table(MaskTable):
    """A table of masks at one version, for those who use it."""

    def results(self, task: str | None = None, where: str | None = None) -> Iterator[Result]:
        """The newest successful answer of each image and task, in no particular order, as `masklake.load` gives it.

        Args:
            task: this task's alone.
            where: an SQL condition on the table's columns.

        Example:
            for result in table.results(task="instance", where="dt = '2026-11-22'"):
                print(result.name, [(segment.label, segment.score) for segment in result])
        """
        return map(Result, self.newest(task, where=Choice(where=where).condition()))

    def dataset(
        self, task: str, where: str | None = None, min_score: float = 0.0, transform: Callable[[dict[str, Any]], Any] | None = None
    ) -> MaskDataset:
        """Images with their masks for torch: map-style, so that a DataLoader may shuffle; see `masklake.datasets`.

        The run lengths of all rows that fit are put on this machine's disk first (TMPDIR), some 10 kB an image.

        Example:
            dataset = masklake.open_table("s3://lake/masks").dataset("instance", min_score=0.5)
            loader = torch.utils.data.DataLoader(dataset, shuffle=True, num_workers=4, collate_fn=list)
        """
        found: MaskDataset = _for_torch("Table.dataset").MaskDataset(self, task, where, min_score, transform)
        return found

    def stream(
        self, task: str, where: str | None = None, min_score: float = 0.0, transform: Callable[[dict[str, Any]], Any] | None = None
    ) -> MaskStream:
        """The same as a stream, for more images than a disk holds: `.shard(rank, of)` for each of several trainers; a DataLoader's
        workers share the shard out.

        Example:
            stream = masklake.open_table("s3://lake/masks").stream("semantic").shard(rank, world_size)
            loader = torch.utils.data.DataLoader(stream, num_workers=4, multiprocessing_context="spawn", collate_fn=list)
        """
        found: MaskStream = _for_torch("Table.stream").MaskStream(self, task, where, min_score, transform)
        return found


def _for_torch(asked: str) -> ModuleType:
    try:
        return importlib.import_module("masklake.datasets")
    except ModuleNotFoundError as error:
        from masklake.config import extras

        if lacking := extras.in_words(error, asked):
            raise lacking from error
        raise


def open_table(uri: str) -> Table:
    """The table at `uri`, as it is now; open it again to see later commits.

    Raises:
        Refused: there is no table.

    Example:
        table = masklake.open_table("s3://lake/masks")
        table.uri, table.tasks(), len(table.newest(task="panoptic", columns=["image_uri"]).to_arrow())
    """
    opened = read.open_table(uri)
    return Table(opened.delta, opened.uri)


def masks(row: Row) -> NDArray[np.bool_]:
    """A row's masks: bool, [number of segments, height, width], at the image's original resolution, in the order of `segments`.

    Needs the columns `segments`, `height` and `width`.

    Raises:
        ValueError: the row is an error, so there are none.

    Example:
        for row in table.newest(task="panoptic", where="status = 'ok'"):
            shares = masklake.masks(row).mean(axis=(1, 2))  # of the picture, of each segment
    """
    return decode_masks(_segments(row), row["height"], row["width"])


def id_map(row: Row) -> tuple[NDArray[np.int32], dict[int, int]]:
    """`segment_id` of each pixel, int32 [height, width] with 0 where there is none, and the `label_id` of each segment.

    Where an instance answer's masks overlap, the segment with the highest score is on top. Needs the columns `segments`, `height`, `width`.

    Raises:
        ValueError: the row is an error, so there are no masks.

    Example:
        ids, labels = masklake.id_map(row)
        share_without = (ids == 0).mean()
    """
    segments = _segments(row)
    return segment_ids(segments, row["height"], row["width"]), {segment["segment_id"]: segment["label_id"] for segment in segments}


def overlay(row: Row, alpha: float = 0.5) -> NDArray[np.uint8]:
    """The row's image, read from storage, with its segments painted over it: uint8 RGB, [height, width, 3].

    Needs the columns `image_uri`, `segments`, `height` and `width`.

    Raises:
        ValueError: the row is an error, so there are no masks.
        MasklakeError: the image cannot be read any more, or is of another size by now.

    Example:
        Image.fromarray(masklake.overlay(row)).save("overlay.png")  # with Pillow
    """
    _segments(row)
    return Result(row).overlay(alpha)


def cutouts(row: Row) -> list[NDArray[np.uint8]]:
    """The row's image, read from storage, cut along each segment's box: uint8 RGBA [box height, box width, 4], transparent beside the
    mask. Needs the columns that `overlay` needs, and raises the same.

    Example:
        for segment, pixels in zip(row["segments"], masklake.cutouts(row)):
            Image.fromarray(pixels).save(f"{segment['segment_id']}.png")
    """
    return cut(Result(row).image, _segments(row))


def _segments(row: Row) -> Sequence[SegmentRow]:
    segments: Sequence[SegmentRow] | None = row["segments"]
    if segments is None:
        raise ValueError(f"{row.get('image_uri', 'this row')} has no masks: {row.get('error_code', 'its status is error')}")
    return segments
