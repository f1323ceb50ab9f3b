"""Look at a table of masks in a browser."""

from __future__ import annotations

from typing import Any

from masklake.browse import serve
from masklake.browse.settings import BrowseConfig
from masklake.commands.lines import say


def work(settings: BrowseConfig) -> dict[str, Any]:
    """Serve the page until it is ended; returns the summary."""
    return {"outcome": "done", "table": settings.table_uri, "rows": serve.browse(settings, say)}
