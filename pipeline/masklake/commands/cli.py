"""The `masklake` command: one program, one subcommand for each thing to do with a lake and its table.

A command is a `Program`, in the settings of its room, and the function `work` of the module here that has its name. The program alone
answers `--help` and refuses what is wrong; the work is imported once its settings are right.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from masklake import __version__, leaving
from masklake.commands import lines
from masklake.commands.ending import end_with
from masklake.commands.running import run as run_command
from masklake.commands.watched import run_watched
from masklake.config import Program
from masklake.config.closest import closest
from masklake.errors import Refused

COMMANDS = {
    "segment": ("masklake.segment.settings", "segment a lake of images into a table of masks"),
    "status": ("masklake.status.settings", "show a table from outside: runs, partitions, errors, classes that moved, what is to do"),
    "browse": ("masklake.browse.settings", "look at a table of masks on a local page: filters, pictures, ground truth, lists to hand on"),
    "compact": ("masklake.upkeep.compact_settings", "merge a table's small files, drop superseded rows if asked, and vacuum"),
    "erase": ("masklake.upkeep.erase_settings", "erase images from a table and its history, by URI or because the lake no longer has them"),
    "export": ("masklake.export.settings", "export a table of masks to COCO, YOLO, CVAT, GeoJSON, label maps, pictures, ..."),
    "publish": ("masklake.export.iceberg.settings", "publish a table of masks to an Apache Iceberg catalog, without rewriting data"),
    "evaluate": ("masklake.evaluation.settings", "score a table of masks against ground truth: PQ, AP, mIoU"),
    "finetune": ("masklake.training.settings", "fine-tune a model, or train one, on ground truth or a table's own rows"),
    "models": ("masklake.commands.models_settings", "list the released checkpoints that work, and what each was trained for"),
    "convert": ("masklake.conversion.settings", "make a checkpoint into a folder of its own, pickled weights into safetensors"),
    "demo": ("masklake.demo.settings", "the whole job on an embedded S3 server with generated images"),
    "completion": ("masklake.commands.completion_settings", "print a script that completes commands, flags and values in bash or zsh"),
}
"""Command -> where its `PROGRAM` is, and what it does."""

_WITHOUT_TABLES = ("models", "convert", "completion")
_MORE = {"help": "show what a command does, its settings and examples", "--version": "show the version"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the named command; returns its exit code."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or [""]
    if name in ("help", "-h", "--help"):
        return _help(rest)
    if name in ("--version", "-V", "version"):
        print(f"masklake {__version__}")
        return 0
    return _run(name, rest)


def run() -> NoReturn:
    """The `masklake` program."""
    run_watched(main)


def program(name: str) -> Program[Any]:
    """The program of a command."""
    found: Program[Any] = importlib.import_module(COMMANDS[name][0]).PROGRAM
    return found


def _run(name: str, arguments: Sequence[str]) -> int:
    if name not in COMMANDS:
        return end_with(lambda: _refuse(name))
    return run_command(program(name), lambda settings: _work(name, settings), arguments, settings_of_all)


def _work(name: str, settings: Any) -> dict[str, Any]:
    if leaving.is_with_job() and name not in _WITHOUT_TABLES:
        from masklake import pandas_later  # pyarrow

        pandas_later.answer_pyarrow()
    if leaving.is_with_job() and name == "segment":
        from masklake.inference import sparing

        sparing.allow(settings.forward)
    summary: dict[str, Any] = importlib.import_module(f"masklake.commands.{name}").work(settings)
    return summary


def settings_of_all() -> Iterator[str]:
    """The names of every command's settings."""
    for name in COMMANDS:
        yield from program(name).names


def _help(names: Sequence[str]) -> int:
    if names:
        return _run(names[0], ["--help"])
    print(_overview())
    return 0


def _overview() -> str:
    lines = [f"  {name:<12}{text}" for name, text in {**{name: text for name, (_, text) in COMMANDS.items()}, **_MORE}.items()]
    return "\n".join(["usage: masklake COMMAND [settings]", "", *lines, "", "masklake help COMMAND shows its settings and examples."])


def _refuse(name: str) -> NoReturn:
    if not name:
        if not lines.are_json():
            print(_overview(), file=sys.stderr)
        raise Refused("no command is named")
    close = closest(name, [*COMMANDS, *_MORE])
    raise Refused(f"no command is called {name!r}" + (f": did you mean {close!r}?" if close else f"; there are {', '.join(COMMANDS)}"))


if __name__ == "__main__":
    run()
