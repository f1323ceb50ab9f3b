"""`masklake completion`, as it is typed in a real shell in a terminal of its own."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lakes import ROOT

Type = Callable[[str], str]
_SECONDS = 60.0


@pytest.fixture(scope="module", params=["bash", "zsh"])
def typed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Type]:
    """Types a line, tabulators and all, into an interactive shell that has the completion, and returns the arguments of the command."""
    if not shutil.which(request.param):
        pytest.skip(f"{request.param} is not installed")
    folder = tmp_path_factory.mktemp(request.param)
    script = subprocess.run([sys.executable, "-m", "masklake", "completion", request.param], cwd=ROOT, capture_output=True, check=True)
    (folder / "_masklake").write_bytes(script.stdout)
    (folder / "nightly.yaml").touch()
    with _Terminal(request.param, folder) as terminal:
        terminal.enter('masklake() { printf "%s," "<" "$@" ">"; }')
        if request.param == "zsh":
            terminal.enter(f"fpath+=({folder}); autoload -Uz compinit; compinit -u -D")
        else:
            terminal.enter(f"source {folder}/_masklake")
        yield terminal.arguments


class _Terminal:
    def __init__(self, shell: str, folder: Path) -> None:
        self._master, slave = os.openpty()
        plain = {"bash": ["--noprofile", "--norc"], "zsh": ["-f"]}[shell]
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "TERM": "xterm", "PS1": "$ ", "LC_ALL": "C.UTF-8"}
        self._shell = subprocess.Popen(
            [shell, *plain, "-i"], stdin=slave, stdout=slave, stderr=slave, cwd=folder, env=environment, start_new_session=True
        )
        os.close(slave)

    def __enter__(self) -> _Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._shell.kill()
        self._shell.wait()
        os.close(self._master)

    def enter(self, line: str) -> None:
        os.write(self._master, line.encode() + b"; echo rea''dy\r")
        self._until("ready")

    def arguments(self, line: str) -> str:
        os.write(self._master, line.encode() + b"\r")
        shown = self._until(",>,")
        return shown.rpartition("<,")[2].partition(",>,")[0]

    def _until(self, mark: str) -> str:
        shown, end = "", time.monotonic() + _SECONDS
        while mark not in shown:
            readable, _, _ = select.select([self._master], [], [], max(0.0, end - time.monotonic()))
            assert readable, shown
            shown += os.read(self._master, 65536).decode(errors="replace")
        return shown


@pytest.mark.parametrize(
    ("line", "arguments"),
    [
        ("masklake expo\t", "export"),
        ("masklake export --form\tcoco-pan\t", "export,--format,coco-panoptic"),
        ("masklake segment --tasks ins\t", "segment,--tasks,instance"),
        ("masklake compact --drop\t--lease\t30", "compact,--drop-superseded,--lease-seconds,30"),
        ("masklake segment --config nigh\t", "segment,--config,nightly.yaml"),
        ("masklake help publ\t", "help,publish"),
        ("masklake completion zs\t", "completion,zsh"),
    ],
)
def test_a_tabulator_completes_commands_flags_values_and_files(typed: Type, line: str, arguments: str) -> None:
    assert typed(line) == arguments
