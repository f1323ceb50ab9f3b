"""Measure what a run's driver can commit: a simulated fleet, many writers and no model, at a rate of its own.

    python -m jobs.benchmarks.fleet --rate 5000 --seconds 600                           # ten minutes of 5,000 images/s
    python -m jobs.benchmarks.fleet --rate 5000 --seconds 60 --rows-per-file 1024       # in files of a few MB
    python -m jobs.benchmarks.fleet --rate 5000 --seconds 60 --files-before 100000      # into a table that holds as many files

The run is the product's own from its plan to its report: gathering, fence, commits, checkpoints of the log, totals, the last check. What
actors and writers do is left out: a packet is a number, and a written file a link to one of as many rows, of random bytes, so that it has
the size it would have. Files that were there before stand in the log alone. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable

from jobs.benchmarks.process_tree import own_peak_mb
from masklake.demo import MODEL
from masklake.schema import TABLE
from masklake.segment import run as job
from masklake.segment.engine import Flowing, Meter, Resources
from masklake.segment.filling import Fill, Filler, Packet
from masklake.segment.machine import Machine, machine
from masklake.segment.plan import Plan
from masklake.segment.progress import Listener, State
from masklake.segment.settings import Config, RunConfig
from masklake.segment.stages import Work, Written
from masklake.table import runs
from masklake.table.append import Table
from masklake.table.write import FileRecord, FileWriter, Sample

_CALL = 256  # images of a packet, as a GPU's
_LABELS = 80
_BEFORE_AT_ONCE = 10_000  # files in one commit of those that were there before
_ROWS_AT_ONCE = 2048


class Fleet:
    """An engine whose packets come at a rate, and whose files are links."""

    starting = "starting nothing"

    def __init__(self, config: RunConfig, rate: float, row_bytes: int) -> None:
        self._config, self._rate, self._row_bytes = config, rate, row_bytes
        self._known: dict[int, tuple[Path, FileRecord]] = {}
        self.files = 0
        self.writers_cpu = self.began_cpu = 0.0
        self.behind = 0.0

    def start(self) -> None:
        """Nothing."""

    def resources(self, group_rows: int, most_rows: int) -> Resources:
        """Of no use here."""
        return Resources(1, 1.0, 0.0, _CALL, 2)

    def machine(self, work: Work, resources: Resources) -> Machine:
        """This one."""
        return machine({"CPU": 1.0}, "cpu", 1, 1.0, 0.0)

    def meter(self, table: str, run_id: str) -> Meter:
        """Nobody looks."""
        return lambda totals, oldest: None

    @contextmanager
    def flowing(self, work: Work, resources: Resources) -> Iterator[Flowing]:
        """Packets as the clock says, of all groups of the plan."""
        with ThreadPoolExecutor(1) as writer:
            fill = Fill(self._config.rows_per_file, self._config.commit_seconds)
            filler = Filler[int](fill, lambda packets: writer.submit(self._write, work, len(packets)), at_once=8)
            yield Flowing(filler.written(self._packets(work.groups)), lambda: None, filler.flush, filler.sign, lambda still: "still")

    def _packets(self, groups: int) -> Iterator[Packet[int]]:
        self.began_cpu, started = time.process_time(), time.monotonic()
        for number in range(groups * job.GROUP_ROWS // _CALL):
            due = started + number * _CALL / self._rate
            self.behind = max(self.behind, time.monotonic() - due)
            time.sleep(max(0.0, due - time.monotonic()))
            yield Packet(number, _CALL, _CALL * self._row_bytes)

    def _write(self, work: Work, packets: int) -> Written:
        cpu = time.thread_time()
        if packets not in self._known:
            self._known[packets] = self._file(work, packets * _CALL)
        path, record = self._known[packets]
        self.files += 1
        link = path.with_name(path.name.replace(".parquet", f"-{self.files}.parquet"))
        os.link(path, link)
        name = str(link.relative_to(_folder(work.table_uri)))
        samples = tuple(replace(each, hash=(each.hash * self.files) % (1 << 63), path=name) for each in record.samples)
        self.writers_cpu += time.thread_time() - cpu
        return Written(
            (replace(record, path=name, samples=samples),), packets * _CALL, 0, busy_seconds=1.0, read_bytes=packets * _CALL * 100_000
        )

    def _file(self, work: Work, rows: int) -> tuple[Path, FileRecord]:
        """A file with so many rows of random masks, and what its commit says of it; it lies in the table and is no part of it."""
        told = {"image_etag": "e" * 32, "model": "fleet", "model_revision": "1", "fingerprint": "f" * 32, "status": "ok"}
        told |= {"run_id": work.stamp.run_id, "image_uri": "s3://lake/images/dt=2026-11-22/camera-0000000-0000000000.jpg"}
        values = {**told, "run_order": work.stamp.run_order, "processed_at": datetime.now(UTC), "width": 640, "height": 480}
        schema = pa.schema([field for field in TABLE if field.name != "task"])
        writer, random = FileWriter(schema), np.random.default_rng(0)
        for first in range(0, rows, _ROWS_AT_ONCE):
            size = min(_ROWS_AT_ONCE, rows - first)
            columns = {name: pa.repeat(pa.scalar(value, schema.field(name).type), size) for name, value in values.items()}
            columns["segments"] = _segments([random.bytes(self._row_bytes) for _ in range(size)])
            writer.add(pa.table([columns.get(field.name, pa.nulls(size, field.type)) for field in schema], schema=schema))
        stored = writer.store(work.table_uri, {"task": "panoptic"}, work.stamp.run_id)
        assert stored
        labels = {f"label-{number}": rows // 10 for number in range(_LABELS)}
        samples = tuple(Sample(number * 7919 + 1, f"s3://lake/images/{number}.jpg", stored.path) for number in range(64))
        seconds = dict.fromkeys(("fetch", "decode", "segment", "write"), 1.0)
        record = FileRecord(**vars(stored), ok=rows, label_counts=labels, samples=samples, seconds=seconds)
        return Path(_folder(work.table_uri), stored.path), record


def _segments(masks: list[bytes]) -> pa.Array:
    """One segment a row, of nothing but its mask's bytes."""
    kind = TABLE.field("segments").type
    columns = [pa.array(masks, field.type) if field.name == "counts" else _blank(field.type, len(masks)) for field in kind.value_type]
    return pa.ListArray.from_arrays(range(len(masks) + 1), pa.StructArray.from_arrays(columns, fields=list(kind.value_type))).cast(kind)


def _blank(kind: pa.DataType, size: int) -> pa.Array:
    value: Any = "" if pa.types.is_string(kind) else [] if pa.types.is_list(kind) else False if pa.types.is_boolean(kind) else 0
    return pa.repeat(pa.scalar(value, kind), size)


def _folder(table_uri: str) -> str:
    return table_uri.removeprefix("file://")


class _Quiet(Listener):
    def begin(self, run_id: str, table: str) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """On stderr."""
        print(text, file=sys.stderr, flush=True)

    def update(self, state: State) -> None:
        """Nothing."""


def measure(folder: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Drive one run; what it cost the driver, and how its commits went."""
    images = round(arguments.rate * arguments.seconds) // _CALL * _CALL
    Path(folder, "images").mkdir()
    Path(folder, "images", "one.jpg").write_bytes(b"never read")
    config = Config(
        input=f"{folder}/images",
        output=f"{folder}/masks",
        model=str(MODEL),
        local=True,
        gallery_images=0,
        rows_per_file=arguments.rows_per_file,
        commit_seconds=arguments.commit_seconds,
    )
    fleet = Fleet(config, arguments.rate, arguments.row_bytes)
    checkpoint_seconds = _put_before(config.output, arguments.files_before)
    plan = Plan(images, images * 100_000, 0, images, images, images * 100_000, 0, 0, images // job.GROUP_ROWS)
    took: list[float] = []
    cpus: list[float] = []
    commit = Table.commit

    def timed(table: Table, records: list[FileRecord]) -> None:
        cpu, started = time.process_time(), time.monotonic()
        commit(table, records)
        if records:
            took.append(time.monotonic() - started)
            cpus.append(time.process_time() - cpu)

    with (
        patch.object(job, "Local", lambda config: fleet),
        patch.object(job, "make_plan", lambda *a: plan),
        patch.object(Table, "commit", timed),
    ):
        started = time.monotonic()
        summary = job.segment(config, _Quiet())
    cpu = time.process_time() - fleet.began_cpu - fleet.writers_cpu
    assert summary["images"] == images, summary
    log = list(Path(folder, "masks", "_delta_log").iterdir())
    checkpoints = [path.stat().st_size for path in log if ".checkpoint" in path.name]
    return {
        "images": images,
        "wall_seconds": round(time.monotonic() - started, 1),
        "files": fleet.files,
        "commits": len(took),
        "cpu_seconds": round(cpu, 2),
        "cpu_ms_per_1000_images": round(cpu / images * 1e6, 1),
        "commit_cpu_seconds_median": round(statistics.median(cpus), 3),
        "commit_seconds_median": round(statistics.median(took), 3),
        "commit_seconds_most": round(max(took), 3),
        "behind_seconds": round(fleet.behind, 1),
        "checkpoint_cpu_seconds": round(checkpoint_seconds, 2),
        "log_bytes_per_file": round(_entries(log) / (fleet.files + arguments.files_before)),
        "checkpoint_bytes": max(checkpoints, default=0),
        "peak_mb": own_peak_mb(),
    }


def _entries(log: list[Path]) -> int:
    return sum(path.stat().st_size for path in log if path.suffix == ".json")


def _put_before(uri: str, files: int) -> float:
    """Name so many files of another run in the table's log, which are not there; returns the CPU seconds that a checkpoint of it takes."""
    table = Table.open_or_create(uri, ["task"])
    table.begin_run("s3://elsewhere/", "before", beat=False)
    rest = {"fingerprint": "f" * 32, "run_id": "before", "run_order": 1, "status": "ok", "width": 640, "height": 480}

    def file(number: int) -> FileRecord:
        """One whose name and bounds are its own, as those of real files."""
        name = uuid.uuid4()
        bounds = {"image_uri": f"s3://lake/images/dt=2026-11-22/camera-{number:07d}-{name}.jpg", "image_etag": name.hex, **rest}
        stats = {"numRecords": 1, "minValues": bounds, "maxValues": bounds, "nullCount": dict.fromkeys(TABLE.names, 0)}
        path = f"task=panoptic/part-before-{name}.parquet"
        return FileRecord(path, 1, datetime.now(UTC), {"task": "panoptic"}, json.dumps(stats), rows=1, ok=1)

    for first in range(0, files, _BEFORE_AT_ONCE):
        numbers = range(first, min(first + _BEFORE_AT_ONCE, files))
        table.commit([file(number) for number in numbers])
    runs.unmark(table.uri, ["before"])
    if not files:
        return 0.0
    cpu = time.process_time()
    DeltaTable(uri).create_checkpoint()
    return time.process_time() - cpu


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; prints JSON last."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmarks.fleet", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rate", type=float, default=5000.0, help="images a second (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of work (default: %(default)s)")
    parser.add_argument("--row-bytes", type=int, default=4000, help="of an image's row in a file (default: %(default)s)")
    parser.add_argument("--rows-per-file", type=int, help="as the setting of that name (default: auto)")
    parser.add_argument("--commit-seconds", type=float, default=5.0, help="as the setting of that name (default: %(default)s)")
    parser.add_argument("--files-before", type=int, default=0, help="files that the table holds (default: %(default)s)")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps({**vars(arguments), **measure(folder, arguments)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
