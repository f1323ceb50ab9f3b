"""Answers of the model to rows of the table: one row per image and task.

Built column by column (flat values and offsets), because a batch can hold tens of thousands of segments.
Knows nothing of files, of storage or of how an answer was made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate, chain
from typing import Protocol

import numpy as np
import pyarrow as pa

from masklake.errors import ErrorCode, ImageFailure
from masklake.schema import NOTHING_CARRIED, SEGMENT, TABLE, Status, table_schema

MAX_MESSAGE = 500
"""Characters of an error message that are kept."""

_FROM_IMAGE = ("image_uri", "image_etag", "image_bytes", "image_modified", "width", "height", "format")


class SegmentLike(Protocol):
    """One segment of an answer: the attributes of `masklake.schema.SEGMENT`."""

    @property
    def segment_id(self) -> int: ...
    @property
    def label_id(self) -> int: ...
    @property
    def label(self) -> str: ...
    @property
    def isthing(self) -> bool: ...
    @property
    def score(self) -> float: ...
    @property
    def area(self) -> int: ...
    @property
    def bbox(self) -> tuple[int, int, int, int]: ...
    @property
    def counts(self) -> bytes: ...
    @property
    def class_score(self) -> float | None: ...


Answer = Sequence[SegmentLike] | ImageFailure
"""What one task says of one image."""


@dataclass(frozen=True)
class RunStamp:
    """What every row of a run says of its origin; `fingerprints` maps each task of the run to its fingerprint."""

    model: str
    model_revision: str
    fingerprints: Mapping[str, str]
    run_id: str
    run_order: int
    processed_at: datetime


def build_rows(
    images: pa.Table,
    answers: Sequence[Mapping[str, Answer]],
    run: RunStamp,
    partition_by: Sequence[str],
    carried: pa.Schema = NOTHING_CARRIED,
) -> pa.Table:
    """Join images and answers into rows of `masklake.schema.table_schema(partition_by, carried)`, one per image and task.

    Args:
        images: one row per image: `image_uri, image_etag, image_bytes, image_modified, width, height, format`; `tasks`
            (list of string), what to do for it; `error_code` and `error_message`, not null where it failed before the model; one column
            per hive-style partition key; `carried`, a struct. Other columns are ignored; absent ones count as null, save `image_uri` and
            `tasks`.
        answers: one mapping from task to answer per image, in the same order. That of an image that failed before the model is not read.
        run: the origin of the rows.
        partition_by: the table's partition columns.
        carried: the fields of the struct that become columns.

    Raises:
        ValueError: an image has no answer to one of its tasks, or the numbers of images and answers differ: a bug of the caller.
    """
    if len(answers) != images.num_rows:
        raise ValueError(f"{images.num_rows} images, but {len(answers)} answers")
    todo: list[list[str]] = images["tasks"].to_pylist()
    tasks = [task for per_image in todo for task in per_image]
    take = pa.array(np.repeat(np.arange(images.num_rows), [len(per_image) for per_image in todo]), pa.int64())
    row_answers = [answer for index, per_image in enumerate(todo) for answer in _answers(images, index, per_image, answers[index])]

    schema = table_schema(partition_by, carried)
    hive_keys = [name for name in partition_by if name not in TABLE.names]
    columns = {name: _column(images, name, schema.field(name).type).take(take) for name in (*_FROM_IMAGE, *hive_keys)}
    beside = _column(images, "carried", pa.struct(carried)).flatten()
    columns |= {name: values.take(take) for name, values in zip(carried.names, beside, strict=True)}
    columns |= _error_columns(row_answers) | _stamp_columns(run, tasks)
    columns |= {"task": pa.array(tasks, pa.string()), "segments": _segment_lists(row_answers)}
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


def _answers(images: pa.Table, index: int, tasks: Sequence[str], answer: Mapping[str, Answer]) -> list[Answer]:
    """The answers of one image in the order of its tasks; its earlier failure, if there is one, for each."""
    failed = _earlier_failure(images, index)
    if failed is not None:
        return [failed] * len(tasks)
    missing = [task for task in tasks if task not in answer]
    if missing:
        raise ValueError(f"no answer to {', '.join(missing)} for {images['image_uri'][index].as_py()}")
    return [answer[task] for task in tasks]


def _earlier_failure(images: pa.Table, index: int) -> ImageFailure | None:
    code = images["error_code"][index].as_py() if "error_code" in images.column_names else None
    if code is None:
        return None
    message = images["error_message"][index].as_py() if "error_message" in images.column_names else None
    return ImageFailure(ErrorCode(code), message or "")


def _column(images: pa.Table, name: str, kind: pa.DataType) -> pa.Array:
    if name not in images.column_names:
        return pa.nulls(images.num_rows, kind)
    return images[name].cast(kind).combine_chunks()


def _error_columns(answers: Sequence[Answer]) -> dict[str, pa.Array]:
    failures = [answer if isinstance(answer, ImageFailure) else None for answer in answers]
    return {
        "status": pa.array([Status.OK if failure is None else Status.ERROR for failure in failures], pa.string()),
        "error_code": pa.array([None if failure is None else str(failure.code) for failure in failures], pa.string()),
        "error_message": pa.array([None if failure is None else bounded_text(failure.message) for failure in failures], pa.string()),
    }


def bounded_text(text: str, limit: int = MAX_MESSAGE) -> str:
    """At most `limit` characters, all of them valid in UTF-8 (file names and libraries can hold lone surrogates)."""
    short = text if len(text) <= limit else text[: limit - 3] + "..."
    return short.encode("utf-8", "replace").decode("utf-8")


def _stamp_columns(run: RunStamp, tasks: Sequence[str]) -> dict[str, pa.Array]:
    same = ("model", "model_revision", "run_id", "run_order", "processed_at")
    columns = {name: pa.repeat(pa.scalar(getattr(run, name), TABLE.field(name).type), len(tasks)) for name in same}
    return columns | {"fingerprint": pa.array([run.fingerprints[task] for task in tasks], pa.string())}


def _segment_lists(answers: Sequence[Answer]) -> pa.ListArray:
    """One list of segments per answer; null where it is a failure."""
    failed = [isinstance(answer, ImageFailure) for answer in answers]
    lists: list[Sequence[SegmentLike]] = [() if isinstance(answer, ImageFailure) else answer for answer in answers]
    segments = list(chain.from_iterable(lists))
    offsets = pa.array(accumulate(map(len, lists), initial=0), pa.int32())
    return pa.ListArray.from_arrays(offsets, _segments(segments), type=TABLE.field("segments").type, mask=pa.array(failed, pa.bool_()))


def _segments(segments: Sequence[SegmentLike]) -> pa.StructArray:
    values: dict[str, Callable[[SegmentLike], object]] = {
        "segment_id": lambda s: s.segment_id,
        "label_id": lambda s: s.label_id,
        "label": lambda s: s.label,
        "isthing": lambda s: s.isthing,
        "score": lambda s: s.score,
        "area": lambda s: s.area,
        "counts": lambda s: s.counts,
        "class_score": lambda s: s.class_score,
    }
    arrays = {name: pa.array([read(segment) for segment in segments], SEGMENT.field(name).type) for name, read in values.items()}
    boxes = np.array([segment.bbox for segment in segments], dtype=np.int32).reshape(-1)
    corners = pa.array(np.arange(0, len(boxes) + 1, 4, dtype=np.int32))
    arrays["bbox"] = pa.ListArray.from_arrays(corners, pa.array(boxes), type=SEGMENT.field("bbox").type)
    return pa.StructArray.from_arrays([arrays[field.name] for field in SEGMENT], fields=list(SEGMENT))
