"""Correctness and speed on the first GPU at hand, in one command of at most eight minutes.

    python -m jobs.benchmarks.gpu --output gpu.json
    python -m jobs.benchmarks.gpu --parts correctness,speed --minutes 4
    python -m jobs.benchmarks.gpu --device cpu --small

Needs torch, transformers, numpy, scipy, pyarrow, Pillow and pycocotools; the parts `job` and `training` also masklake[finetune].
What a machine without a network lacks is carried there by `python -m jobs.benchmarks.gpu.carry`. Writes one JSON file, and prints a table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from jobs.benchmarks.gpu.part import UNENDED

_SHARES = {"correctness": 0.18, "speed": 0.35, "processes": 0.1, "job": 0.22, "training": 0.05, "compiled": 0.1}
"""Of the time; what a part does not need, the later ones have."""
_WORTH_ANOTHER_TRY = 20.0  # seconds
_LONGEST = {"correctness": 60.0, "speed": 150.0, "job": 300.0, "training": 60.0, "processes": 150.0, "compiled": 240.0}
"""Seconds that one measurement may take: it is given up, and the next is taken."""


def main(argv: list[str] | None = None) -> int:
    """Measure the parts, one after the other; returns 1 where a measurement failed. What is measured is in the file at once."""
    arguments = _parser().parse_args(argv)
    ends = time.monotonic() + arguments.minutes * 60
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    parts = [part for part in _SHARES if part in arguments.parts.split(",")]
    result: dict[str, Any] = {"environment": _environment(arguments.device), "parts": {}}

    def keep(part: str, found: dict[str, Any]) -> None:
        result["parts"][part] = found
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")

    with tempfile.TemporaryDirectory(prefix="masklake-gpu-") as scratch:
        for index, part in enumerate(parts):
            share = _SHARES[part] / sum(_SHARES[later] for later in parts[index:])
            keep(part, _measured(part, arguments, Path(scratch), (ends - time.monotonic()) * share, partial(keep, part)))
        for part in parts:  # what others left of the time is for what was cut off
            if "end" in result["parts"][part] and (left := ends - time.monotonic()) > _WORTH_ANOTHER_TRY:
                keep(part, _measured(part, arguments, Path(scratch), left, partial(keep, part), again=True))
    failed = [f"{part}/{name}" for part, found in result["parts"].items() for name, one in found.items() if "result" not in one]
    print(_table(result))
    print(json.dumps({"output": str(arguments.output), "failed": failed}))
    return int(bool(failed))


Keep = Callable[[dict[str, Any]], None]


def _measured(part: str, arguments: argparse.Namespace, scratch: Path, seconds: float, keep: Keep, again: bool = False) -> dict[str, Any]:
    """What a part's processes wrote until its time was over. One that dies, or is ended for what takes too long, is followed by another.

    `keep` is told what there is whenever more is. `again`: what was cut off is measured once more.
    """
    output, ends = scratch / f"{part}.json", time.monotonic() + seconds
    if again:
        kept = {name: one for name, one in _written(output).items() if one.get("failed") != UNENDED}
        output.write_text(json.dumps(kept))
    print(f"{part}: at most {seconds:.0f} s", file=sys.stderr, flush=True)
    while True:
        known = len(_written(output))
        code = _process(part, arguments, scratch, output, ends, keep)
        found = _written(output)
        if code == 0 or time.monotonic() >= ends or len(found) == known:
            return (
                found if code == 0 else {**found, "end": {"failed": f"its {seconds:.0f} s were over" if code is None else f"exit {code}"}}
            )


def _process(part: str, arguments: argparse.Namespace, scratch: Path, output: Path, ends: float, keep: Keep) -> int | None:
    """Run a process for a part; returns its exit code, None where it was ended since nothing came of it for too long."""
    process = subprocess.Popen([*_program(part), *_passed_on(arguments, scratch, output)], start_new_session=True)
    written, last = output.stat().st_mtime if output.exists() else 0.0, time.monotonic()
    try:
        while process.poll() is None:
            time.sleep(0.1)
            now = output.stat().st_mtime if output.exists() else 0.0
            if now != written:
                written, last = now, time.monotonic()
                keep(_written(output))
            if time.monotonic() > min(ends, last + _LONGEST[part]):
                return None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return process.returncode


def _passed_on(arguments: argparse.Namespace, scratch: Path, output: Path) -> list[str]:
    small = ["--small"] if arguments.small else []
    images = ["--images", str(arguments.images), "--large-images", str(arguments.large_images)]
    return ["--device", arguments.device, "--scratch", str(scratch), "--output", str(output), *images, *small]


def _program(part: str) -> list[str]:
    return [sys.executable, "-m", f"jobs.benchmarks.gpu.{part}"]


def _written(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(output.read_text()) if output.exists() else {}
    return found


def _environment(device: str) -> dict[str, Any]:
    import torch  # takes up to a fifth of a minute, which counts
    import transformers

    return {
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
    }


def _table(result: dict[str, Any]) -> str:
    lines = [str(result["environment"])]
    for part, found in result["parts"].items():
        lines += ["", part]
        for name, one in found.items():
            lines.append(f"  {name}: {json.dumps(one.get('result', one.get('failed')))}")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmarks.gpu", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--parts", default=",".join(_SHARES), help="default: %(default)s")
    parser.add_argument("--minutes", type=float, default=8.0, help="time for all parts together (default: %(default)s)")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="default: %(default)s")
    parser.add_argument("--small", action="store_true", help="small models and few images: to try the benchmark itself")
    parser.add_argument("--images", type=int, default=20000, help="of 640x480, in the part job (default: %(default)s)")
    parser.add_argument("--large-images", type=int, default=2000, help="of 4000x3000, in the part job (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("gpu.json"), help="the JSON file (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
