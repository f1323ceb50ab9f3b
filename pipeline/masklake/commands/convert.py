"""Make a checkpoint into a folder of its own."""

from __future__ import annotations

from typing import Any

from masklake.commands.lines import say
from masklake.conversion.run import convert
from masklake.conversion.settings import ConvertConfig


def work(settings: ConvertConfig) -> dict[str, Any]:
    """Convert; returns the summary."""
    return convert(settings.model, settings.output, say)
