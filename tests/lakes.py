"""Small lakes and tables for tests of the whole job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from masklake import demo, reading
from masklake.demo.scenes import HELD_OUT, jpeg, photograph

ROOT = Path(__file__).parents[1]
MODEL = demo.MODEL


def scene(index: int) -> bytes:
    """A JPEG file that the demo model has not seen."""
    return jpeg(photograph(HELD_OUT[index]))


def segment(*arguments: str, environment: Mapping[str, str] | None = None, seconds: float = 240) -> subprocess.CompletedProcess[str]:
    """Run the job as a user does, in a process of its own."""
    command = [sys.executable, "-m", "masklake", "segment", "--model", str(MODEL), *arguments]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **(environment or {})}, capture_output=True, text=True, timeout=seconds, check=False
    )


def summary(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The JSON object of the last line on stdout."""
    assert done.stdout.strip(), done.stderr
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def rows_by_image(table: str) -> Counter[str]:
    """How many rows of the table, whatever their run, each image has."""
    return Counter(reading.open_table(table).rows(columns=["image_uri"])["image_uri"].to_pylist())
