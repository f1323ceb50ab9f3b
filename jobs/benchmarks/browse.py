"""Measure how `masklake browse` answers on a large table: the first page, filters, later pages, and the memory of the whole process.

    python -m jobs.benchmarks.browse --rows 100000

The table is a real one, of real files with masks, made without a model: a few scenes, over and over, with classes and scores drawn anew for
every row. The page is asked over HTTP, as a browser does, in a process of its own. A figure is the median of several questions, each one
that was not asked before; the first page is everything that a browser loads for it: the page, its answer, 24 photographs and their masks.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from masklake.demo.scenes import jpeg, render, sample_scene
from masklake.inference.rle import encode_ids
from masklake.schema import SEGMENT, TABLE
from masklake.table.append import Table
from masklake.table.write import FileRecord, FileWriter

RESULT = Path(__file__).parent / "results" / "browse.json"
CLASSES = ("person", "car", "bus", "dog", "cat", "chair", "table", "tree", "grass", "sky", "road", "building")
DAYS = 100
SCENES = 16

_HEIGHT, _WIDTH = 480, 640
_ERROR_EVERY = 500


def make_table(folder: Path, rows: int, older: int = 0) -> str:
    """A table of `rows` images in 100 days, each with its file, and of the first `older` of each day an answer of an earlier model; its
    URI."""
    pool = _Pool()
    table = Table.open_or_create(str(folder / "masks"), ["dt"])
    for fingerprint, run, each in (("0" * 32, "earlier", older), ("5" * 32, "latest", rows // DAYS)):
        if each:
            table.begin_run(f"file://{folder}/images/", run, beat=False)
            table.commit([pool.write(table.uri, folder, day, each, fingerprint, run) for day in range(DAYS)])
            table.finish_run()
    return table.uri


class _Pool:
    """The segments of a few scenes, from which rows take theirs."""

    def __init__(self) -> None:
        self._images: list[bytes] = []
        counts: list[bytes] = []
        areas: list[int] = []
        boxes: list[list[int]] = []
        starts = [0]
        for seed in range(SCENES):
            scene = render(sample_scene(seed), _HEIGHT, _WIDTH)
            self._images.append(jpeg(scene))
            for encoded in encode_ids(np.ascontiguousarray(scene.ids.T), len(scene.label_ids)):
                counts.append(encoded.counts)
                areas.append(encoded.area)
                boxes.append(list(encoded.bbox))
            starts.append(len(counts))
        self._starts = np.array(starts)
        self._segments = {"counts": pa.array(counts), "area": pa.array(areas), "bbox": pa.array(boxes, pa.list_(pa.int32()))}

    def write(self, table_uri: str, folder: Path, day: int, rows: int, fingerprint: str, run: str) -> FileRecord:
        """A day's file, and its images."""
        random = np.random.default_rng([day, len(run)])
        place = folder / "images" / f"dt={_day(day)}"
        place.mkdir(parents=True, exist_ok=True)
        scenes = (np.arange(rows) + day) % SCENES
        names = [place / f"camera-{number:06d}.jpg" for number in range(rows)]
        for name, scene in zip(names, scenes.tolist(), strict=True):
            if not name.exists():
                self._link(folder, scene, name)
        writer = FileWriter(TABLE)
        writer.add(self._rows([f"file://{name}" for name in names], scenes, random, (fingerprint, run, day)))
        stored = writer.store(table_uri, {"dt": _day(day)}, run)
        assert stored
        return FileRecord(**vars(stored), ok=stored.rows)

    def _link(self, folder: Path, scene: int, name: Path) -> None:
        source = folder / f"scene-{scene}-{name.parent.name}.jpg"
        if not source.exists():
            source.write_bytes(self._images[scene])
        name.hardlink_to(source)

    def _rows(self, uris: list[str], scenes: NDArray[np.int64], random: np.random.Generator, origin: tuple[str, str, int]) -> pa.Table:
        fingerprint, run, day = origin
        now = datetime(2026, 1, 1 + day % 28, 12, day % 60, tzinfo=UTC)
        count = len(uris)
        failed = np.arange(count) % _ERROR_EVERY == 7
        told = {"task": "panoptic", "model": f"example/{run}", "model_revision": "r", "fingerprint": fingerprint, "run_id": run}
        told |= {"run_order": 1 if run == "earlier" else 2, "width": _WIDTH, "height": _HEIGHT, "format": "JPEG", "processed_at": now}
        columns = {
            **{name: pa.repeat(pa.scalar(value, TABLE.field(name).type), count) for name, value in told.items()},
            "image_uri": pa.array(uris),
            "status": pa.array(np.where(failed, "error", "ok"), pa.string()),
            "error_code": pa.array(np.where(failed, "truncated", ""), pa.string(), mask=~failed),
            "error_message": pa.array(np.where(failed, "JPEG: the file ends early", ""), pa.string(), mask=~failed),
            "segments": self._lists(scenes, failed, random),
        }
        return pa.table([columns.get(field.name, pa.nulls(count, field.type)) for field in TABLE], schema=TABLE)

    def _lists(self, scenes: NDArray[np.int64], failed: NDArray[np.bool_], random: np.random.Generator) -> pa.ListArray:
        lengths = np.where(failed, 0, self._starts[scenes + 1] - self._starts[scenes])
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        total = int(offsets[-1])
        within = np.arange(total) - np.repeat(offsets[:-1], lengths)
        taken = pa.array(np.repeat(self._starts[scenes], lengths) + within)
        labels = np.minimum(random.geometric(0.2, total) - 1, len(CLASSES) - 1)
        fields: dict[str, pa.Array] = {
            **{name: values.take(taken) for name, values in self._segments.items()},
            "segment_id": pa.array(within + 1, pa.int32()),
            "label_id": pa.array(labels, pa.int32()),
            "label": pa.array(CLASSES).take(pa.array(labels)),
            "isthing": pa.array(labels < 7),
            "score": pa.array(random.beta(5, 1.5, total).astype(np.float32)),
            "class_score": pa.nulls(total, pa.float32()),
        }
        structs = pa.StructArray.from_arrays([fields[field.name].cast(field.type) for field in SEGMENT], fields=list(SEGMENT))
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), structs, type=pa.list_(SEGMENT), mask=pa.array(failed))


def _day(day: int) -> str:
    return f"2026-{day // 28 + 1:02d}-{day % 28 + 1:02d}"
