"""Measure whether an image costs the same however many there are: lakes of tiny images of several sizes through the whole job.

    python -m jobs.benchmarks.flat --images 1000 10000 50000

Each size is a lake of its own on an embedded S3 server (or, with --local, in a temporary folder), and a run of the real job in a process of
its own, with a new table. Its processes are looked at every second: the driver, the model actors, the workers that load and write, and
Ray's own. Memory is what a process has of its own; growth is the last quarter's median over the first one's. Steady state and growth leave
the start out: they count from the first commit. That every image has its row is checked. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from jobs.benchmarks.process_tree import Watch, watched
from masklake import reading, storage
from masklake.demo import MODEL
from masklake.demo.lake import scene_seed, scene_uri
from masklake.demo.scenes import render, sample_scene
from masklake.demo.seaweedfs import SeaweedFS
from masklake.table import log

_ROLES = ("driver", "actor", "load", "write", "raylet", "gcs_server")
_SCENES = 100  # to draw one takes far longer than to add noise, which makes every image another
_TOGETHER = 250  # images that one worker makes and stores at a time


@dataclass(frozen=True)
class Commits:
    """When rows were committed, from the table's log: seconds since 1970, and how many were in the table then."""

    times: Sequence[float]
    rows: Sequence[int]

    def seconds_per_image(self, first: float, last: float) -> float:
        """Between two shares of the rows that came after the first commit; between commits, as if rows came evenly."""
        start, end = self.rows[0], self.rows[-1]
        bounds = [start + (end - start) * share for share in (first, last)]
        begun, ended = np.interp(bounds, self.rows, self.times)
        return float(ended - begun) / max(1.0, bounds[1] - bounds[0])


def main(argv: list[str] | None = None) -> int:
    """Run the job on each size; prints a table, then one JSON object."""
    arguments = _parser().parse_args(argv)
    with _store(arguments.local) as root:
        results = [_measure(root, images, arguments) for images in sorted(arguments.images)]
    for line in _lines(results):
        print(line)
    print(json.dumps({"settings": {**vars(arguments), "model": str(arguments.model)}, "results": results}))
    return 0


@contextmanager
def _store(local: bool) -> Iterator[str]:
    """Where lakes and tables go: a URI that ends in '/'."""
    if local:
        with tempfile.TemporaryDirectory(prefix="masklake-flat-") as folder:
            yield f"{folder}/"
        return
    with SeaweedFS() as server:
        os.environ.update(server.env())
        server.create_bucket("lake")
        yield "s3://lake/"


def _measure(root: str, images: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Make a lake, run the job, and look at what it left."""
    lake, table = f"{root}images-{images}/", f"{root}masks-{images}"
    _say(f"{images:,} images of {arguments.side}x{arguments.side}: making them ...")
    _make_lake(lake, images, arguments.side)
    _say("running the job ...")
    command = ["masklake", "segment", "--input", lake, "--output", table, "--model", str(arguments.model), *arguments.settings]
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as answered:
        with subprocess.Popen([sys.executable, "-m", *command], stdout=answered, stderr=said) as process:
            with watched(process.pid) as watch:
                code = process.wait()
            seconds = time.monotonic() - started
        said.seek(0)
        answered.seek(0)
        if code:
            raise SystemExit(f"benchmark: the job ended with exit code {code}:\n{said.read()[-3000:]}")
        summary = json.loads(answered.read().splitlines()[-1])
    commits, files = _check(table, images)
    result = {
        "images": images,
        "seconds": round(seconds, 1),
        "whole": round(images / seconds, 2),
        "steady": summary["steady_images_per_second"],
        "last_quarter_over_first": round(commits.seconds_per_image(0.75, 1) / commits.seconds_per_image(0, 0.25), 3),
        "cpu_seconds_per_image": round(watch.cpu_seconds / images, 5),
        "steady_cpu_seconds_per_image": round(_steady_cpu(watch, commits), 5),
        "commits": len(commits.times),
        "files": files,
        "driver_peak_mb": summary["driver_peak_mb"],
        "shared_mb": round(watch.shared / 2**20),
        "memory": {role: _memory(watch, role, commits) for role in _ROLES},
    }
    _say(json.dumps(result))
    return result


def _make_lake(prefix: str, images: int, side: int) -> None:
    parts = [range(first, min(first + _TOGETHER, images)) for first in range(0, images, _TOGETHER)]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for _ in pool.map(partial(_store_images, prefix, side), parts):
            pass


def _store_images(prefix: str, side: int, indices: Sequence[int]) -> None:
    for index in indices:
        noise = np.random.default_rng(index).integers(-8, 9, (side, side, 3))
        file = io.BytesIO()
        Image.fromarray(np.clip(_scene(index % _SCENES, side) + noise, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
        storage.write_bytes(scene_uri(prefix, index), file.getvalue())


@lru_cache(maxsize=_SCENES)
def _scene(index: int, side: int) -> NDArray[np.int64]:
    return render(sample_scene(scene_seed(index), 1.0), side, side).image.astype(np.int64)


def _check(table: str, images: int) -> tuple[Commits, int]:
    """See that every image has its row, once; when rows were committed, and the number of files."""
    opened = reading.open_table(table)
    uris = opened.rows(columns=["image_uri"], where="status = 'ok'")["image_uri"]
    if len(uris) != images or len(uris.unique()) != images:
        raise SystemExit(f"benchmark: {table} holds {len(uris)} ok rows of {len(uris.unique())} images, and not one of each of {images}")
    times, rows = list[float](), list[int]()
    for _, actions in log.entries(storage.normalise(table), range(opened.delta.version() + 1)):
        event = log.event(actions) or {}
        if event.get("event") == "data":
            times.append(next(action["commitInfo"]["timestamp"] for action in actions if "commitInfo" in action) / 1000)
            rows.append(event["rows"] + (rows[-1] if rows else 0))
    return Commits(times, rows), len(opened.delta.file_uris())


def _steady_cpu(watch: Watch, commits: Commits) -> float:
    """CPU seconds of an image that came after the first commit."""
    times, used = [at for at, _ in watch.used], [seconds for _, seconds in watch.used]
    begun, ended = np.interp([commits.times[0], commits.times[-1]], times, used)
    return float(ended - begun) / max(1, commits.rows[-1] - commits.rows[0])


def _memory(watch: Watch, role: str, commits: Commits) -> dict[str, float] | None:
    """The most that one process of a role had, in MB, and how its largest process grew; None where none was seen."""
    seen = [sample for sample in watch.samples if sample.role == role]
    if not seen:
        return None
    begun, ended = commits.times[0], commits.times[-1]
    quarter = (ended - begun) / 4
    largest: dict[float, int] = {}
    for sample in seen:
        largest[sample.time] = max(sample.memory, largest.get(sample.time, 0))
    early = [memory for at, memory in largest.items() if begun <= at <= begun + quarter]
    late = [memory for at, memory in largest.items() if ended - quarter <= at <= ended]
    growth = statistics.median(late) - statistics.median(early) if early and late else 0
    return {"peak_mb": round(max(largest.values()) / 2**20), "growth_mb": round(growth / 2**20), "processes": len({s.pid for s in seen})}


def _lines(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The table for people; each figure, and in brackets its ratio to the smallest size's, or the growth of memory."""
    first = results[0]
    yield ""
    yield f"{'images':<26}" + "".join(f"{result['images']:>20,}" for result in results)
    named = {
        "whole": "images/s, whole process",
        "steady": "images/s, steady state",
        "cpu_seconds_per_image": "CPU s/image, whole",
        "steady_cpu_seconds_per_image": "CPU s/image, steady state",
        "driver_peak_mb": "driver's peak, MB",
    }
    for name, title in named.items():
        cells = (f"{result[name]:g} ({result[name] / first[name]:.2f})" for result in results)
        yield f"{title:<26}" + "".join(f"{cell:>20}" for cell in cells)
    yield f"{'last quarter / first':<26}" + "".join(f"{result['last_quarter_over_first']:>20.2f}" for result in results)
    for role in _ROLES:
        memories = (result["memory"][role] for result in results)
        cells = (f"{memory['peak_mb']} ({memory['growth_mb']:+d})" if memory else "-" for memory in memories)
        yield f"{role + ', MB of its own':<26}" + "".join(f"{cell:>20}" for cell in cells)
    for name, title in {"shared_mb": "object store touched, MB", "commits": "commits", "files": "files"}.items():
        yield f"{title:<26}" + "".join(f"{result[name]:>20,}" for result in results)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmarks.flat", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000, 50_000], help="sizes (default: 1000 10000 50000)")
    parser.add_argument("--side", type=int, default=64, help="height and width of an image in pixels (default: %(default)s)")
    parser.add_argument("--local", action="store_true", help="a temporary folder in place of the S3 server")
    parser.add_argument("--model", type=Path, default=MODEL, help="panoptic checkpoint folder (default: the demo model)")
    parser.add_argument("settings", nargs="*", help="further settings of the job, behind --")
    return parser


if __name__ == "__main__":
    sys.exit(main())
