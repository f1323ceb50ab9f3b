"""The table's Arrow schema: the contract on disk. One row per image and task.

`counts` is COCO's compressed run-length encoding of a mask of size [height, width], so
`pycocotools.mask.decode({"size": [height, width], "counts": counts})` is the mask at the image's original (upright) resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import pyarrow as pa

from masklake.tasks import Task

__all__ = [
    "NOTHING_CARRIED",
    "PARTITIONABLE",
    "SCHEMA_VERSION",
    "SEGMENT",
    "TABLE",
    "VERSION_PROPERTY",
    "Status",
    "Task",
    "aligned",
    "table_schema",
]


class Status(StrEnum):
    OK = "ok"
    ERROR = "error"


SEGMENT = pa.struct(
    [
        pa.field("segment_id", pa.int32(), nullable=False),  # 1..n without holes, largest score first
        pa.field("label_id", pa.int32(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("isthing", pa.bool_(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("area", pa.int64(), nullable=False),  # pixels
        pa.field("bbox", pa.list_(pa.int32()), nullable=False),  # x, y, width, height; pixels
        pa.field("counts", pa.binary(), nullable=False),
        pa.field("class_score", pa.float32()),  # the probability of the class alone; null where the model has none, and before version 3
    ]
)

TABLE = pa.schema(
    [
        pa.field("image_uri", pa.string(), nullable=False),
        pa.field("image_etag", pa.string()),  # null where the store never answered for this image
        pa.field("image_bytes", pa.int64()),
        pa.field("image_modified", pa.timestamp("us", tz="UTC")),
        pa.field("width", pa.int32()),  # of the upright image; null where it could not be decoded
        pa.field("height", pa.int32()),
        pa.field("format", pa.string()),  # Pillow's name: JPEG, PNG, ...
        pa.field("task", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("model_revision", pa.string(), nullable=False),
        pa.field("fingerprint", pa.string(), nullable=False),  # of everything that changes an answer
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("run_order", pa.int64()),  # later runs have greater ones, by the table's log and nobody's clock; null before version 2
        pa.field("processed_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error_code", pa.string()),
        pa.field("error_message", pa.string()),
        pa.field("segments", pa.list_(SEGMENT)),  # null where status is error; empty where nothing was found
    ]
)

SCHEMA_VERSION = 3
"""Of `TABLE`. A new version adds nullable columns, and nullable fields of structs, only: a table of an older one gets them with the first
run that writes to it."""

VERSION_PROPERTY = "masklake.schemaVersion"
"""The table property that names the version; 1 where there is none."""

PARTITIONABLE = frozenset({"task", "status", "format", "model", "model_revision", "fingerprint", "run_id", "error_code"})
"""Contract columns that `--partition-by` may name; any other name there is a hive-style key of the input path."""


NEWNESS = ("run_order", "processed_at", "run_id")
"""What orders the rows of an image and task. No two runs of a table have the same `run_order`; the others are for rows without one."""

NEWNESS_SQL = "(coalesce(run_order, -1), processed_at, run_id)"
"""The same as a value of DuckDB: the greatest is the newest row's."""

NOTHING_CARRIED = pa.schema([])


def table_schema(partition_by: Sequence[str], carried: pa.Schema = NOTHING_CARRIED) -> pa.Schema:
    """The schema of a table partitioned by these columns: the contract's, one string column per hive-style key, then what is carried."""
    extra = [pa.field(name, pa.string()) for name in partition_by if name not in TABLE.names]
    return pa.schema([*TABLE, *extra, *carried])


def aligned(found: pa.DataType, known: pa.DataType, complete: bool = False) -> pa.DataType:
    """The type of a column that a table has, written as here: fields of structs are those of the table, in its order; where it is to be
    `complete`, those that it lacks follow. Fields that are not known here stay as they are."""
    if pa.types.is_struct(known):
        kinds = {field.name: field for field in known}
        fields = [
            kinds[each.name].with_type(aligned(each.type, kinds[each.name].type, complete)) if each.name in kinds else each
            for each in found
        ]
        there = {field.name for field in fields}
        return pa.struct([*fields, *(field for field in known if complete and field.name not in there)])
    if pa.types.is_list(known):
        return pa.list_(aligned(found.value_type, known.value_type, complete))
    return known
