"""Seconds from SIGTERM or Ctrl-C to the end of each command, whatever it was about: too many processes for every change, tried by hand.

    python -m tests.stop_trials                        # all commands, each stopped at six moments of its way; 8 minutes
    python -m tests.stop_trials --only compact,erase

A whole run tells how long each takes; then it is stopped at a tenth, a quarter, ... of that. One JSON line a command; exit code 1 where one
ended otherwise than a stop, or took more than three seconds. Measure on a machine with nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from tests import trainings
from tests.lakes import MODEL, ROOT, scene
from tests.tables import begun, files

IMAGES, FILES = 300, 400
MOMENTS = (0.1, 0.25, 0.4, 0.6, 0.75, 0.9)
"""Shares of a whole run's time at which the signal is sent, SIGTERM and Ctrl-C in turn."""

MOST_SECONDS = 3.0
Command = Sequence[str | Path]


class Trials:
    """A lake, a table of it, ground truth, and each command on copies of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        scenes = [scene(index) for index in range(8)]
        (folder / "images").mkdir()
        for index in range(IMAGES):
            (folder / "images" / f"scene-{index:03d}.jpg").write_bytes(scenes[index % 8])
        subprocess.run(_masklake(self._segment(folder / "masks", "--local")), cwd=ROOT, check=True, capture_output=True)
        table = begun(folder / "pieces", "run-1")
        names = [f"{index:03d}" for index in range(FILES)]
        for first in range(0, FILES, 20):
            table.commit([made for name in names[first : first + 20] for made in files(table, "run-1", [name])])
        table.finish_run()
        learned = ("--format", "coco-panoptic", "--output", folder / "truth")
        subprocess.run(_masklake(("export", "--table", folder / "masks", *learned)), cwd=ROOT, check=True, capture_output=True)

    def commands(self) -> dict[str, Callable[[Path], Command]]:
        """What is stopped: the command, given a folder that is new each time."""
        masks, pieces = self._folder / "masks", self._folder / "pieces"
        some = sorted((self._folder / "images").iterdir())[:: IMAGES // 50]  # in many of the files, which are all written anew
        truth = ("--truth", self._folder / "truth")

        def copy(of: Path, to: Path) -> Path:
            return Path(shutil.copytree(of, to / "table"))

        return {
            "segment --local": lambda new: self._segment(new / "masks", "--local"),
            "segment on Ray": lambda new: self._segment(new / "masks", "--no-local"),
            "compact": lambda new: ("compact", "--table", copy(pieces, new)),
            "erase": lambda new: ("erase", "--table", copy(masks, new), *some),
            "export": lambda new: ("export", "--table", masks, "--format", "label-maps", "--output", new / "out"),
            "publish": lambda new: ("publish", "--table", copy(masks, new), "--catalog-file", new / "catalog.db", "--name", "lake.masks"),
            "evaluate": lambda new: ("evaluate", "--table", masks, *truth, "--output", new / "out"),
            "finetune": self._finetune,
            "finetune on Ray": lambda new: (*self._finetune(new), "--no-local"),
        }

    def _segment(self, table: Path, engine: str) -> Command:
        places = ("--input", self._folder / "images", "--output", table, "--model", MODEL)
        return ("segment", *places, "--rows-per-file", "8", "--commit-seconds", "0.3", engine)

    def _finetune(self, new: Path) -> Command:
        model = trainings.model("mask2former", new)
        given = trainings.settings(trainings.scenes(new / "scenes"), new / "out", model, steps=60, validate_every=20, save_every=5)
        told = {name: value for name, value in given.model_dump(mode="json").items() if value not in (None, [])}
        (new / "settings.yaml").write_text(yaml.safe_dump(told))
        return ("finetune", "--config", new / "settings.yaml")

    def stopped(self, name: str) -> dict[str, Any]:
        """A whole run, and then the stops of a command."""
        whole = self._one(name, None)
        stops = [self._one(name, (number, share * whole["seconds"])) for share, number in zip(MOMENTS, _signals(), strict=False)]
        slowest = max(stops, key=lambda stop: float(stop["seconds"]))
        # A process that has not come to its first line dies of the signal itself; one may be over before it comes.
        right = all(stop["code"] in {0, 128 + stop["signal"], -stop["signal"]} for stop in stops) and whole["code"] == 0
        return {
            "ok": right and slowest["seconds"] <= MOST_SECONDS,
            "whole_seconds": whole["seconds"],
            "stop_seconds": [stop["seconds"] for stop in stops],
            "codes": [stop["code"] for stop in stops],
            **({} if right else {"said": [stop["said"] for stop in stops if stop["code"] not in {0, 130, 143}]}),
        }

    def _one(self, name: str, stop: tuple[int, float] | None) -> dict[str, Any]:
        """Run it, stopped where that is asked for; seconds from the signal, or from the start, to the end."""
        new = Path(tempfile.mkdtemp(dir=self._folder))
        command = self.commands()[name](new)
        began = time.monotonic()
        process = subprocess.Popen(_masklake(command), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if stop:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=stop[1])
            began = time.monotonic()
            process.send_signal(stop[0])
        _, said = process.communicate(timeout=600)
        seconds = round(time.monotonic() - began, 2)
        shutil.rmtree(new)
        return {"seconds": seconds, "code": process.returncode, "signal": stop[0] if stop else 0, "said": said[-300:]}


def _masklake(command: Command) -> list[str]:
    return [sys.executable, "-m", "masklake", *map(str, command)]


def main(argv: list[str] | None = None) -> int:
    """Run the trials; exit code 1 where one found otherwise."""
    parser = argparse.ArgumentParser(prog="python -m tests.stop_trials", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", help="which, separated by commas (default: all)")
    arguments = parser.parse_args(argv)
    right = True
    with tempfile.TemporaryDirectory(prefix="stops-") as folder:
        trials = Trials(Path(folder))
        for name in arguments.only.split(",") if arguments.only else trials.commands():
            facts = trials.stopped(name)
            print(json.dumps({"stopped": name, **facts, "load": round(os.getloadavg()[0], 1)}), flush=True)
            right &= facts["ok"]
    return 0 if right else 1


def _signals() -> Sequence[int]:
    return (signal.SIGTERM, signal.SIGINT) * len(MOMENTS)


if __name__ == "__main__":
    sys.exit(main())
