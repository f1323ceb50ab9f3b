"""Export a table of masks to files that other tools read."""

from __future__ import annotations

from typing import Any

from masklake.commands.ending import Paced
from masklake.commands.lines import say
from masklake.export import run
from masklake.export.settings import ExportConfig


def work(settings: ExportConfig) -> dict[str, Any]:
    """Run the export; returns the summary."""
    return run.export(settings, say, Paced())
