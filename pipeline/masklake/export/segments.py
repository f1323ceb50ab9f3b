"""The flat form: Parquet files of one row per segment, for tools that do not like lists."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from masklake import storage
from masklake.export.format import Job, Written
from masklake.export.selection import partition_columns
from masklake.schema import SEGMENT
from masklake.table.read import MaskTable

_OF_IMAGE = ("image_uri", "width", "height", "task", "model", "fingerprint")
_BOX = ("bbox_x", "bbox_y", "bbox_width", "bbox_height")
_ROW_GROUP_ROWS = 8192
_FILE_BYTES = 128 << 20


def flat_schema(table: MaskTable) -> pa.Schema:
    """The columns of the flat form: those of the image, its partition columns and what was carried, unless the name is one of these: those
    of the segment; boxes in pixels, areas also as a fraction of the image."""
    of_segment = [SEGMENT.field(name) for name in ("segment_id", "label_id", "label", "isthing", "score", "area")]
    of_segment.append(pa.field("area_fraction", pa.float64(), nullable=False))
    of_segment += [pa.field(name, pa.int32(), nullable=False) for name in _BOX]
    of_segment += [SEGMENT.field(name) for name in ("counts", "class_score")]
    taken = {"segment", *(field.name for field in of_segment)}
    names = [name for name in dict.fromkeys([*_OF_IMAGE, *partition_columns(table)]) if name not in taken]
    return pa.schema([*(table.schema.field(name) for name in names), *of_segment])


def write_segments(job: Job, name: Callable[[int], str]) -> Written:
    """Parquet files of about 128 MB each, named by their number; at least one."""
    table, schema = job.table, flat_schema(job.table)
    of_image = [name for name in schema.names if name in table.schema.names]
    dictionary = [field.name for field in schema if pa.types.is_string(field.type)]
    tables = (_flatten(batch, schema) for batch in job.selection.flat_segments(of_image, _ROW_GROUP_ROWS))
    path, files, segments, labels = job.scratch / "segments.parquet", 0, 0, set[str]()
    flat: pa.Table | None = next(tables, schema.empty_table())
    while flat is not None:
        with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=dictionary) as writer:
            while flat is not None and path.stat().st_size < _FILE_BYTES:
                writer.write_table(flat)
                segments += flat.num_rows
                labels.update(pc.unique(flat["label"]).to_pylist())
                flat = next(tables, None)
        storage.upload_file(path, job.output + name(files))
        files += 1
    return Written(segments, frozenset(labels))


def _flatten(batch: pa.RecordBatch, schema: pa.Schema) -> pa.Table:
    segments = batch["segment"]
    columns = {name: batch[name] for name in batch.schema.names if name != "segment"}
    columns |= {field.name: pc.struct_field(segments, field.name) for field in SEGMENT}
    columns |= {name: pc.list_element(columns["bbox"], index) for index, name in enumerate(_BOX)}
    pixels = pc.multiply(columns["width"].cast(pa.float64()), columns["height"].cast(pa.float64()))
    columns["area_fraction"] = pc.divide(columns["area"].cast(pa.float64()), pixels)
    return pa.Table.from_arrays([columns[field.name].cast(field.type) for field in schema], schema=schema)
