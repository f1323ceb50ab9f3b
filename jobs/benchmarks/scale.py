"""What a billion images on 500 GPUs ask of a driver: arithmetic, from what was measured of a listing and of a simulated fleet.

    python -m jobs.benchmarks.scale --output jobs/benchmarks/results/scale.json

Reads `results/listing.json` and `results/fleet.json`; every factor that nobody measured is a flag. Prints JSON, or writes it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from jobs.benchmarks.tables import RESULTS, value
from masklake.segment import plan
from masklake.segment import run as job
from masklake.segment.filling import FILE_BYTES
from masklake.segment.flow import MOST_LOAD_TASKS

DAY = 86_400
_CHECKPOINT_EVERY = 100  # commits: Delta's default
_DIGEST_BYTES = 16


def arithmetic(asked: argparse.Namespace, results: Path) -> dict[str, Any]:
    """The numbers, from those asked for and those measured."""
    images, rate = asked.images, asked.gpus * asked.images_per_second_per_gpu
    listed = json.loads((results / "listing.json").read_text(encoding="utf-8"))
    fleet = {run["name"]: run for run in value(results, "fleet.json", "/runs")}
    large, many = fleet["64 MB"], fleet["64 MB, 60,000 files before"]
    listings = images / listed["objects"]
    file_bytes = min(FILE_BYTES, max(1.0, rate * asked.commit_seconds * asked.row_bytes))
    files = images * asked.row_bytes / file_bytes
    per_file = (many["peak_mb"] - large["peak_mb"]) / many["files_before"]
    commit_of_one = many["commit_cpu_seconds_median"] / (many["files_before"] + many["files"] / 2)
    checkpoint_of_one = many["checkpoint_bytes"] / many["files_before"]
    return {
        "asked": {name: found for name, found in vars(asked).items() if name != "output"},
        "images_per_second": rate,
        "hours": round(images / rate / 3600, 1),
        "listing": {
            "requests": round(images * listed["requests_per_1000_objects"] / 1000),
            "cpu_hours": round(listings * listed["cpu_seconds"] / 3600, 1),
            "hours": round(listings * listed["seconds"] / 3600, 1),
            "inventory_cpu_hours": round(images / 1e6 * asked.plan_cpu_seconds_per_million / 3600, 1),
            "times_as_fast_as_the_fleet": round(listed["objects"] / listed["seconds"] / rate, 1),
            "parts": asked.parts,
            "minutes_of_a_part": round(listings * listed["seconds"] / 60 / asked.parts, 1),
            "digests_gb": round(images * _DIGEST_BYTES / 1e9, 1),
        },
        "plan": {
            "files": -(-images // (job.GROUP_ROWS * plan.GROUPS_PER_FILE)),
            "images_per_load_task": round(images / MOST_LOAD_TASKS),
            "images_per_load_task_of_a_part": round(images / asked.parts / MOST_LOAD_TASKS),
        },
        "table": {
            "tb": round(images * asked.row_bytes / 1e12, 1),
            "files": round(files),
            "files_of_1024_rows": round(images / 1024),
            "file_mb": round(file_bytes / (1 << 20)),
            "files_a_day": round(rate * DAY * asked.row_bytes / file_bytes),
            "commits_a_day": round(DAY / asked.commit_seconds),
            "log_mb_a_day": round(rate * DAY * asked.row_bytes / file_bytes * large["log_bytes_per_file"] / 1e6),
            "checkpoints_a_day": round(DAY / asked.commit_seconds / _CHECKPOINT_EVERY),
            "last_checkpoint_mb": round(files * checkpoint_of_one / 1e6, 1),
            "last_checkpoint_cpu_seconds": round(files * many["checkpoint_cpu_seconds"] / many["files_before"], 1),
        },
        "driver": {
            "cpu_share_at_first": round(large["cpu_ms_per_1000_images"] / 1e6 * rate, 4),
            "last_commit_cpu_seconds": round(files * commit_of_one, 1),
            "last_commit_cpu_seconds_of_1024_rows": round(images / 1024 * commit_of_one, 1),
            "table_mb": round(files * per_file),
            "table_mb_of_1024_rows": round(images / 1024 * per_file),
        },
    }


def main(argv: list[str] | None = None) -> int:
    """Do the arithmetic."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmarks.scale", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1_000_000_000)
    parser.add_argument("--gpus", type=int, default=500)
    parser.add_argument("--images-per-second-per-gpu", type=float, default=10.0, help="a large model's (default: %(default)s)")
    parser.add_argument("--row-bytes", type=float, default=4000.0, help="of an image's row (default: %(default)s)")
    parser.add_argument("--commit-seconds", type=float, default=5.0)
    parser.add_argument("--parts", type=int, default=100, help="runs on prefixes of their own (default: %(default)s)")
    parser.add_argument(
        "--plan-cpu-seconds-per-million",
        type=float,
        default=6.4,
        help="planning from an inventory: `listing --from-memory` (default: %(default)s)",
    )
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args(argv)
    text = json.dumps(arithmetic(asked, RESULTS), indent=2) + "\n"
    if asked.output:
        asked.output.write_text(text)
    else:
        print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
