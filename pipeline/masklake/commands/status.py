"""Show a table and its runs from outside."""

from __future__ import annotations

from typing import Any

from masklake.status import run, words
from masklake.status.settings import StatusConfig


def work(settings: StatusConfig) -> dict[str, Any]:
    """Look, and print what a person reads; returns everything."""
    found = run.status(settings)
    if not settings.only_json:
        print("\n".join(words.lines(found)), flush=True)
    return found
