"""The processes of a job, found in /proc: its driver, its Ray, its workers, each to be killed or stopped by its own id."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """One process as it was when we looked; `started` tells it from a later one with the same id."""

    pid: int
    parent: int
    command: str
    started: int


def below(roots: Collection[int]) -> list[Process]:
    """All living descendants of some processes, without themselves: parents before their children."""
    children: dict[int, list[Process]] = {}
    for process in _all():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    waiting = list(roots)
    while waiting:
        of_this = children.get(waiting.pop(0), [])
        found += of_this
        waiting += [process.pid for process in of_this]
    return found


def kill(processes: Iterable[Process], number: int = signal.SIGKILL) -> None:
    """Send a signal to each that is still the process that was seen."""
    for process in processes:
        with suppress(ProcessLookupError, FileNotFoundError):
            if _started(process.pid) == process.started:
                os.kill(process.pid, number)


def caught(look: Callable[[], list[Process]], name: str, until: Callable[[], bool], seconds: float = 300) -> list[Process]:
    """Those of some processes whose command holds a name, as soon as there are any; nothing where `until` becomes true before.

    Ray's workers change their command with every task, of which some last for milliseconds: so we look at few processes, many times.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not until():
        known, refreshed = look(), time.monotonic()
        while time.monotonic() - refreshed < 0.5:
            if found := [process for process in known if name in _command(process.pid)]:
                return found
            time.sleep(0.001)
    return []


def _all() -> Iterator[Process]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError, ValueError, IndexError):
                name, fields = _stat(int(folder.name))
                if fields[0] != "Z":
                    pid = int(folder.name)
                    yield Process(pid, int(fields[1]), _command(pid) or name, int(fields[19]))


def _command(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def _started(pid: int) -> int:
    return int(_stat(pid)[1][19])


def _stat(pid: int) -> tuple[str, list[str]]:
    """The name, and the fields from the state on, of proc(5)'s stat."""
    head, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    return head.partition("(")[2], rest.split()
