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


def wait_for(look: Callable[[], list[Process]], until: Callable[[], bool], seconds: float = 60) -> list[Process]:
    """Look until something is found; nothing where `until` became true, or time ran out, before."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not until():
        if found := look():
            return found
        time.sleep(0.005)
    return []


def _all() -> Iterator[Process]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError, ValueError, IndexError):
                name, fields = _stat(int(folder.name))
                if fields[0] != "Z":
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                    yield Process(int(folder.name), int(fields[1]), command or name, int(fields[19]))


def _started(pid: int) -> int:
    return int(_stat(pid)[1][19])


def _stat(pid: int) -> tuple[str, list[str]]:
    """The name, and the fields from the state on, of proc(5)'s stat."""
    head, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    return head.partition("(")[2], rest.split()
