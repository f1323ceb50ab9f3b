"""Batches answered by Triton's kernels, under its interpreter, give the bytes that images answered one by one with torch do."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


@pytest.mark.parametrize("task", ["panoptic", "instance", "semantic"])
def test_the_kernels_give_the_bytes_of_torch(task: str) -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    program = f"from tests.unit.inference import fused_cases; fused_cases.compare({task!r}, range(8))"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
