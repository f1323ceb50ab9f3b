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
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers

_SHARES = {"correctness": 0.2, "speed": 0.4, "job": 0.25, "training": 0.15}
"""Of the time; what a part does not need, the later ones have."""


def main(argv: list[str] | None = None) -> int:
    """Measure the parts, one after the other; returns 1 where a measurement failed."""
    arguments = _parser().parse_args(argv)
    ends = time.monotonic() + arguments.minutes * 60
    parts = [part for part in _SHARES if part in arguments.parts.split(",")]
    result: dict[str, Any] = {"environment": _environment(arguments.device), "parts": {}}
    with tempfile.TemporaryDirectory(prefix="masklake-gpu-") as scratch:
        for index, part in enumerate(parts):
            share = _SHARES[part] / sum(_SHARES[later] for later in parts[index:])
            result["parts"][part] = _measured(part, arguments, Path(scratch), (ends - time.monotonic()) * share)
            arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    failed = [f"{part}/{name}" for part, found in result["parts"].items() for name, one in found.items() if "result" not in one]
    print(_table(result))
    print(json.dumps({"output": str(arguments.output), "failed": failed}))
    return int(bool(failed))


def _measured(part: str, arguments: argparse.Namespace, scratch: Path, seconds: float) -> dict[str, Any]:
    """What a part's process wrote until it ended, or its time did."""
    output = scratch / f"{part}.json"
    command = [sys.executable, "-m", f"jobs.benchmarks.gpu.{part}", "--device", arguments.device, "--scratch", str(scratch)]
    command += ["--output", str(output), *(["--small"] if arguments.small else [])]
    print(f"{part}: at most {seconds:.0f} s", file=sys.stderr, flush=True)
    try:
        code = subprocess.run(command, timeout=max(10.0, seconds), check=False).returncode
        ended = {} if code == 0 else {"end": {"failed": f"the process ended with {code}"}}
    except subprocess.TimeoutExpired:
        ended = {"end": {"failed": f"its {seconds:.0f} s were over"}}
    return {**(json.loads(output.read_text()) if output.exists() else {}), **ended}


def _environment(device: str) -> dict[str, Any]:
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
    parser.add_argument("--output", type=Path, default=Path("gpu.json"), help="the JSON file (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
