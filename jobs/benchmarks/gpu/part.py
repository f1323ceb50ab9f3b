"""A part of the benchmark: measurements with names, each written down as soon as it is there."""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Mapping
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


Measurement = Callable[[Asked], Any]
"""Returns something for JSON."""


def run(measurements: Mapping[str, Measurement]) -> int:
    """Take the measurements, as a program: one that fails is told as such, and the next goes on."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    asked = Asked(arguments.device, arguments.small, arguments.scratch)
    found: dict[str, Any] = {}
    for name, measure in measurements.items():
        started = time.monotonic()
        try:
            found[name] = {"result": measure(asked)}
        except Exception as error:  # whatever a new machine does not have
            found[name] = {"failed": f"{type(error).__name__}: {error}"[:2000], "trace": traceback.format_exc()[-2000:]}
        found[name]["took_seconds"] = round(time.monotonic() - started, 1)
        arguments.output.write_text(json.dumps(found))
        print(f"{name}: {json.dumps(found[name])[:1500]}", file=sys.stderr, flush=True)
    return 0
