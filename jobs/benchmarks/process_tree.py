"""What a process and all that it started use: memory by role, and CPU time; sampled from Linux's /proc.

A process of Ray tells by its title what it is at: `ray::MapBatches(load)`. A worker that idles keeps the role that it had.
"""

from __future__ import annotations

import os
import re
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_TITLES = {"actor": "_SegmentActor", "load": "(load)", "write": "(write)"}
_TICKS = os.sysconf("SC_CLK_TCK")


def own_peak_mb() -> int:
    """The most memory that this process has had, in MB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)  # Linux tells KB


@dataclass(frozen=True)
class Sample:
    """One process at one time; `memory` is what it has in RAM of its own, in bytes, without memory that it shares with others."""

    time: float
    pid: int
    role: str
    memory: int


@dataclass
class Watch:
    """What was seen of a process and its descendants; CPU seconds are those until each was last seen."""

    samples: list[Sample] = field(default_factory=list)
    used: list[tuple[float, float]] = field(default_factory=list)
    """At each time, the CPU seconds of all of them until then."""
    shared: int = 0
    """The most shared memory (Ray's object store, mostly) that one of them had mapped and touched, in bytes."""
    _cpu: dict[int, float] = field(default_factory=dict)
    _roles: dict[int, str] = field(default_factory=dict)

    @property
    def cpu_seconds(self) -> float:
        return sum(self._cpu.values())

    def look(self, root: int) -> None:
        """Take a sample of every process of the tree."""
        now = time.time()
        for pid in _tree(root):
            try:
                title = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                status = Path(f"/proc/{pid}/status").read_text()
                used = _cpu_seconds(pid)
            except OSError:  # it ended
                continue
            self._roles[pid] = "driver" if pid == root else _role(title) or self._roles.get(pid, "idle")
            self._cpu[pid] = used
            memory = {name: int(kilobytes) * 1024 for name, kilobytes in re.findall(r"^Rss(\w+):\s+(\d+) kB", status, re.MULTILINE)}
            self.shared = max(self.shared, memory.get("Shmem", 0))
            self.samples.append(Sample(now, pid, self._roles[pid], memory.get("Anon", 0) + memory.get("File", 0)))
        self.used.append((now, self.cpu_seconds))


@contextmanager
def watched(root: int, every: float = 1.0) -> Iterator[Watch]:
    """Watch a process and its descendants, a sample every so many seconds, until the block ends."""
    watch, over = Watch(), threading.Event()

    def watching() -> None:
        while not over.is_set():
            watch.look(root)
            over.wait(every)

    thread = threading.Thread(target=watching, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        over.set()
        thread.join()


def _role(title: str) -> str | None:
    """What a process is at; None where its title does not say."""
    if title.startswith("ray::"):
        return next((role for role, mark in _TITLES.items() if mark in title), None)
    program = Path(title.split(" ", 1)[0]).name
    return program if program in ("raylet", "gcs_server") else "other"


def _tree(root: int) -> list[int]:
    """A process and its descendants, as they are now."""
    children: dict[int, list[int]] = {}
    for name in filter(str.isdecimal, (entry.name for entry in Path("/proc").iterdir())):
        try:
            parent = int(_after_name(int(name))[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def _cpu_seconds(pid: int) -> float:
    fields = _after_name(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _after_name(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on; the second, a name, may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
