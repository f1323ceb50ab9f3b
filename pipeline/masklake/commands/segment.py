"""Segment a lake of images into a table of masks: `masklake segment --help`."""

from __future__ import annotations

import sys
from typing import Any

from masklake import config
from masklake.commands.ending import end_with, leave
from masklake.commands.progress import show_progress
from masklake.segment import run as job

PROG = "masklake segment"
TOO_MANY_FAILED = 3


def main(argv: list[str] | None = None) -> int:
    """Run the job; returns its exit code. The last line on stdout is one JSON object, whatever happens."""
    return end_with(lambda: _segment(sys.argv[1:] if argv is None else argv))


def _segment(argv: list[str]) -> dict[str, Any]:
    settings = config.load(argv, PROG)
    with show_progress() as progress:
        summary = job.segment(settings, progress)
    return {**summary, "exit_code": TOO_MANY_FAILED if summary["too_many_failed"] else 0}


if __name__ == "__main__":
    leave(main())
