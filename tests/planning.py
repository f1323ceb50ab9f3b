"""Random lakes and tables to plan, and the plan as plain Python makes it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from masklake.images import conditions
from masklake.schema import table_schema
from masklake.segment.plan import Filter, Plan, WorkList, make_plan, read_group
from masklake.table.append import Table
from masklake.table.write import write_rows

LAKE = "s3://lake/images/"
FINGERPRINTS = {"panoptic": "p1", "semantic": "s1", "instance": "i'1"}
PARTITIONINGS = (("dt",), ("task", "dt"), ("fingerprint", "task", "status"), ())
_GROUP = 3
_REQUIRED = {"model": "m", "model_revision": "r", "run_id": "run-1", "run_order": 1, "processed_at": datetime(2026, 11, 22, tzinfo=UTC)}


@dataclass(frozen=True)
class Case:
    """A listing, the rows of a table in the files that hold them, and what is asked."""

    listed: list[dict[str, Any]]
    held: list[list[dict[str, Any]]]
    fingerprints: dict[str, str]
    partition_by: tuple[str, ...]
    retry_errors: bool
    limit: int | None
    where: int | None
    """Only images of more bytes than this."""


@dataclass
class Answer:
    """A plan and its work list: the URI, etag and tasks of each image, in order."""

    plan: Plan
    work: list[tuple[str, str | None, tuple[str, ...]]] = field(default_factory=list)


def random_case(seed: int, images: int = 40) -> Case:
    """Few names, so that everything meets: images listed twice, changed, without etags, in tars; rows of several models and outcomes."""
    chance = random.Random(seed)
    tasks = chance.sample(sorted(FINGERPRINTS), chance.randint(1, 3))
    in_tars = chance.random() < 0.4

    def uri() -> str:
        day, name = chance.choice(["dt=2026-11-22", "dt=2026-11-23", "dt=ü 1%"]), chance.choice(["a", "b", "é", "'"])
        return f"{LAKE}{day}/{name}{chance.randrange(images // 10)}.jpg"

    def etag() -> str | None:
        found: str | None = chance.choice([None, "", *"AAAAAAB"])
        return found

    def listed() -> dict[str, Any]:
        name, start = uri(), chance.choice([None, 0, 512, 10_240]) if in_tars else None
        container = None if start is None else name.rindex("/")
        size = chance.choice([None, 5, 10, 20])
        return {"image_uri": name, "image_etag": etag(), "image_bytes": size, "image_container": container, "image_start": start}

    listing = [listed() for _ in range(chance.randint(images // 2, images))]

    def held() -> dict[str, Any]:
        known = chance.choice(listing) if chance.random() < 0.8 else {"image_uri": uri(), "image_etag": etag()}
        task = chance.choice(sorted(FINGERPRINTS))
        fingerprint = chance.choice([FINGERPRINTS[task]] * 6 + ["older", FINGERPRINTS["panoptic"]])
        return {
            "image_uri": known["image_uri"],
            "image_etag": known["image_etag"],
            "task": task,
            "fingerprint": fingerprint,
            "status": chance.choice(["ok", "error"]),
        }

    return Case(
        listing,
        [[held() for _ in range(chance.randint(1, images))] for _ in range(chance.randint(1, 4))],
        {task: FINGERPRINTS[task] for task in tasks},
        chance.choice(PARTITIONINGS),
        retry_errors=chance.random() < 0.5,
        limit=chance.choice([None, None, 1, images // 5]),
        where=chance.choice([None, 5]),
    )


def write_table(case: Case, folder: Path) -> Table:
    """The rows of a case as a real table, a commit for each part."""
    table = Table.open_or_create(str(folder), case.partition_by)
    table.begin_run(LAKE, "run-1", beat=False)
    schema = table_schema(case.partition_by)
    for part in case.held:
        told = [{**_REQUIRED, **row, "dt": row["image_uri"].split("/")[4].removeprefix("dt=")} for row in part]
        rows = pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in told], schema=schema)
        table.commit(write_rows(rows, table.uri, case.partition_by, "run-1"))
    return table


def planned(case: Case, done: Iterator[pa.RecordBatch] | None, folder: Path) -> Answer:
    """The plan of `masklake.segment.plan`."""
    pages = [pa.Table.from_pylist(case.listed[first : first + 7], schema=_PAGE) for first in range(0, len(case.listed), 7)]
    plan = make_plan(
        pages,
        done,
        case.fingerprints,
        Filter(None if case.where is None else conditions.parse(f"image_bytes > {case.where}"), case.retry_errors, case.limit),
        WorkList(str(folder), _GROUP),
    )
    groups = [read_group(str(folder), index).to_pylist() for index in range(plan.groups)]
    return Answer(plan, [(row["image_uri"], row["image_etag"], tuple(row["tasks"])) for group in groups for row in group])


def reference(case: Case) -> Answer:
    """The plan by its definition."""
    left_in = [row for row in case.listed if case.where is None or (row["image_bytes"] or 0) > case.where]
    images: dict[str, dict[str, Any]] = {}
    for row in left_in:
        images.setdefault(row["image_uri"], row)
    chosen, done_images, kept = [], 0, 0
    for row in images.values():
        ok, failed = (_tasks(case, row, outcome) for outcome in ("ok", "error"))
        todo = set(case.fingerprints) - ok - (set() if case.retry_errors else failed)
        done_images += not todo
        kept += len(failed - ok - todo)
        if todo:
            chosen.append((row, todo, failed - ok))
    in_containers = any(row["image_container"] is not None for row in left_in)
    chosen.sort(key=lambda one: _place(one[0], in_containers))
    chosen = chosen[: case.limit]
    plan = Plan(
        images=len(images),
        bytes=sum(row["image_bytes"] or 0 for row in images.values()),
        done_images=done_images,
        todo_images=len(chosen),
        todo_rows=sum(len(todo) for _, todo, _ in chosen),
        todo_bytes=sum(row["image_bytes"] or 0 for row, _, _ in chosen),
        retried_errors=sum(len(failed & todo) for _, todo, failed in chosen),
        kept_errors=kept,
        groups=-(-len(chosen) // _GROUP),
        left_out=len(case.listed) - len(left_in),
    )
    ordered = [tuple(task for task in case.fingerprints if task in todo) for _, todo, _ in chosen]
    return Answer(plan, [(row["image_uri"], row["image_etag"], tasks) for (row, _, _), tasks in zip(chosen, ordered, strict=True)])


def _tasks(case: Case, image: Mapping[str, Any], outcome: str) -> set[str]:
    """The tasks that are asked for of which the table holds a row of this image and version with this outcome."""
    key = (image["image_uri"], image["image_etag"], outcome)
    rows = [row for part in case.held for row in part if (row["image_uri"], row["image_etag"], row["status"]) == key]
    return {row["task"] for row in rows if case.fingerprints.get(row["task"]) == row["fingerprint"]}


def _place(row: Mapping[str, Any], in_containers: bool) -> tuple[Any, ...]:
    """Where an image stands in the work list: by URI; where some lie in containers, by container, then by place in it."""
    if not in_containers:
        return (row["image_uri"],)
    container, start = row["image_container"], row["image_start"]
    return (row["image_uri"][:container], start is None, start, row["image_uri"])


_PAGE = pa.schema(
    [
        ("image_uri", pa.string()),
        ("image_etag", pa.string()),
        ("image_bytes", pa.int64()),
        ("image_container", pa.int32()),
        ("image_start", pa.int64()),
    ]
)
