"""Merge the small files of a table of masks into large ones, and vacuum. It may run beside any number of segment runs.

masklake compact --table s3://lake/masks
masklake compact --table s3://lake/masks --drop-superseded --dry-run
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import Any

from masklake.commands import keeping
from masklake.commands.ending import Paced, end_with, say
from masklake.upkeep.compact import compact

_MEGABYTE = 1_000_000


def main(argv: list[str] | None = None) -> int:
    """Run the job; returns its exit code. The last line on stdout is one JSON object, whatever happens."""
    settings = settings_parser().parse_args(argv)
    return end_with(lambda: _compact(settings))


def _compact(settings: argparse.Namespace) -> dict[str, Any]:
    with keeping.opened(settings, "compact") as table:
        done = compact(table, round(settings.target_mb * _MEGABYTE), settings.drop_superseded, settings.dry_run, say, Paced())
        if settings.dry_run and settings.vacuum_hours == 0 and done.merged_files:
            say(f"vacuum: the {done.merged_files:,} files that are merged would go as well")
        outcome = "planned" if settings.dry_run else "compacted" if done.merged_files else "nothing to do"
        return {"outcome": outcome, "table": table.uri, **asdict(done), **keeping.vacuumed(table, settings)}


def settings_parser() -> argparse.ArgumentParser:
    """The job's settings."""
    parser = keeping.parser("masklake compact", __doc__, vacuum_hours=168)
    parser.add_argument(
        "--target-mb",
        type=keeping.in_range(float, 0.001, 1024),
        default=128.0,
        metavar="MB",
        help="size of a merged file, about; memory grows with it; larger files are left alone (default: %(default)g)",
    )
    parser.add_argument(
        "--drop-superseded",
        action="store_true",
        help="leave out rows of an image and task of which there is a newer row (another etag, model or setting, or an error retried);\n"
        "a successful answer goes only for a newer successful one. A run with the older model or setting would do its images again",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
