"""What every kind of input promises, checked on an example of it; the examples are made where they can be: on files, or on a server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from masklake.errors import ErrorCode, ImageFailure
from masklake.images.discover import discover
from masklake.images.fetch import fetch, fetch_by_uri
from masklake.images.keys import with_keys
from masklake.images.pages import PAGE_SCHEMA
from masklake.images.source import Input
from masklake.images.sources import source_named, source_of
from masklake.segment.digests import digest
from masklake.segment.plan import Plan, WorkList, make_plan, read_group
from masklake.table import runs
from masklake.table.append import Table
from masklake.table.keys import KEYS, Wanted
from masklake.table.rows import RunStamp, build_rows
from masklake.table.write import write_rows

MOST = 10**6
FINGERPRINTS = {"panoptic": "p"}


@dataclass(frozen=True)
class Example:
    """An input of one kind, in a folder `dt=1` or of images that lie in one."""

    asked: Input
    images: Mapping[str, bytes]
    """The bytes of each image that can be read, by URI."""
    broken: Mapping[str, ErrorCode]
    """Why each of the others cannot be, also by URI."""
    change: Callable[[], set[str]]
    """Changes one image, where it lies; returns the URIs of those that are new work then."""


def check_promises(example: Example, scratch: Path) -> None:
    """Every promise, one after the other, on one table."""
    _check_places(example)
    _check_bytes(example)
    table = Table.open_or_create(str(scratch / "masks"), ["dt"])
    first = _run(example, table, scratch, "run-1")
    assert first.todo_images == len(example.images) + len(example.broken), "one row each"
    held = table.done_keys(Wanted(FINGERPRINTS)).read_all()["image_uri"].to_pylist()
    assert sorted(held) == sorted({**example.images, **example.broken}), "one row each"
    again = _run(example, table, scratch, "run-2")
    assert (again.images, again.todo_images) == (first.images, 0), "a second run has nothing to do"
    changed = example.change()
    plan = _planned(example, table, scratch / "run-3")
    new = {uri for index in range(plan.groups) for uri in read_group(str(scratch / "run-3"), index)["image_uri"].to_pylist()}
    assert new == changed, "a changed image is new work"


def _check_places(example: Example) -> None:
    """Where images may be, and how they are called, is as the rest of the program relies on."""
    source = source_of(example.asked)
    scope, prefix = source.fences(example.asked), source.may_hold(example.asked)
    assert runs.overlap(scope, scope)
    for row in _rows(example.asked):
        uri, end = row["image_uri"], row["image_container"]
        assert prefix is None or uri.startswith(prefix)
        assert end is None or (uri[end] in "/#" and source_named(row["image_source"]).name)
    assert not any(row["error_code"] is None for row in _rows(replace(example.asked, since=datetime(2100, 1, 1, tzinfo=UTC))))


def _check_bytes(example: Example) -> None:
    found: dict[str, bytes | ErrorCode] = {}
    for page in discover(example.asked):
        assert page.schema == PAGE_SCHEMA
        assert page.num_rows
        assert with_keys(page, ["dt"])["dt"].to_pylist() == ["1"] * page.num_rows, "the folders of its path are an image's keys"
        for uri, content in zip(page["image_uri"].to_pylist(), fetch(page, MOST), strict=True):
            assert uri not in found, "one row each"
            found[uri] = content.code if isinstance(content, ImageFailure) else content
    assert found == {**example.images, **example.broken}, "what is wrong with an image, or with what holds it, is a row"
    for uri, content in example.images.items():
        assert fetch_by_uri(uri) == content, "an image is found again by its URI alone"


def _rows(asked: Input) -> list[dict[str, Any]]:
    return [row for page in discover(asked) for row in page.to_pylist()]


def _planned(example: Example, table: Table, folder: Path) -> Plan:
    wanted = Wanted(FINGERPRINTS, source_of(example.asked).may_hold(example.asked))
    done = digest(table.done_keys(wanted), KEYS, FINGERPRINTS)
    return make_plan(discover(example.asked), done, FINGERPRINTS, work_list=WorkList(str(folder), 3, ("dt",)))


def _run(example: Example, table: Table, scratch: Path, run_id: str) -> Plan:
    """Do what is missing, as a run does, with an empty answer for each image."""
    table.begin_run(source_of(example.asked).fences(example.asked), run_id, beat=False)
    plan = _planned(example, table, scratch / run_id)
    stamp = RunStamp("m", "r", FINGERPRINTS, run_id, table.run_order, datetime(2026, 11, 22, tzinfo=UTC))
    for index in range(plan.groups):
        group = read_group(str(scratch / run_id), index)
        answers = [{"panoptic": content if isinstance(content, ImageFailure) else ()} for content in fetch(group, MOST)]
        table.commit(write_rows(build_rows(group, answers, stamp, ["dt"]), table.uri, ["dt"], run_id))
    table.finish_run()
    return plan
