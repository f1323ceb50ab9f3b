"""What the jobs that keep a table have in common: their settings, and the table they work on."""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from masklake import storage
from masklake.commands.ending import say
from masklake.table.definition import check_log
from masklake.upkeep.upkeep import UpkeepTable
from masklake.upkeep.vacuum import vacuum

_MOST_HOURS = 720  # the log, which says what was part of the table when, is kept for 30 days


def parser(prog: str, description: str | None, vacuum_hours: int) -> argparse.ArgumentParser:
    """A parser with the settings of every such job."""
    settings = argparse.ArgumentParser(
        prog=prog, description=description, allow_abbrev=False, formatter_class=argparse.RawTextHelpFormatter
    )
    settings.add_argument("--table", required=True, metavar="URI", help="the table's folder (s3://, file://, a path)")
    settings.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    settings.add_argument(
        "--vacuum-hours",
        type=in_range(int, 0, _MOST_HOURS),
        default=vacuum_hours,
        metavar="HOURS",
        help="then delete data files that were no part of the table for so long, and those that no run will ever commit;\n"
        "a reader or run that opened the table before that time may fail; 0: only the present version can be read afterwards\n"
        "(default: %(default)s)",
    )
    settings.add_argument(
        "--lease-seconds",
        type=in_range(float, 10, 86_400),
        default=30.0,
        metavar="SECONDS",
        help="an unfinished run that shows no sign of life for so long is dead: it is fenced, and its files may go (default: %(default)g)",
    )
    return settings


def in_range(kind: type[int] | type[float], least: float, most: float) -> Any:
    """A parser's type: a number in this range."""

    def parse(text: str) -> float:
        number = kind(text)
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"{text} is not between {least:g} and {most:g}")
        return number

    parse.__name__ = "number"
    return parse


@contextmanager
def opened(settings: argparse.Namespace, job: str) -> Iterator[UpkeepTable]:
    """The table of these settings, for a job of this name.

    Raises:
        Refused: there is none, or it may not be written to.
    """
    storage.check_output(settings.table, "--table")
    check_log(settings.table, "--table")
    job_id = f"{job}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
    with UpkeepTable.job(settings.table, job_id, settings.dry_run) as table:
        yield table


def vacuumed(table: UpkeepTable, settings: argparse.Namespace) -> dict[str, Any]:
    """Vacuum as the settings say; returns what the summary says of it."""
    if settings.vacuum_hours == 0 and not settings.dry_run:
        say("--vacuum-hours 0: readers and plans that opened the table before now may fail once: open it, or run the command, again")
    done = vacuum(table, settings.vacuum_hours, settings.lease_seconds, settings.dry_run, say)
    say(f"vacuum: {done.files:,} files, {done.bytes:,} bytes {'to delete' if settings.dry_run else 'deleted'}")
    if done.files and not settings.dry_run and table.published:
        say("this table is published to Iceberg, where readers may now miss deleted files: masklake publish gives them the present version")
    return {"vacuum_hours": settings.vacuum_hours, "vacuumed": asdict(done)}
