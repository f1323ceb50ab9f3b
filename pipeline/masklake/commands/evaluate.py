"""Score a table of masks against ground truth."""

from __future__ import annotations

from typing import Any

from masklake.commands import lines
from masklake.commands.ending import Paced
from masklake.commands.lines import say
from masklake.commands.scores import tell
from masklake.evaluation import run
from masklake.evaluation.report import summary
from masklake.evaluation.settings import EvaluateConfig


def work(settings: EvaluateConfig) -> dict[str, Any]:
    """Run the evaluation and show its figures; returns the summary."""
    found = run.evaluate(settings, say, Paced())
    if not lines.are_json():  # else the last line has the scores; each class is in the report
        tell(found)
    return summary(found) | ({} if settings.output is None else {"output": settings.output_uri})
