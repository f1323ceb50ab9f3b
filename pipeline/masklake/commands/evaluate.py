"""Score a table of masks against ground truth: `masklake evaluate --help`."""

from __future__ import annotations

from typing import Any

from masklake.commands.ending import Paced, leave, say
from masklake.commands.running import run
from masklake.evaluation.settings import PROGRAM, EvaluateConfig


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code. The last line on stdout is one JSON object, whatever happens."""
    return run(PROGRAM, _evaluate, argv, interrupted="interrupted; nothing was changed")


def _evaluate(settings: EvaluateConfig) -> dict[str, Any]:
    from masklake.commands.scores import tell
    from masklake.evaluation import run as evaluation
    from masklake.evaluation.report import summary

    found = evaluation.evaluate(settings, say, Paced())
    tell(found)
    return summary(found) | ({} if settings.output is None else {"output": settings.output_uri})


if __name__ == "__main__":
    leave(main())
