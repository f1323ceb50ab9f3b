"""Write generated scenes as a data set in COCO's panoptic format, to train on and to judge by.

python -m jobs.make_scenes --output build/scenes                    # training scenes; held-out ones are never among them
python -m jobs.make_scenes --output build/held-out --held-out
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from masklake import storage
from masklake.commands.ending import Paced, end_with
from masklake.demo.scene_data import write_coco_panoptic
from masklake.demo.scenes import FIRST_TRAINING_SEED, HELD_OUT
from masklake.errors import Refused

_SCENES = 8000


def main(argv: list[str] | None = None) -> int:
    """Write the scenes; returns the exit code. The last line on stdout is one JSON object."""
    arguments = _parser().parse_args(argv)
    return end_with(lambda: _write(arguments), interrupted="interrupted; panoptic.json is not written, run the same command again")


def _write(arguments: argparse.Namespace) -> dict[str, Any]:
    output = storage.normalise(arguments.output).rstrip("/")
    storage.check_output(output, "--output")
    tell = Paced()
    count = arguments.scenes
    if count is None:
        count = len(HELD_OUT) if arguments.held_out else _SCENES
    if arguments.first < 0:
        raise Refused(f"--first {arguments.first}: is a number of scenes, 0 or more")
    if arguments.held_out and arguments.first + count > len(HELD_OUT):
        first = f"--first {arguments.first}, " if arguments.first else ""
        raise Refused(f"{first}--scenes {count}: there are {len(HELD_OUT)} held-out scenes")
    begin = arguments.first + (HELD_OUT.start if arguments.held_out else FIRST_TRAINING_SEED)
    seeds = range(begin, begin + count)
    done = write_coco_panoptic(output, seeds, arguments.side, lambda written: tell(f"{written}/{count} scenes"))
    return {"outcome": "written", "output": output, "scenes": done}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.make_scenes", description=__doc__, formatter_class=argparse.RawTextHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--output", required=True, help="folder for the data set (s3://, file://, a path)")
    parser.add_argument("--held-out", action="store_true", help="those that nothing here is trained on, to judge by")
    parser.add_argument("--scenes", type=int, help=f"how many (default: {_SCENES}; all that are held out)")
    parser.add_argument("--first", type=int, default=0, help="leave out so many before them: scenes that another set does not have")
    parser.add_argument("--side", type=int, default=160, help="shorter side of a scene, pixels (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
