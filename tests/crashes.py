"""Why a process of tests died: what its threads were at, and how it ended, said where the run's failures are."""

from __future__ import annotations

import faulthandler
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import pytest

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

_INPUT = "crashes"
_WAIT_SECONDS = 10


class Told:
    """In each process that xdist starts: a crash is written to a file of its own.

    Ray puts handlers of its own in place, which write to a stderr that pytest has caught, and that is gone with the process: so this is
    said again before each test.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        faulthandler.enable(self._file)


class Teller:
    """In the process that started them: says at the end what it knows of those that died."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="crashes-")
        self._told: list[tuple[str, str]] = []

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: WorkerController) -> None:
        node.workerinput[_INPUT] = str(Path(self._folder.name, node.gateway.id))

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: WorkerController, error: object | None) -> None:
        if error:
            told = Path(node.workerinput[_INPUT])
            text = told.read_text(encoding="utf-8", errors="replace") if told.exists() else ""
            self._told.append((f"{node.gateway.id} {_end(node)}", text or "none of its threads crashed"))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for title, text in self._told:
            terminalreporter.section(title)
            terminalreporter.write_line(text)


def _end(node: WorkerController) -> str:
    code = node.gateway._io.popen.wait(_WAIT_SECONDS)
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def pytest_configure(config: pytest.Config) -> None:
    """Of every process: as a plugin's, or called by a conftest's."""
    given = getattr(config, "workerinput", None)
    if given is None:
        config.pluginmanager.register(Teller())
    elif _INPUT in given:
        config.pluginmanager.register(Told(Path(given[_INPUT]).open("w", encoding="utf-8")))  # noqa: SIM115 - to the end of the process
