"""Publish a table of masks to Apache Iceberg."""

from __future__ import annotations

from typing import Any

from masklake.commands.ending import Paced
from masklake.commands.lines import say
from masklake.export.iceberg.publish import publish
from masklake.export.iceberg.settings import PublishConfig


def work(settings: PublishConfig) -> dict[str, Any]:
    """Run the publication; returns the summary."""
    return publish(settings, say, Paced())
