"""Completion of commands, flags and values in a shell, by a script that shtab makes of the parsers."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, NoReturn

import shtab

from masklake.commands import cli
from masklake.commands.completion_settings import CompletionConfig
from masklake.config import Program
from masklake.config.flags import parser_of
from masklake.config.kinds import choices

_ON_DISK = {"FILE": shtab.FILE, "FOLDER": shtab.DIRECTORY, "URI": shtab.FILE, "MODEL": shtab.FILE}


def work(settings: CompletionConfig) -> NoReturn:
    """Print the script, and nothing after it: a shell reads it.

    Raises:
        SystemExit: always, with code 0.
    """
    programs = {name: cli.program(name) for name in cli.COMMANDS}
    print(script(programs, settings.shell))
    raise SystemExit(0)


def script(programs: Mapping[str, Program[Any]], shell: str) -> str:
    """The script for a shell that shtab knows."""
    parser = argparse.ArgumentParser(prog="masklake")
    parser.add_argument("--version", action="version", help="show the version", version="")
    commands = parser.add_subparsers()
    for name, program in programs.items():
        commands.add_parser(name, parents=[_completed(program)], add_help=False, help=cli.COMMANDS[name][1])
    helped = commands.add_parser("help", help="show what a command does", add_help=False).add_argument("command", nargs="?")
    helped.choices = list(programs)
    text: str = shtab.complete(parser, shell)
    return text


def _completed(program: Program[Any]) -> argparse.ArgumentParser:
    """A command's parser, in which each flag knows its values."""
    parser = parser_of(program)
    for action in parser._actions:
        field = program.fields.get(action.dest)
        if field and (words := choices(field)):
            action.choices = words
        elif kind := _ON_DISK.get(str(action.metavar)):
            action.complete = kind  # type: ignore[attr-defined]
    return parser
