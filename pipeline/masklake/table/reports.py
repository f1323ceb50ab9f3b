"""The reports that a table's runs left beside it, as the JSON that they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from masklake import storage
from masklake.errors import ImageFailure
from masklake.table.runs import run_folder

_PAGES = 10  # of folders that are looked into: runs that did not end left no report


def reports(table_uri: str, run_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The reports of these runs, where they left one that can be read."""
    contents = storage.read_many([run_folder(table_uri, run_id) + "report.json" for run_id in run_ids])
    told = {run_id: _parsed(content) for run_id, content in zip(run_ids, contents, strict=True) if not isinstance(content, ImageFailure)}
    return {run_id: report for run_id, report in told.items() if report}


def last_reports(table_uri: str, most: int) -> list[dict[str, Any]]:
    """The reports of the last runs that left one, newest first: their names begin with the time."""
    names = sorted((name.rstrip("/") for name in storage.list_names(run_folder(table_uri, "").rstrip("/") + "/")), reverse=True)
    found: list[dict[str, Any]] = []
    for first in range(0, min(len(names), _PAGES * most), most):
        page = names[first : first + most]
        told = reports(table_uri, page)
        found += [told[name] for name in page if name in told]
        if len(found) >= most:
            break
    return found[:most]


def _parsed(content: bytes) -> dict[str, Any] | None:
    try:
        report = json.loads(content)
    except ValueError:
        return None
    return report if isinstance(report, dict) else None
