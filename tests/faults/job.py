"""A command of masklake's as a real process, with all that it started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.faults.processes import Process, below, kill
from tests.lakes import ROOT

_MOST_SECONDS = 400.0  # a trial is bounded, whatever hangs


class Job:
    """One process of ours and all that it started."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], files: Path) -> None:
        self.command, self.started = arguments[0], time.monotonic()
        self._out, self._err = files.with_suffix(".out"), files.with_suffix(".err")
        with self._out.open("wb") as out, self._err.open("wb") as err:
            command = [sys.executable, "-m", "masklake", *arguments]
            sentences = {**environment, "MASKLAKE_LOG_FORMAT": "text"}
            self.process = subprocess.Popen(command, cwd=ROOT, env=sentences, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        self._seen: list[Process] = []

    def below(self) -> list[Process]:
        """Everything that the driver started; remembered, since orphans have other parents."""
        found = below([self.process.pid])
        self._seen = [*{*self._seen, *found}]
        return [process for process in found if process.parent != self.process.pid]

    def driver(self) -> list[Process]:
        """The process that waits for the one that works, and that one."""
        return [process for process in below([os.getpid()]) if self.process.pid in (process.pid, process.parent)]

    def workers(self) -> list[Process]:
        """Ray's workers; their command says what each one does."""
        return [process for process in self.below() if process.command.startswith("ray::")]

    def running(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """kill -9 of the driver alone, after a look at what it started."""
        self.below()
        kill(self.driver())

    def wait(self, seconds: float = _MOST_SECONDS) -> int:
        """The exit code; -9 where it had to be killed because it did not end."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill_all()
        return self.process.returncode

    def kill_all(self) -> None:
        """Kill the driver, what is below it, and what was."""
        if self.running():
            self.kill()
        self.process.wait()
        kill(self._seen)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The last line on stdout; empty where that is not a JSON object. Ask when the job is over."""
        with suppress(ValueError, IndexError):
            found = json.loads(self.output.strip().splitlines()[-1])
            return found if isinstance(found, dict) and "exit_code" in found else {}
        return {}

    @property
    def run_id(self) -> str:
        """What the run said that it is called; '' where it did not come so far."""
        lines = [line for line in self.errors.splitlines() if line.startswith("masklake: run ")]
        return lines[0].split()[-1] if lines else ""

    @property
    def output(self) -> str:
        return self._out.read_text(errors="replace")

    @property
    def errors(self) -> str:
        return self._err.read_text(errors="replace")
