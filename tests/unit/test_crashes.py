"""A process of tests that dies is said with its end, and with what its threads were at, whatever took the handlers of signals meanwhile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.lakes import ROOT

_TESTS = """
import ctypes, faulthandler, os, signal

def test_before():
    faulthandler.disable()  # as Ray does

def test_dies():
    {end}

def test_after():
    pass
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "told"),
    [
        ("ctypes.string_at(0)", ["gw0 was ended by SIGSEGV", "Fatal Python error: Segmentation fault", "in test_dies"]),
        ("os.kill(os.getpid(), signal.SIGKILL)", ["gw0 was ended by SIGKILL", "none of its threads crashed"]),
        ("os._exit(3)", ["gw0 ended with exit code 3", "none of its threads crashed"]),
    ],
)
def test_a_process_that_dies_is_told_of(end: str, told: list[str], tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(_TESTS.format(end=end), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "tests.crashes", "-p", "no:cacheprovider", "-n", "1", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "1 failed, 2 passed" in done.stdout
    assert all(text in done.stdout for text in told), done.stdout
