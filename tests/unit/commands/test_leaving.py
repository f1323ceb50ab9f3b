"""How a job's process ends, whatever native libraries do while the interpreter is taken down."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.lakes import ROOT

ABORT_AT_EXIT = "import atexit, os, runpy, sys; atexit.register(os.abort)"


@pytest.mark.parametrize("program", ["masklake.commands.cli", "masklake"])
@pytest.mark.slow
def test_the_exit_code_is_the_jobs_own_and_its_last_line_is_there(program: str) -> None:
    script = f"{ABORT_AT_EXIT}; sys.argv = ['masklake', *sys.argv[1:]]; runpy.run_module({program!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", script, "segment"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["outcome"] == "refused"
