"""A table's images with their masks, for torch's DataLoader: a map-style data set, and a stream that is shared out among trainers.

A sample is a dict, in the words of torchvision's detection models:

    image      uint8 [3, height, width], RGB, upright, of the image's own size
    masks      bool [n, height, width]; largest score first
    labels     int64 [n]: `label_id`
    boxes      float32 [n, 4]: x1, y1, x2, y2 in pixels, x2 and y2 outside
    scores     float32 [n]
    isthing    bool [n]
    label_map  int64 [height, width]: `label_id` of each pixel, -100 (torch's default `ignore_index`) where no segment is
    image_uri  str

Images are of different sizes: give the DataLoader a `collate_fn`, or a `transform` that makes them equal. An image that cannot be read
raises `masklake.results.Unusable`, which names it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from masklake.errors import MasklakeError
from masklake.results import Result, Row
from masklake.table.masks import id_map
from masklake.table.read import MaskTable, open_table
from masklake.table.selection import Choice

VOID = -100
"""Of `label_map`, where no segment is: what torch's losses ignore unless told otherwise."""

_COLUMNS = ("image_uri", "task", "height", "width", "segments")

Sample = dict[str, Any]
Transform = Callable[[Sample], Any]


class MaskDataset(Dataset[Any]):
    """Map-style. The rows that fit are copied to a file of this machine once, so that any of them is at hand, in each worker.

    Example:
        dataset = MaskDataset(table, "panoptic", where="status = 'ok'", min_score=0.5)
        dataset[0]["masks"].shape, dataset[0]["labels"]
    """

    def __init__(
        self, table: MaskTable, task: str, where: str | None = None, min_score: float = 0.0, transform: Transform | None = None
    ) -> None:
        folder = Path(tempfile.mkdtemp(prefix="masklake-dataset-"))
        self._gone = weakref.finalize(self, _remove, folder, os.getpid())
        self._file, self._min_score, self._transform = folder / "rows.arrow", min_score, transform
        newest = table.newest_arrow(task, _COLUMNS, Choice(where=where).condition())
        with pa.OSFile(str(self._file), "wb") as sink, pa.ipc.new_file(sink, newest.schema) as file:
            for batch in newest:
                file.write_batch(batch)
        self._rows: pa.Table | None = None
        self._order = np.argsort(np.asarray(self._read()["image_uri"].to_pylist(), dtype=object), kind="stable")

    def _read(self) -> pa.Table:
        if self._rows is None:
            self._rows = pa.ipc.open_file(pa.memory_map(str(self._file))).read_all()
        return self._rows

    def __getstate__(self) -> dict[str, Any]:
        return {name: None if name in ("_rows", "_gone") else value for name, value in self.__dict__.items()}

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> Any:
        """The sample at this place, in the order of URIs; after `transform`, where there is one.

        Raises:
            IndexError: there are not so many.
            Unusable: the image cannot be read, or has changed.
        """
        (row,) = self._read().slice(int(self._order[index]), 1).to_pylist()
        made = sample(row, self._min_score)
        return made if self._transform is None else self._transform(made)


class MaskStream(IterableDataset[Any]):
    """A stream in the table's order. Each image is in one shard, by a hash of its URI; workers of a DataLoader divide a shard again.

    Each of them reads the rows of the whole table, but images of its share alone. What reads the table does not outlive a fork: with
    `num_workers`, the DataLoader needs `multiprocessing_context="spawn"`.

    Example:
        stream = MaskStream(table, "panoptic")
        uris = [sample["image_uri"] for sample in stream.shard(0, 8)]
    """

    def __init__(
        self, table: MaskTable, task: str, where: str | None = None, min_score: float = 0.0, transform: Transform | None = None
    ) -> None:
        self._uri, self._version, self._images = table.uri, table.delta.version(), table.images
        self._task, self._where, self._min_score, self._transform = task, where, min_score, transform
        self._rank, self._of, self._process = 0, 1, os.getpid()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = {**state, "_process": os.getpid()}

    def shard(self, rank: int, of: int) -> MaskStream:
        """The part of one of `of` trainers, whose number is `rank`, from 0.

        Raises:
            ValueError: there is no such part.

        Example:
            mine = stream.shard(rank, world_size)
        """
        if not 0 <= rank < of:
            raise ValueError(f"shard {rank} of {of}: use 0 to {of - 1}")
        part = copy(self)
        part._rank, part._of = rank, of
        return part

    def __iter__(self) -> Iterator[Any]:
        """Samples, after `transform`, where there is one.

        Raises:
            MasklakeError: this process was forked.
            Unusable: an image cannot be read, or has changed.
        """
        if self._process != os.getpid():
            raise MasklakeError("a table cannot be read after a fork: give the DataLoader multiprocessing_context='spawn'")
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        table = open_table(self._uri)  # a reader of one process is none of another's
        table.delta.load_as_version(self._version)
        table.images = self._images
        for batch in table.newest_arrow(self._task, _COLUMNS, Choice(where=self._where).condition()):
            uris = batch.column("image_uri").to_pylist()
            for place, uri in enumerate(uris):
                share, rest = _number(uri) % self._of, _number(uri) // self._of
                if share == self._rank and rest % workers == number:  # trainers may have different numbers of workers
                    (row,) = batch.slice(place, 1).to_pylist()
                    made = sample(row, self._min_score)
                    yield made if self._transform is None else self._transform(made)


def sample(row: Row, min_score: float = 0.0) -> Sample:
    """A row with its image, as tensors.

    Raises:
        Unusable: the image cannot be read, or has changed.
    """
    kept = [segment for segment in row["segments"] if segment["score"] >= min_score]
    result = Result({**row, "segments": kept})
    boxes = np.array([segment["bbox"] for segment in kept], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return {
        "image": torch.from_numpy(np.ascontiguousarray(result.image.transpose(2, 0, 1))),
        "masks": torch.from_numpy(result.masks),
        "labels": torch.tensor([segment["label_id"] for segment in kept], dtype=torch.int64),
        "boxes": torch.from_numpy(boxes),
        "scores": torch.tensor([segment["score"] for segment in kept], dtype=torch.float32),
        "isthing": torch.tensor([segment["isthing"] for segment in kept], dtype=torch.bool),
        "label_map": torch.from_numpy(_label_map(kept, row)),
        "image_uri": row["image_uri"],
    }


def _label_map(segments: list[Mapping[str, Any]], row: Row) -> np.ndarray[Any, np.dtype[np.int64]]:
    labels = np.full(1 + max((segment["segment_id"] for segment in segments), default=0), VOID, np.int64)
    for segment in segments:
        labels[segment["segment_id"]] = segment["label_id"]
    found: np.ndarray[Any, np.dtype[np.int64]] = labels[id_map(segments, row["height"], row["width"])]
    return found


def _number(uri: str) -> int:
    """The same in every process, and even in its last bits, whatever names have in common."""
    return int.from_bytes(hashlib.blake2b(uri.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def _remove(folder: Path, process: int) -> None:
    """What was made for this data set; a copy of it in another process, such as a worker that was forked, leaves it alone."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)
