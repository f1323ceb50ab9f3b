"""A part of the benchmark: measurements with names, each written down as soon as it is there."""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Asked:
    """How to measure."""

    device: str
    """cuda or cpu."""
    small: bool
    """Sizes that a CPU can do: to try the benchmark itself."""
    scratch: Path
    images: int = 20000
    """Of 640x480, in the real job."""
    large_images: int = 2000
    """Of 4000x3000."""


Measurement = Callable[[Asked], Any]
"""Returns something for JSON."""


UNENDED = "its process ended"
"""What is said of a measurement for as long as it is not over."""


def run(measurements: Mapping[str, Measurement], argv: Sequence[str] | None = None) -> int:
    """Take the measurements, as a program: one that fails is told as such, and the next goes on.

    Those of which `--output` tells are not taken again: after one that ended its process, another process goes on.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--images", type=int, default=Asked.images)
    parser.add_argument("--large-images", type=int, default=Asked.large_images)
    arguments = parser.parse_args(argv)
    asked = Asked(arguments.device, arguments.small, arguments.scratch, arguments.images, arguments.large_images)
    found: dict[str, Any] = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    for name, measure in measurements.items():
        if name in found:
            continue
        started = time.monotonic()
        found[name] = {"failed": UNENDED}
        _write(arguments.output, found)
        try:
            found[name] = {"result": measure(asked)}
        except Exception as error:  # whatever a new machine does not have
            found[name] = {"failed": f"{type(error).__name__}: {error}"[:2000], "trace": traceback.format_exc()[-2000:]}
        found[name]["took_seconds"] = round(time.monotonic() - started, 1)
        _write(arguments.output, found)
        print(f"{name}: {json.dumps(found[name])[:1500]}", file=sys.stderr, flush=True)
        if "failed" in found[name] and asked.device == "cuda" and _is_lost():
            return 1
    return 0


def _write(path: Path, found: Mapping[str, Any]) -> None:
    """Whole or not at all: another process reads it, and may end this one."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(found, default=str))
    new.rename(path)


def _is_lost() -> bool:
    """Whether the device answers nothing any more in this process."""
    import torch

    try:
        torch.cuda.empty_cache()
        torch.zeros(1, device="cuda").item()
    except RuntimeError:
        return True
    return False
