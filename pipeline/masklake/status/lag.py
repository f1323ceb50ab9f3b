"""How far a table is behind its lake: the planner's own listing, minus what the table holds."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from masklake.database import connect
from masklake.images import conditions
from masklake.segment import images
from masklake.segment.digests import digest
from masklake.segment.images import Images
from masklake.segment.plan import Filter, WorkList, make_plan
from masklake.segment.settings import RunConfig
from masklake.status.coverage import Partition
from masklake.table.append import Table
from masklake.table.keys import KEYS, Wanted

_LIKE = ("bytes_column", "key_column", "uri_column", "allow_location", "include", "exclude", "where")
"""Settings of a run that say which images of its input are its work."""

_NOTHING = {"": ""}  # where no row tells a fingerprint, one that none has


@dataclass(frozen=True)
class Lag:
    """What of an input is to do, and the image of it that has waited longest."""

    input: str
    images: int
    """Of the input."""
    todo_images: int
    todo_bytes: int
    oldest_uri: str | None
    oldest_modified: datetime | None
    """None where there is nothing to do, or nobody knows."""
    todo_by_partition: Mapping[Partition, int]

    def seconds(self, now: datetime) -> float | None:
        """How long the oldest has waited; 0 where nothing is to do."""
        if self.oldest_modified is None:
            return None if self.todo_images else 0.0
        return max(0.0, (now - self.oldest_modified).total_seconds())


def settings_of(report: Mapping[str, Any]) -> dict[str, Any]:
    """What of a run's settings says which images are its work, as its report tells them."""
    told = report.get("configuration", {})
    return {name: told[name] for name in _LIKE if told.get(name)}


def lag(input_uri: str, table: Table, fingerprints: Mapping[str, str], like: Mapping[str, Any], names: list[str]) -> Lag:
    """List an input as a run does, and take away what the table holds.

    Args:
        input_uri: as `--input`.
        table: the table.
        fingerprints: of each task, which one counts.
        like: further settings of that run, see `settings_of`.
        names: the columns by which partitions are told apart.

    Raises:
        Refused: the input cannot be read as what it is said to be.
        StorageError: the listing failed, after retries.
    """
    config = RunConfig(input=input_uri, output=table.uri, dry_run=True, allow_empty=True, **like)
    images.check(config)
    listed = Images(config, datetime.now(UTC), table.uri)
    where = conditions.parse(config.where) if config.where else None
    wanted = Wanted(fingerprints or _NOTHING, listed.may_hold())
    with tempfile.TemporaryDirectory(prefix="masklake-lag-") as scratch:
        plan = make_plan(
            listed.pages((*names, *(where.keys if where else ()))),
            digest(table.done_keys(wanted), KEYS, wanted.fingerprints),
            wanted.fingerprints,
            Filter(where, tables=listed.asked.tables.found),
            WorkList(scratch, hive_columns=tuple(names)),
        )
        by_partition, oldest = _read(Path(scratch), names) if plan.todo_images else ({}, (None, None))
    return Lag(config.input, plan.images, plan.todo_images, plan.todo_bytes, *oldest, by_partition)


def _read(folder: Path, names: list[str]) -> tuple[dict[Partition, int], tuple[str | None, datetime | None]]:
    with connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        columns = "".join(f'"{name}", ' for name in names)
        found = database.execute(
            f"SELECT {columns} count(*), min(epoch_us(image_modified)), arg_min(image_uri, image_modified) "  # noqa: S608
            "FROM read_parquet($files) GROUP BY ALL",
            {"files": str(folder / "plan-*.parquet")},
        ).fetchall()
    by_partition = {row[: len(names)]: row[len(names)] for row in found}
    oldest = min(((row[-2], row[-1]) for row in found if row[-2] is not None), default=None)
    if oldest is None:
        return by_partition, (None, None)
    return by_partition, (oldest[1], datetime.fromtimestamp(oldest[0] / 1e6, UTC))
