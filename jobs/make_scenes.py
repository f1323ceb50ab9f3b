"""Write generated scenes as a data set in COCO's panoptic format: `python -m jobs.make_scenes --help`."""

from __future__ import annotations

import sys
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from masklake import storage
from masklake.commands import cli
from masklake.commands.ending import Paced
from masklake.commands.running import run
from masklake.config import Program, Shown, Uri
from masklake.demo.scene_data import write_coco_panoptic
from masklake.demo.scenes import FIRST_TRAINING_SEED, HELD_OUT
from masklake.errors import Refused

_SCENES = 8000


class ScenesConfig(BaseModel):
    """All settings of the program."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output: Uri = Field(description="folder for the data set (s3://, file://, a path)")
    held_out: bool = Field(False, description="those that nothing here is trained on, to judge by")
    scenes: Annotated[int | None, Shown("SCENES")] = Field(None, ge=0, description=f"how many (default: {_SCENES}; all that are held out)")
    first: Annotated[int, Shown("SCENES")] = Field(0, description="leave out so many before them: scenes that another set does not have")
    side: Annotated[int, Shown("PIXELS")] = Field(160, ge=1, description="shorter side of a scene")


PROGRAM = Program(
    "python -m jobs.make_scenes",
    ScenesConfig,
    {"the scenes": ScenesConfig},
    about="Write generated scenes as a data set in COCO's panoptic format, to train on and to judge by.",
    examples={
        "python -m jobs.make_scenes --output build/scenes": "training scenes; held-out ones are never among them",
        "python -m jobs.make_scenes --output build/held-out --held-out": "scenes to judge by",
        "python -m jobs.make_scenes --output build/more --first 8000 --scenes 4000": "further ones",
    },
    interrupted="interrupted; panoptic.json is not written, run the same command again",
)


def main(argv: list[str] | None = None) -> int:
    """Write the scenes; returns the exit code. The last line on stdout is one JSON object."""
    return run(PROGRAM, _write, sys.argv[1:] if argv is None else argv, cli.settings_of_all)


def _write(settings: ScenesConfig) -> dict[str, Any]:
    output = storage.normalise(settings.output).rstrip("/")
    storage.check_output(output, "--output")
    tell = Paced()
    count = settings.scenes
    if count is None:
        count = len(HELD_OUT) if settings.held_out else _SCENES
    if settings.first < 0:
        raise Refused(f"--first {settings.first}: is a number of scenes, 0 or more")
    if settings.held_out and settings.first + count > len(HELD_OUT):
        first = f"--first {settings.first}, " if settings.first else ""
        raise Refused(f"{first}--scenes {count}: there are {len(HELD_OUT)} held-out scenes")
    begin = settings.first + (HELD_OUT.start if settings.held_out else FIRST_TRAINING_SEED)
    seeds = range(begin, begin + count)
    done = write_coco_panoptic(output, seeds, settings.side, lambda written: tell(f"{written}/{count} scenes"))
    return {"outcome": "written", "output": output, "scenes": done}


if __name__ == "__main__":
    sys.exit(main())
