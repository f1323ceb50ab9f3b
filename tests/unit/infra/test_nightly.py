"""The nightly units: systemd takes them, and their command is the program with settings that exist."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from masklake.config import resolve
from masklake.segment.settings import PROGRAM
from tests.lakes import ROOT

NIGHTLY = ROOT / "infra" / "nightly"
SERVICE = (NIGHTLY / "masklake.service").read_text(encoding="utf-8")


@pytest.mark.parametrize("schedule", ["masklake.service", "crontab"])
def test_its_command_is_the_program_with_settings_that_exist(schedule: str) -> None:
    text = SERVICE if schedule == "masklake.service" else (ROOT / "infra" / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"masklake segment (--config \S+nightly\.yaml .*?)(?:\n|`| >)", text)
    arguments = shlex.split(command)
    arguments[arguments.index("--config") + 1] = str(ROOT / "jobs" / "settings" / "nightly.yaml")
    found = resolve(arguments, PROGRAM)
    assert (found.since, found.on_overlap, found.allow_empty) == ("48h", "skip", True)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("unit", ["masklake.service", "masklake.timer"])
def test_systemd_takes_it(unit: str, tmp_path: Path) -> None:
    for file in NIGHTLY.iterdir():
        shutil.copy(file, tmp_path / file.name)
    done = subprocess.run(["systemd-analyze", "verify", str(tmp_path / unit)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "masklake" in line]) == (0, [])
