"""Write generated scenes as a data set in COCO's panoptic format, to train the demo model on.

python -m jobs.make_scenes --output build/scenes --scenes 8000        # training scenes; held-out ones are never among them
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from jobs.ending import Paced, end_with
from pipeline import storage
from pipeline.training.scene_data import write_coco_panoptic
from pipeline.training.scenes import FIRST_TRAINING_SEED


def main(argv: list[str] | None = None) -> int:
    """Write the scenes; returns the exit code. The last line on stdout is one JSON object."""
    arguments = _parser().parse_args(argv)
    return end_with(lambda: _write(arguments), interrupted="interrupted; panoptic.json is not written, run the same command again")


def _write(arguments: argparse.Namespace) -> dict[str, Any]:
    output = storage.normalise(arguments.output).rstrip("/")
    storage.check_output(output, "--output")
    tell = Paced()
    seeds = range(FIRST_TRAINING_SEED, FIRST_TRAINING_SEED + arguments.scenes)
    done = write_coco_panoptic(output, seeds, arguments.side, lambda count: tell(f"{count}/{arguments.scenes} scenes"))
    return {"outcome": "written", "output": output, "scenes": done}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.make_scenes", description=__doc__, formatter_class=argparse.RawTextHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--output", required=True, help="folder for the data set (s3://, file://, a path)")
    parser.add_argument("--scenes", type=int, default=8000, help="how many (default: %(default)s)")
    parser.add_argument("--side", type=int, default=160, help="shorter side of a scene, pixels (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
