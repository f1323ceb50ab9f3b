"""Memory and CPU of processes, by what they are at."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.benchmarks.process_tree import watched

PARENT = """
import subprocess, sys
loading = ["bash", "-c", 'exec -a "ray::MapBatches(load)" sleep 250']
working = [sys.executable, "-c", "kept = bytearray(150_000_000)\\nwhile True: pass"]
children = [subprocess.Popen(command) for command in (loading, working)]
sys.stdin.read()
for child in children:
    child.kill()
    child.wait()
"""


@pytest.mark.slow
def test_descendants_are_seen_with_their_role_memory_and_cpu_time(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE) as process:
        with watched(process.pid, every=0.2) as watch:
            deadline = time.monotonic() + 200
            while time.monotonic() < deadline and (watch.cpu_seconds < 1 or len({sample.role for sample in watch.samples}) < 3):
                time.sleep(0.2)
        process.communicate()
    most = {role: max(sample.memory for sample in watch.samples if sample.role == role) for role in ("driver", "load", "other")}
    assert most["other"] > 150_000_000
    assert most["load"] < most["driver"] < 100_000_000
    assert watch.cpu_seconds >= 1
    assert {sample.pid for sample in watch.samples if sample.role == "driver"} == {process.pid}
