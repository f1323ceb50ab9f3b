"""Tables whose answers are known, to be evaluated."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from masklake import config
from masklake.evaluation import run
from masklake.evaluation.report import Report
from masklake.evaluation.settings import PROGRAM, EvaluateConfig
from masklake.table.append import Table
from masklake.table.rows import Answer, build_rows
from masklake.table.write import write_rows
from tests.answers import Segment, images, segment, stamp

LAKE = "s3://lake/images/"


def commit(
    table_uri: str | Path, task: str, given: Mapping[str, tuple[Answer, tuple[int, int]]], run_id: str = "run-1", minute: int = 0
) -> str:
    """One run that gives images, by URI, these answers of images of (height, width); returns the table's URI."""
    table = Table.open_or_create(str(table_uri), ("task",))
    table.begin_run(LAKE, run_id)
    sizes = [size for _, size in given.values()]
    named = images(list(given), [task], height=[height for height, _ in sizes], width=[width for _, width in sizes])
    rows = build_rows(named, [{task: answer} for answer, _ in given.values()], stamp(run_id, minute), ("task",))
    table.commit(write_rows(rows, table.uri, ("task",), run_id))
    table.finish_run()
    return str(table_uri)


def named(segment_id: int, mask: NDArray[np.bool_], label: str, isthing: bool = True, score: float = 0.5) -> Segment:
    """A segment with this label."""
    return replace(segment(segment_id, mask, zlib.crc32(label.encode()) >> 1, isthing), label=label, score=score)


def segments_of(ids: NDArray[Any], labels: Mapping[int, tuple[str, bool]]) -> list[Segment]:
    """The segments of an id map, whose ids have these labels."""
    return [named(number, ids == each, *labels[each]) for number, each in enumerate(sorted(labels), 1)]


def label_maps(folder: Path, maps: Mapping[str, NDArray[Any]], names: Iterable[str]) -> str:
    """A folder of label maps by file name, with the names of their values; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in maps.items():
        Image.fromarray(values.astype(np.uint8)).save(folder / name)
    (folder / "labels.json").write_text(json.dumps(list(names)))
    return str(folder)


def evaluate(table: str | Path, truth: str | Path, said: list[str] | None = None, task: str | None = None, **settings: Any) -> Report:
    """Evaluate as the job does; what it says is added to `said`."""
    given = {"table": str(table), "truth": str(truth), **({} if task is None else {"task": task}), **settings}
    asked = config.checked(PROGRAM, {"given": {name: value for name, value in given.items() if value is not None}})
    assert isinstance(asked, EvaluateConfig)
    return run.evaluate(asked, (said if said is not None else []).append)
