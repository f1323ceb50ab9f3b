"""Merge the small files of a table of masks into large ones."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from masklake.commands import keeping
from masklake.commands.ending import Paced
from masklake.commands.lines import say
from masklake.spelling import plural
from masklake.upkeep.compact import compact
from masklake.upkeep.compact_settings import CompactConfig


def work(settings: CompactConfig) -> dict[str, Any]:
    """Compact and vacuum; returns the summary."""
    with keeping.opened(settings, "compact") as table:
        done = compact(table, settings.target_bytes, settings.drop_superseded, settings.dry_run, say, Paced())
        if settings.dry_run and settings.vacuum_hours == 0 and done.merged_files:
            say(f"vacuum: {plural(done.merged_files, 'file that is merged', 'files that are merged')} would go as well")
        outcome = "planned" if settings.dry_run else "compacted" if done.merged_files else "nothing to do"
        return {"outcome": outcome, "table": table.uri, **asdict(done), **keeping.vacuumed(table, settings)}
