"""No run adds a variable to its environment, or takes one away, once its work has begun: see `masklake.variables`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.lakes import MODEL, ROOT, scene, summary

_LISTENED_TO = """
import os, sys
from masklake import variables

began, written = [], []

def hear(event, arguments):
    if began and event in ("os.putenv", "os.unsetenv"):
        name = os.fsdecode(arguments[0])
        with open(LOG, "a") as log:
            log.write(f"{event} {name} {'there' if name in os.environ else 'new'}\\n")

LOG = sys.argv.pop(1)
prepare = variables.prepare

def begin(*arguments, **named):
    prepare(*arguments, **named)
    began.append(True)

variables.prepare = begin
sys.addaudithook(hear)
from masklake.commands import cli
cli.run()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "written"),
    [
        ("--no-local", ("RAY_CLIENT_MODE", "RAY_USAGE_STATS_ENABLED", "PYTHONBREAKPOINT")),  # by Ray, whatever is there
        ("--local", ()),
    ],
)
def test_a_run_writes_no_variable_that_was_not_there_before_its_work_began(tmp_path: Path, where: str, written: tuple[str, ...]) -> None:
    """A real one, by the interpreter's own account: it raises an audit event for each."""
    lake, log = tmp_path / "lake", tmp_path / "written"
    lake.mkdir()
    log.touch()
    (lake / "a.jpg").write_bytes(scene(0))
    asked = ["segment", "--input", f"{lake}/", "--output", str(tmp_path / "masks"), "--model", str(MODEL), where]
    done = subprocess.run(
        [sys.executable, "-c", _LISTENED_TO, str(log), *asked], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert summary(done)["ok"] == 1
    by_torch = {"os.putenv TORCHINDUCTOR_CACHE_DIR there"}  # wherever it imports its compiler
    assert set(log.read_text().splitlines()) - by_torch == {f"os.putenv {name} there" for name in written}
