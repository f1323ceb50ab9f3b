"""A command from its arguments to its exit code: its settings, what must be installed for it, its work, its ending."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from masklake.commands import lines
from masklake.commands.ending import end_with
from masklake.config import Program, extras, resolve
from masklake.config.program import S


def run(
    program: Program[S], work: Callable[[S], dict[str, Any]], argv: Sequence[str], elsewhere: Callable[[], Iterable[str]] = tuple
) -> int:
    """Run a command; returns its exit code. The last line on stdout is one JSON object, whatever happens.

    Args:
        program: the command.
        work: from its settings to its summary.
        argv: its arguments.
        elsewhere: the settings of other commands.
    """

    def all_of_it() -> dict[str, Any]:
        lines.check()
        settings = resolve(argv, program, elsewhere, lines.say)
        if table := getattr(settings, "table", None):  # before its stores are asked: what they say is about it as well
            lines.about(table.rstrip("/"))
        extras.demand(program.needs, program.name)
        try:
            return work(settings)
        except ModuleNotFoundError as error:
            if lacking := extras.in_words(error, program.name):
                raise lacking from error
            raise

    return end_with(all_of_it, program.interrupted)
