"""What the commands that keep a table have in common: the table they work on, and the vacuum."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from masklake import storage
from masklake.commands.lines import say
from masklake.spelling import plural
from masklake.table.definition import check_log
from masklake.upkeep.settings import KeepingConfig
from masklake.upkeep.upkeep import UpkeepTable
from masklake.upkeep.vacuum import vacuum


@contextmanager
def opened(settings: KeepingConfig, job: str) -> Iterator[UpkeepTable]:
    """The table of these settings, for a job of this name.

    Raises:
        Refused: there is none, or it may not be written to.
    """
    storage.check_output(settings.table, "--table")
    check_log(settings.table, "--table")
    job_id = f"{job}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
    with UpkeepTable.job(settings.table, job_id, settings.changes_nothing) as table:
        yield table


def vacuumed(table: UpkeepTable, settings: KeepingConfig) -> dict[str, Any]:
    """Vacuum as the settings say; returns what the summary says of it."""
    if settings.vacuum_hours == 0 and not settings.changes_nothing:
        say("--vacuum-hours 0: readers and plans that opened the table before now may fail once: open it, or run the command, again")
    done = vacuum(table, settings.vacuum_hours, settings.lease_seconds, settings.changes_nothing, say)
    say(f"vacuum: {plural(done.files, 'file')}, {plural(done.bytes, 'byte')} {'to delete' if settings.changes_nothing else 'deleted'}")
    if done.files and not settings.changes_nothing and table.published:
        say("this table is published to Iceberg, where readers may now miss deleted files: masklake publish gives them the present version")
    return {"vacuum_hours": settings.vacuum_hours, "vacuumed": asdict(done)}
