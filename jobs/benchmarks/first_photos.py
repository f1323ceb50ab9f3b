"""Measure what the first photographs take, and a run that finds nothing to do, beside the least that is possible.

    python -m jobs.benchmarks.first_photos --photos 10 --rounds 3

In each round, in turn, each a process of its own: the floor (`peers/floor.py`), the same with as few imports as a run has,
`masklake segment` as it chooses, the same again with nothing to do, and on Ray. Seconds of the whole process and of CPU, its children's
included, are medians; ratios are of these.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from jobs.benchmarks.process_tree import watched
from masklake.demo import MODEL
from masklake.demo.scenes import HELD_OUT, jpeg, photograph

FLOOR, SPARING = "floor", "floor, sparing"
RESULT = Path(__file__).parent / "results" / "first-photos.json"


@dataclass(frozen=True)
class Taken:
    """What a process took, in seconds."""

    seconds: float
    cpu_seconds: float


def main(argv: list[str] | None = None) -> int:
    """Measure, print and write the result."""
    arguments = _parser().parse_args(argv)
    rounds: list[dict[str, Taken]] = []
    with tempfile.TemporaryDirectory(prefix="first-photos-") as folder:
        photos = Path(folder, "photos")
        photos.mkdir()
        for index in range(arguments.photos):
            (photos / f"{index:03d}.jpg").write_bytes(jpeg(photograph(HELD_OUT[index])))
        for number in range(arguments.rounds):
            rounds.append(_round(photos, Path(folder), number, arguments))
            print(json.dumps({name: asdict(taken) for name, taken in rounds[-1].items()}), flush=True)
    result = {
        "photos": arguments.photos,
        "model": arguments.model.name,
        "machine": {"cpus": len(os.sched_getaffinity(0)), "system": platform.platform(), "load": os.getloadavg()[0]},
        "rounds": [{name: asdict(taken) for name, taken in each.items()} for each in rounds],
        "medians": {name: asdict(_median([each[name] for each in rounds])) for name in rounds[0]},
    }
    ours = _median([each["masklake"] for each in rounds])
    for name, over in ((FLOOR, "over_floor"), (SPARING, "over_sparing_floor")):
        floor = _median([each[name] for each in rounds])
        result[over] = {"seconds": ours.seconds / floor.seconds, "cpu_seconds": ours.cpu_seconds / floor.cpu_seconds}
    arguments.result.write_text(json.dumps(result, indent=1) + "\n")
    print(*(json.dumps(result[part]) for part in ("medians", "over_floor", "over_sparing_floor")), sep="\n")
    return 0


def _round(photos: Path, folder: Path, number: int, arguments: argparse.Namespace) -> dict[str, Taken]:
    def segment(table: str, *more: str) -> list[str]:
        places = ["--input", str(photos), "--output", str(folder / table), "--model", str(arguments.model)]
        return ["masklake", "segment", *places, *more]

    commands = {
        FLOOR: ["jobs.benchmarks.peers.floor", str(photos), str(arguments.model)],
        SPARING: ["jobs.benchmarks.peers.floor", str(photos), str(arguments.model), "sparing"],
        "masklake": segment(f"masks-{number}"),
        "nothing to do": segment(f"masks-{number}"),
    }
    if arguments.ray:
        commands["masklake on Ray"] = segment(f"ray-{number}", "--no-local")
    return {name: _measure(name, command) for name, command in commands.items()}


def _measure(name: str, command: list[str]) -> Taken:
    started = time.monotonic()
    with (
        subprocess.Popen([sys.executable, "-m", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process,
        watched(process.pid, every=0.1) as watch,
    ):
        _, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"benchmark: {name} ended with exit code {process.returncode}:\n{errors[-3000:].decode()}")
    return Taken(round(time.monotonic() - started, 2), round(watch.cpu_seconds, 2))


def _median(taken: list[Taken]) -> Taken:
    return Taken(statistics.median(each.seconds for each in taken), statistics.median(each.cpu_seconds for each in taken))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmarks.first_photos", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=10, help="photographs (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of all contestants, in turn (default: %(default)s)")
    parser.add_argument("--ray", action=argparse.BooleanOptionalAction, default=True, help="also measure the same run on Ray")
    parser.add_argument("--model", type=Path, default=MODEL, help="panoptic checkpoint folder (default: the demo model)")
    parser.add_argument("--result", type=Path, default=RESULT, help="where the result goes (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
