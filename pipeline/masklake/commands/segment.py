"""Segment a lake of images into a table of masks: `masklake segment --help`."""

from __future__ import annotations

from typing import Any

from masklake.commands.ending import leave
from masklake.commands.running import run
from masklake.segment.settings import PROGRAM, Config

TOO_MANY_FAILED = 3


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code. The last line on stdout is one JSON object, whatever happens."""
    return run(PROGRAM, _segment, argv)


def _segment(settings: Config) -> dict[str, Any]:
    from masklake.commands.progress import show_progress
    from masklake.segment import run as job

    with show_progress() as progress:
        summary = job.segment(settings, progress)
    return {**summary, "exit_code": TOO_MANY_FAILED if summary["too_many_failed"] else 0}


if __name__ == "__main__":
    leave(main())
