"""The `masklake` command: one program, one subcommand for each thing to do with a lake and its table."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from masklake.commands.ending import end_with, leave
from masklake.config import Program
from masklake.config.closest import closest
from masklake.errors import Refused

COMMANDS = {
    "segment": "segment a lake of images into a table of masks",
    "compact": "merge a table's small files, drop superseded rows if asked, and vacuum",
    "erase": "erase images from a table and its past, by URI or because the lake has them no more",
    "export": "export a table of masks to COCO JSON, COCO panoptic, label maps or a flat Parquet",
    "publish": "publish a table of masks to an Apache Iceberg catalog, without rewriting data",
    "evaluate": "score a table of masks against ground truth: PQ, AP, mIoU",
    "finetune": "fine-tune a model, or train one, on COCO data, label maps or a table's own rows",
    "demo": "the whole job on an embedded S3 server with generated images",
}
_MORE = {"help": "show what a command does, its settings and examples", "--version": "show the version"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the named command; returns its exit code."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or [""]
    if name in ("help", "-h", "--help"):
        return _help(rest)
    if name in ("--version", "-V", "version"):
        print(f"masklake {_version()}")
        return 0
    if name not in COMMANDS:
        return end_with(_refuser(name))
    code: int = _module(name).main(rest)
    return code


def run() -> NoReturn:
    """The `masklake` program."""
    leave(main())


def programs() -> dict[str, Program[Any]]:
    """Every command's program, by the command's name."""
    return {name: _module(name).PROGRAM for name in COMMANDS if hasattr(_module(name), "PROGRAM")}


def _module(name: str) -> Any:
    return importlib.import_module(f"masklake.commands.{name}")


def _help(names: Sequence[str]) -> int:
    if not names:
        print(_overview())
        return 0
    if names[0] not in COMMANDS:
        return end_with(_refuser(names[0]))
    code: int = _module(names[0]).main(["--help"])
    return code


def _overview() -> str:
    lines = [f"  {name:<11}{text}" for name, text in {**COMMANDS, **_MORE}.items()]
    return "\n".join(["usage: masklake COMMAND [settings]", "", *lines, "", "masklake help COMMAND shows its settings and examples."])


def _refuser(name: str) -> Callable[[], dict[str, Any]]:
    def refuse() -> dict[str, Any]:
        if not name:
            raise Refused(f"{_overview()}\nno command was given")
        close = closest(name, [*COMMANDS, *_MORE])
        raise Refused(f"no command is called {name!r}" + (f": did you mean {close!r}?" if close else f"; there are {', '.join(COMMANDS)}"))

    return refuse


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("masklake")
    except metadata.PackageNotFoundError:
        return "(not installed: run from its sources)"


if __name__ == "__main__":
    run()
