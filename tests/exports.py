"""A small table of all tasks with older, newer and failed rows, to export."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masklake import reading
from masklake.config import checked
from masklake.errors import ErrorCode, ImageFailure
from masklake.export import run
from masklake.export.settings import PROGRAM
from masklake.table.append import Table
from masklake.table.rows import Answer, RunStamp, build_rows
from masklake.table.write import write_rows
from tests.answers import Segment, images, rectangle, segment, stamp

ROOT = "s3://lake/images/"
BY = ("task", "dt")
NAMES = ("dt=2026-11-21/a.jpg", "dt=2026-11-21/b.jpg", "dt=2026-11-21/b.png", "dt=2026-11-22/c.tar.jpg", "dt=2026-11-22/d")
LABELS = {0: ("person", True), 1: ("dog", True), 2: ("sky", False), 7: ("road", False)}
ALL_TASKS = ("panoptic", "instance", "semantic")
HEIGHT, WIDTH = 30, 41


def build(table_uri: str) -> str:
    """The table: five images in every task; then a.jpg anew, and d failed; returns its URI."""
    commit(table_uri, "run-1", {name: answers(name) for name in NAMES})
    commit(table_uri, "run-2", {NAMES[0]: answers("a again")}, minute=2)
    failure: dict[str, Answer] = dict.fromkeys(ALL_TASKS, ImageFailure(ErrorCode.MODEL_FAILED, "no"))
    commit(table_uri, "run-3", {NAMES[4]: failure}, minute=3)
    return table_uri


def commit(table_uri: str, run_id: str, given: Mapping[str, Mapping[str, Answer]], minute: int = 1, origin: RunStamp | None = None) -> None:
    """One run that gives these images, by name below `ROOT`, these answers."""
    table = Table.open_or_create(table_uri, BY)
    table.begin_run(ROOT, run_id)
    days = [name.partition("dt=")[2].partition("/")[0] or None for name in given]
    size = {"height": [HEIGHT] * len(given), "width": [WIDTH] * len(given)}
    tasks = list(next(iter(given.values())))
    named = images([ROOT + name for name in given], tasks, dt=days, **size)
    made = build_rows(named, list(given.values()), origin or stamp(run_id, minute), BY)
    table.commit(write_rows(made, table.uri, BY, run_id))
    table.finish_run()


def answers(seed: str) -> dict[str, Answer]:
    """Shapes that depend on the seed alone: of an instance answer they overlap, of the others they do not."""
    random = np.random.default_rng(zlib.crc32(seed.encode()))
    boxes = [_box(random) for _ in range(6)]
    things = [labelled(number, mask, int(random.integers(2)), float(random.random())) for number, mask in enumerate(boxes, 1)]
    seen, parts = np.zeros((HEIGHT, WIDTH), bool), []
    for mask in boxes:
        part = mask & ~seen
        seen |= mask
        if part.any():
            parts.append(part)
    panoptic = [labelled(number, part, list(LABELS)[number % 4], 1 - number / 10) for number, part in enumerate(parts, 1)]
    semantic = [labelled(number, part, list(LABELS)[number - 1], 1 - number / 10) for number, part in enumerate(parts[:4], 1)]
    return {"panoptic": panoptic, "instance": things, "semantic": semantic}


def labelled(segment_id: int, mask: NDArray[np.bool_], label_id: int, score: float = 0.5) -> Segment:
    """A segment with a label of `LABELS`, or one of another name."""
    label, isthing = LABELS.get(label_id, (f"label {label_id}", True))
    return replace(segment(segment_id, mask, label_id, isthing), label=label, score=score)


def _box(random: np.random.Generator) -> NDArray[np.bool_]:
    top, left = int(random.integers(HEIGHT - 5)), int(random.integers(WIDTH - 5))
    height, width = random.integers(4, 25, 2).tolist()
    return rectangle(HEIGHT, WIDTH, slice(top, top + height), slice(left, left + width))


def export(table: str, output: Path | str, wanted: str, said: list[str] | None = None, **settings: Any) -> dict[str, Any]:
    """Export as the job does; what it says is added to `said`."""
    given = {"table": table, "output": str(output), "format": wanted, **settings}
    asked = checked(PROGRAM, {"given": {name: value for name, value in given.items() if value is not None}})
    return run.export(asked, (said if said is not None else []).append)


def newest(table: str, task: str) -> dict[str, dict[str, Any]]:
    """The newest ok rows of a task, by the image's name below `ROOT`."""
    rows = reading.open_table(table).newest(task=task, where="status = 'ok'")
    return {row["image_uri"].removeprefix(ROOT): row for row in rows}


def files(folder: Path) -> set[str]:
    """The names of all files below a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
