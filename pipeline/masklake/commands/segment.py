"""Segment a lake of images into a table of masks."""

from __future__ import annotations

import os
import sys
import webbrowser
from typing import Any

from masklake import storage
from masklake.commands import lines
from masklake.commands.progress import show_progress
from masklake.segment import run as job
from masklake.segment.settings import Config

TOO_MANY_FAILED = 3


def work(settings: Config) -> dict[str, Any]:
    """Run the job; returns its summary."""
    if settings.output:
        lines.about(storage.normalise(settings.output).rstrip("/"))
    with show_progress() as progress:
        summary = job.segment(settings, progress)
    if has_browser() and str(summary.get("page")).startswith("file:"):
        webbrowser.open(summary["page"])
    return {**summary, "exit_code": TOO_MANY_FAILED if summary["too_many_failed"] else 0}


def has_browser() -> bool:
    """Whether somebody sits before this machine who could see a page open."""
    windows = sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return bool(windows) and sys.stderr.isatty()
