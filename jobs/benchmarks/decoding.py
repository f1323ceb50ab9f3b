"""Measure what large JPEGs cost on their way to a model's input: `--decode exact` beside `--decode fast`.

    python -m jobs.benchmarks.decoding

Each size and way in a process of its own: the median of some decodings with the resize, and the memory that they took at most beside what
the process had before. The photographs are a generated scene, enlarged, with noise of a sensor's kind.
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
from pathlib import Path

import numpy as np
from PIL import Image

from masklake.demo.scenes import HELD_OUT, photograph
from masklake.images.decode import Decoded, decode
from masklake.inference.preprocess import ResizePlan, resize

RESULT = Path(__file__).parent / "results" / "decoding.json"
SIZES = {"0.3": (480, 640), "2": (1080, 1920), "12": (3000, 4000), "50": (6120, 8160)}
_BOUND = 100_000_000


def main(argv: list[str] | None = None) -> int:
    """Measure all sizes, print a table and write the result."""
    arguments = _parser().parse_args(argv)
    if arguments.one:
        print(json.dumps(_one(Path(arguments.one), arguments.way, arguments.side, arguments.rounds)))
        return 0
    rows = []
    print(f"{'megapixels':>10}{'way':>8}{'ms':>9}{'MB':>7}{'cores for 100 images/s':>25}{'mean difference of 255':>25}")
    with tempfile.TemporaryDirectory(prefix="decoding-") as folder:
        for name, size in SIZES.items():
            file = Path(folder, f"{name}.jpg")
            file.write_bytes(_photograph(*size))
            inputs = {way: Path(folder, f"{name}-{way}.npy") for way in ("exact", "fast")}
            for way, saved in inputs.items():
                command = [
                    sys.executable,
                    "-m",
                    "jobs.benchmarks.decoding",
                    "--one",
                    str(file),
                    "--way",
                    way,
                    "--side",
                    str(arguments.side),
                ]
                done = subprocess.run([*command, "--rounds", str(arguments.rounds)], capture_output=True, text=True, check=True)
                row = {"megapixels": float(name), "file_bytes": file.stat().st_size, "way": way, **json.loads(done.stdout)}
                Path(row.pop("saved")).replace(saved)
                row["cores_for_100_a_second"] = round(row["milliseconds"] / 10, 1)
                exact, ours = np.load(inputs["exact"]).astype(float), np.load(saved).astype(float)
                row["mean_difference"] = round(float(np.abs(exact - ours).mean()), 3)
                rows.append(row)
                cost = f"{row['milliseconds']:>9.1f}{row['megabytes']:>7.0f}{row['cores_for_100_a_second']:>25.1f}"
                print(f"{name:>10}{way:>8}{cost}{row['mean_difference']:>25.3f}", flush=True)
    result = {"input": [arguments.side, arguments.side], "load": os.getloadavg()[0], "rows": rows}
    arguments.result.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def _photograph(height: int, width: int) -> bytes:
    image = Image.fromarray(photograph(HELD_OUT[0]).image).resize((width, height), Image.Resampling.BICUBIC)
    noise = np.random.default_rng(0).normal(0, 3, (height, width, 1)).astype(np.float32)
    noisy = np.clip(np.asarray(image, np.float32) + noise, 0, 255).astype(np.uint8)
    sink = io.BytesIO()
    Image.fromarray(noisy).save(sink, "JPEG", quality=90)
    return sink.getvalue()


def _one(file: Path, way: str, side: int, rounds: int) -> dict[str, float | str]:
    """One size in one way, in CPU time, which a busy machine does not change much."""
    plan = ResizePlan("exact", (side, side))
    data = file.read_bytes()
    times = []
    before = _peak_megabytes()
    for _ in range(rounds):
        started = time.process_time()
        found = decode(data, _BOUND, plan.target if way == "fast" else None)
        assert isinstance(found, Decoded), found
        pixels = resize(found.pixels, plan) if found.box is None else resize(found.pixels, plan, found.size, found.box)
        times.append(time.process_time() - started)
    peak = _peak_megabytes()
    saved = file.with_suffix(".npy")
    np.save(saved, pixels)
    return {"milliseconds": round(1000 * statistics.median(times), 1), "megabytes": round(peak - before), "saved": str(saved)}


def _peak_megabytes() -> float:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmarks.decoding", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--side", type=int, default=384, help="of the model's input (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="decodings of each (default: %(default)s)")
    parser.add_argument("--result", type=Path, default=RESULT, help="where the result goes (default: %(default)s)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
