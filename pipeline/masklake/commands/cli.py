"""The `masklake` command: one program, one subcommand per job."""

from __future__ import annotations

import importlib
import sys
from typing import NoReturn

from masklake.commands.ending import leave

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


def main(argv: list[str] | None = None) -> int:
    """Run the named job; returns its exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: masklake JOB [--help] [settings]\n\njobs:")
        for name, text in COMMANDS.items():
            print(f"  {name:<11}{text}")
        return 0 if arguments else 2
    if arguments[0] not in COMMANDS:
        print(f"masklake: no job is called {arguments[0]!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    code: int = importlib.import_module(f"masklake.commands.{arguments[0]}").main(arguments[1:])
    return code


def run() -> NoReturn:
    """The `masklake` program."""
    leave(main())


if __name__ == "__main__":
    run()
