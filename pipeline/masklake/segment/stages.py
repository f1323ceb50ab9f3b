"""The stages that run on the cluster, as plain functions of Arrow tables: load (fetch, decode, resize), segment, write; and before them,
where the table is large, the reading of what it holds.

Between load and segment a table has one row per image: the plan's columns, what decoding found, and `pixels`, the resized uint8 image.
After segment, a packet holds the rows of some images, serialised: an image's rows stay together whatever the engine does with blocks. They
are finished but for the strings of run lengths where the model is on a GPU: these are written with the files, beside the models' processes.
This module knows nothing of Ray.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from masklake.errors import ErrorCode, ImageFailure, MasklakeError
from masklake.images.decode import Decoded
from masklake.images.decoder import decode_apart
from masklake.images.fetch import fetch
from masklake.inference import preprocess, rle
from masklake.inference.checkpoint import ModelDescription
from masklake.inference.effort import Spent
from masklake.inference.forwards import Forward
from masklake.inference.source import ModelSource
from masklake.schema import TABLE
from masklake.segment import concepts, plan
from masklake.segment.digests import digest
from masklake.table.keys import KEYS, KeyFile, Wanted, read_keys
from masklake.table.rows import RunStamp, build_rows
from masklake.table.write import FileRecord, fits, folder_name, write_rows

if TYPE_CHECKING:
    from masklake.inference.segmenter import Segmenter

_CHUNK_BYTES = 16 * 1024 * 1024  # of pixels in one table: what travels at a time, and what a task holds decoded
_LONGEST_VALUE = "x" * 32  # of a task, a status, a format, an error's code or a fingerprint
_SECONDS = ("fetch", "decode", "segment")
_COMPACT = "compact"  # whether a packet's run lengths are numbers, which writing makes strings of

Look = Callable[[str, bytes | ImageFailure], None]

_LOADED = [
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("format", pa.string()),
    pa.field("pixels", pa.binary()),
    pa.field("pixels_height", pa.int32()),
    pa.field("pixels_width", pa.int32()),
    pa.field("fetch_seconds", pa.float32()),
    pa.field("decode_seconds", pa.float32()),
    *concepts.KNOWN,
]


@dataclass(frozen=True)
class Work:
    """Everything a worker needs to know of a run; small, picklable, and the same for every task."""

    plan_uri: str
    groups: int
    table_uri: str
    partition_by: tuple[str, ...]
    carried: pa.Schema
    source: ModelSource
    description: ModelDescription
    stamp: RunStamp
    max_pixels: int
    max_image_bytes: int
    max_decode_seconds: float
    precision: str
    batch_size: int | None
    forward: Forward
    device: str
    fast_decode: bool = False
    of_model: bool = True
    """Whether the model is asked anything: else the table holds all answers, in other rows."""


def digest_files(table_uri: str, wanted: Wanted, files: Sequence[KeyFile]) -> Iterator[pa.Table]:
    """What some files of the table hold, as planning compares it: tables of `digests.DIGESTS`."""
    for batch in digest(read_keys(table_uri, files, wanted), KEYS, wanted.fingerprints, threads=1):
        yield pa.Table.from_batches([batch])


def load_group(work: Work, index: int, look: Look | None = None) -> Iterator[pa.Table]:
    """Fetch, decode and resize one group of the plan; yields tables of at most about 16 MiB of pixels, one row per image.

    An image of which the table holds all that is asked is not fetched. `look`, if any, is shown the content of each other one under its
    URI, before it is decoded.
    """
    group = _with_short_keys(plan.read_group(work.plan_uri, index), work)
    held = _held(group, work)
    wanted = pa.array([each.get("missing") != [] for each in held], pa.bool_())
    uris, fetched = group["image_uri"].to_pylist(), _timed(fetch(group.filter(wanted), work.max_image_bytes))
    first, size, loaded = 0, 0, list[dict[str, Any]]()
    for row, known in enumerate(held):
        if known.get("missing") == []:
            loaded.append({"fetch_seconds": 0.0, "decode_seconds": 0.0, "size": None, **known})
            continue
        content, seconds = next(fetched)
        if look is not None:
            look(uris[row], content)
        beside = {field.name: known.get(field.name) for field in concepts.KNOWN}
        loaded.append({**beside, **_load_image(content, work), "fetch_seconds": seconds})
        size += len(loaded[-1].get("pixels") or b"")
        if size >= _CHUNK_BYTES:
            yield _join(group.slice(first, len(loaded)), loaded)
            first, size, loaded = row + 1, 0, []
    if loaded:
        yield _join(group.slice(first), loaded)


def _held(group: pa.Table, work: Work) -> list[dict[str, Any]]:
    """What the table holds of each image: see `concepts.read_held`."""
    if concepts.HELD.name not in group.column_names:
        return [{}] * len(group)
    usable = pc.is_null(group["error_code"]).to_pylist()
    rows = zip(group[concepts.HELD.name].to_pylist(), usable, strict=True)
    read = partial(concepts.read_held, asked=work.description.concepts, table_uri=work.table_uri, run_id=work.stamp.run_id)
    return [read(held if works else None) for held, works in rows]


def _with_short_keys(group: pa.Table, work: Work) -> pa.Table:
    """The group, in which an image whose keys are too long for the names of its partition's folders is an error without them."""
    names = [name for name in work.partition_by if name not in TABLE.names]
    rows = group.select([*names, "error_code", "error_message"]).to_pylist()
    stamp = {"model": work.stamp.model, "model_revision": work.stamp.model_revision, "run_id": work.stamp.run_id}
    for row in rows:
        while any(row[name] for name in names):
            values = {name: row[name] if name in names else stamp.get(name, _LONGEST_VALUE) for name in work.partition_by}
            if fits(work.table_uri, values, work.stamp.run_id):
                break
            longest = max(names, key=lambda name: len(folder_name(name, row[name])) if row[name] else 0)
            message = f"its key {longest} is too long for a partition's folder: {len(row[longest]):,} characters"
            row |= {longest: None, "error_code": str(ErrorCode.UNSUPPORTED), "error_message": message}
    if not names:
        return group
    for name in (*names, "error_code", "error_message"):
        place = group.schema.get_field_index(name)
        group = group.set_column(place, group.schema.field(name), pa.array([row[name] for row in rows], group.schema.field(name).type))
    return group


def _timed(contents: Iterator[bytes | ImageFailure]) -> Iterator[tuple[bytes | ImageFailure, float]]:
    """Each of the contents with the seconds that it took to come."""
    while True:
        started = time.perf_counter()
        content = next(contents, None)
        if content is None:
            return
        yield content, time.perf_counter() - started


def _load_image(content: bytes | ImageFailure, work: Work) -> dict[str, Any]:
    """Decode and resize one image: the columns of `_LOADED`, or the failure's columns, and its `size`, where only reading told it."""
    started = time.perf_counter()
    decoded = content if isinstance(content, ImageFailure) else _decode(content, work)
    size = None if isinstance(content, ImageFailure) else len(content)
    if isinstance(decoded, ImageFailure):
        seconds = time.perf_counter() - started
        return {"error_code": str(decoded.code), "error_message": decoded.message, "size": size, "decode_seconds": seconds}
    return {
        "size": size,
        "width": decoded.size[1],
        "height": decoded.size[0],
        "format": decoded.format,
        "pixels": decoded.pixels.tobytes(),
        "pixels_height": decoded.pixels.shape[0],
        "pixels_width": decoded.pixels.shape[1],
        "decode_seconds": time.perf_counter() - started,
    }


def _decode(content: bytes, work: Work) -> Decoded | ImageFailure:
    resize = work.description.resize
    reduced_to = resize.target if work.fast_decode else None
    return decode_apart(content, work.max_pixels, work.max_decode_seconds, partial(preprocess.resize, plan=resize), reduced_to)


def _join(group: pa.Table, loaded: Sequence[dict[str, Any]]) -> pa.Table:
    """The plan's columns, but for those that say where an image lies, beside what loading found."""
    beside = {"image_container", "image_start", "image_source", concepts.HELD.name}
    group = group.select([name for name in group.column_names if name not in beside])
    sizes = pc.coalesce(pa.array([row["size"] for row in loaded], pa.int64()), group["image_bytes"])  # a list may tell a wrong one
    group = group.set_column(group.schema.get_field_index("image_bytes"), "image_bytes", sizes)
    changed = pa.array([row.get("error_code") == ErrorCode.CHANGED for row in loaded])
    for name in ("image_etag", "image_bytes", "image_modified"):  # of a version that was not read, the row tells nothing
        known = pc.if_else(changed, None, group[name])
        group = group.set_column(group.schema.get_field_index(name), name, known)
    for name in ("error_code", "error_message"):
        column = pa.array([row.get(name) for row in loaded], pa.string())
        group = group.set_column(group.schema.get_field_index(name), name, column)
    for field in _LOADED:
        group = group.append_column(field, pa.array([row.get(field.name) for row in loaded], field.type))
    return group


def open_segmenter(work: Work, threads: int, models: int = 1) -> Segmenter | None:
    """Load the run's model into this process; None where nothing is asked of it.

    Args:
        work: the run.
        threads: of the CPU, of a model.
        models: how many of it work at the same time: see `Segmenter.beside`.

    Raises:
        Refused: the checkpoint is not here, or its weights do not fit.
    """
    if not work.of_model:
        return None
    from masklake.inference import devices  # torch is for the actors: load and write tasks start without it
    from masklake.inference.segmenter import Segmenter

    devices.use_threads(threads)
    segmenter = Segmenter.load(
        work.source.fetch(),
        work.description,
        device=work.device,
        dtype=work.precision,
        batch_size=work.batch_size,
        forward=work.forward,
        models=models,
    )
    # While a model waits for its process, others can write strings; what is joined to segments of the table is of one kind with them.
    segmenter.compact = segmenter.device.type != "cpu" and not work.description.concepts
    return segmenter


def segment_rows(work: Work, segmenter: Segmenter | None, images: pa.Table) -> bytes:
    """Answer a table of loaded images: a packet of finished rows, one per image and task."""
    started = time.perf_counter()
    answers = _answer(work, segmenter, images)
    rows = build_rows(images, answers, work.stamp, work.partition_by, work.carried)
    spent = segmenter.effort.take() if segmenter else Spent()
    is_compact = segmenter is not None and segmenter.compact
    facts = {
        "fetch": sum(images["fetch_seconds"].to_pylist()),
        "decode": sum(images["decode_seconds"].to_pylist()),
        "segment": time.perf_counter() - started,
        "busy": spent.seconds,
        "halvings": spent.halvings,
        "bytes": pc.sum(images["image_bytes"]).as_py() or 0,
        "images": len(answers),
        "failed": sum(any(isinstance(answer, ImageFailure) for answer in by_task.values()) for by_task in answers),
        _COMPACT: int(is_compact),
    }
    schema = rows.schema.with_metadata({name: str(value) for name, value in facts.items()})
    sink = pa.BufferOutputStream()
    # Compact run lengths take 4 bytes where strings take 1 or 2; compressed, about as many as these.
    options = pa.ipc.IpcWriteOptions(compression="lz4" if is_compact else None)
    with pa.ipc.new_stream(sink, schema, options=options) as stream:
        stream.write_table(rows.cast(schema))
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def _answer(work: Work, segmenter: Segmenter | None, images: pa.Table) -> list[dict[str, Any]]:
    """One dict of task -> segments or failure per image; failed images get their failure for every task.

    What the table holds of an image is joined to what the model says of the rest.
    """
    columns = {name: images[name].to_pylist() for name in ("error_code", "error_message", "tasks", "known", "missing")}
    answers: list[dict[str, Any]] = [
        {task: ImageFailure(code, message) if code else [] for task in tasks}
        for code, message, tasks in zip(columns["error_code"], columns["error_message"], columns["tasks"], strict=True)
    ]
    usable = [row for row, code in enumerate(columns["error_code"]) if code is None]
    asked = [row for row in usable if columns["missing"][row] != []]
    for row, answer in zip(asked, _ask(segmenter, images, asked), strict=True):
        answers[row] = dict(answer)
    for row in usable:
        if (known := columns["known"][row]) is not None:
            answers[row] = {
                task: answer if isinstance(answer, ImageFailure) else concepts.joined(answer, known, work.description.labels)
                for task, answer in answers[row].items()
            }
    return answers


def _ask(segmenter: Segmenter | None, images: pa.Table, rows: Sequence[int]) -> Sequence[dict[str, Any]]:
    """What the model says of these rows' images, which have pixels.

    Raises:
        MasklakeError: there is no model, since the table held all answers when the run was planned.
    """
    if not rows:
        return []
    if segmenter is None:
        raise MasklakeError("rows of the table cannot be read any more, as after a compaction: run the same command again")
    from masklake.inference.segmenter import ModelInput

    columns = {name: images[name].to_pylist() for name in ("height", "width", "pixels_height", "pixels_width", "tasks", "missing")}
    pixels = [value.as_buffer() for value in images["pixels"]]
    return segmenter.segment(
        [
            ModelInput(
                pixels=np.frombuffer(pixels[row], np.uint8).reshape(columns["pixels_height"][row], columns["pixels_width"][row], 3),
                size=(columns["height"][row], columns["width"][row]),
                tasks=tuple(columns["tasks"][row]),
                concepts=tuple(columns["missing"][row] or ()),
            )
            for row in rows
        ]
    )


@dataclass(frozen=True)
class Written:
    """One write: its files, which must be committed together, and how many images they hold, failed ones among them.

    `busy_seconds` and `halvings` are those of `inference.effort`, `read_bytes` the size of the images.
    """

    records: tuple[FileRecord, ...]
    images: int
    failed: int
    busy_seconds: float = 0.0
    halvings: int = 0
    read_bytes: int = 0
    began: Began | None = None


@dataclass(frozen=True)
class Began:
    """When the first answers of a write came, in the driver's monotonic seconds, and of how many images they were."""

    at: float
    images: int


def write_packets(work: Work, packets: Sequence[bytes | pa.Buffer]) -> Written:
    """Write the rows of some packets, one file per partition."""
    tables = [packet_rows(packet) for packet in packets]
    seconds = {name: _total(tables, name) for name in _SECONDS}
    rows = pa.concat_tables([table.replace_schema_metadata() for table in tables])
    records = write_rows(rows, work.table_uri, work.partition_by, work.stamp.run_id, seconds)
    images, failed, halvings, read = (round(_total(tables, name)) for name in ("images", "failed", "halvings", "bytes"))
    return Written(tuple(records), images, failed, _total(tables, "busy"), halvings, read)


def packet_rows(packet: bytes | pa.Buffer) -> pa.Table:
    """The rows of a packet of `segment_rows`, finished."""
    return _with_strings(pa.ipc.open_stream(packet).read_all())


def _with_strings(packet: pa.Table) -> pa.Table:
    """The rows with COCO's strings where their run lengths are compact."""
    if not int(packet.schema.metadata[_COMPACT.encode()]) or not len(packet):
        return packet
    place = packet.schema.get_field_index("segments")
    column = packet.column(place).combine_chunks()
    segments = column.values
    counts = segments.field("counts")
    _, offsets, values = counts.buffers()
    ends = np.frombuffer(offsets, np.int32, len(counts) + 1)[1:] // 4 if len(counts) else np.zeros(0, np.int32)
    text, text_ends = rle.written_out(np.frombuffer(values or b"", "<i4", int(ends[-1]) if len(ends) else 0), ends.astype(np.int64))
    begins = np.concatenate((np.zeros(1, np.int64), text_ends)).astype(np.int32)
    strings = pa.Array.from_buffers(counts.type, len(counts), [None, pa.py_buffer(begins), pa.py_buffer(text)])
    parts = [strings if field.name == "counts" else segments.field(field.name) for field in segments.type]
    whole = pa.StructArray.from_arrays(parts, fields=list(segments.type))
    written = pa.ListArray.from_arrays(column.offsets, whole, type=column.type, mask=column.is_null())
    return packet.set_column(place, packet.schema.field(place), written)


def packet_facts(packet: bytes) -> dict[str, float]:
    """What a packet of `segment_rows` says of the work: `busy` (seconds), `halvings`, `bytes`, `images`, `failed`, and stages' seconds."""
    return {name.decode(): float(value) for name, value in pa.ipc.open_stream(packet).schema.metadata.items()}


def _total(packets: Sequence[pa.Table], name: str) -> float:
    return sum(float(packet.schema.metadata[name.encode()]) for packet in packets)
