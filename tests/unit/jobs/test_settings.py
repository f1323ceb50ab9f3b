"""The settings files that are ready to edit are accepted by the commands they name."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from masklake.commands import cli
from masklake.config import resolve
from tests.lakes import ROOT

FOLDER = ROOT / "jobs" / "settings"


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.yaml")), ids=lambda path: str(path.relative_to(FOLDER)))
def test_a_settings_file_is_what_its_command_takes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    said = re.search(r"masklake (\w+) ((?:.*\\\n# *)*.*)", path.read_text(encoding="utf-8"))
    assert said
    arguments = shlex.split(said[2].replace("\\\n#", " "))
    assert ROOT / arguments[arguments.index("--config") + 1] == path
    resolve(arguments, cli.program(said[1]))
