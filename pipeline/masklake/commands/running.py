"""A command from its arguments to its exit code: its settings, what must be installed for it, its work, its ending."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from masklake.commands import cli, extras
from masklake.commands.ending import end_with
from masklake.config import Program, resolve
from masklake.config.program import S

_INTERRUPTED = "interrupted; what was committed stays, run the same command to go on"


def run(program: Program[S], work: Callable[[S], dict[str, Any]], argv: Sequence[str] | None, interrupted: str = _INTERRUPTED) -> int:
    """Run a command; returns its exit code. The last line on stdout is one JSON object, whatever happens.

    Args:
        program: the command.
        work: from its settings to its summary; imports what takes long itself, so that `--help` and refusals are quick.
        argv: its arguments; None: those of this process.
        interrupted: what to say where the user, or the cluster, ends it.
    """

    def all_of_it() -> dict[str, Any]:
        settings = resolve(sys.argv[1:] if argv is None else argv, program, _settings_elsewhere)
        extras.demand(program.needs, program.name)
        try:
            return work(settings)
        except ModuleNotFoundError as error:
            raise extras.in_words(error, program.name) or error from error

    return end_with(all_of_it, interrupted)


def _settings_elsewhere() -> Iterator[str]:
    for program in cli.programs().values():
        yield from program.names
