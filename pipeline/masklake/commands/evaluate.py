"""Score a table of masks against ground truth."""

from __future__ import annotations

from typing import Any

from masklake.commands.ending import Paced, say
from masklake.commands.scores import tell
from masklake.evaluation import run
from masklake.evaluation.report import summary
from masklake.evaluation.settings import EvaluateConfig


def work(settings: EvaluateConfig) -> dict[str, Any]:
    """Run the evaluation and show its figures; returns the summary."""
    found = run.evaluate(settings, say, Paced())
    tell(found)
    return summary(found) | ({} if settings.output is None else {"output": settings.output_uri})
