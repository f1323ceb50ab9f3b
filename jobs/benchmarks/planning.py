"""Measure planning against a large table: a real Delta table of the columns that planning reads, and a listing that costs next to nothing.

    python -m jobs.benchmarks.planning --rows 100000000 --older 20000000 --table /tmp/table --day     # writes it first, then plans a day
    python -m jobs.benchmarks.planning --rows 100000000 --table /tmp/table --listed 1000000           # a million images of all days
    python -m jobs.benchmarks.planning --rows 100000000 --table /tmp/table --listed 1000000 --ray     # read by tasks of a local Ray

The table (simulated_table.py) needs 18 bytes of disk a row, and stays. One of a hundred listed images has changed since it was
written. Shows on stderr how it goes on; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.benchmarks import simulated_table
from jobs.benchmarks.process_tree import own_peak_mb
from jobs.benchmarks.simulated_table import DAYS, FINGERPRINT, LAKE
from masklake.cluster import cluster
from masklake.segment import flow
from masklake.segment import run as job
from masklake.segment.digests import digest
from masklake.segment.plan import WorkList, make_plan
from masklake.table.append import Table
from masklake.table.keys import KEYS, Wanted

_CHANGED_EVERY = 100
_TICK = os.sysconf("SC_CLK_TCK")


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; prints JSON last."""
    arguments = _parser().parse_args(argv)
    table = Table.open(arguments.table)
    if table is None:
        _show(f"writing {arguments.rows + arguments.older:,} rows", time.monotonic())
        table = simulated_table.write_table(arguments.table, arguments.rows, arguments.older)
    asked = {name: value for name, value in vars(arguments).items() if name not in ("table", "result")}
    told = json.dumps({**asked, **_measure(table, arguments), "load_of_the_machine": round(os.getloadavg()[1], 1)})
    if arguments.result:
        arguments.result.write_text(told + "\n")
    print(told)
    return 0


def _measure(table: Table, arguments: argparse.Namespace) -> dict[str, Any]:
    """Plan; how long, how much of the table was read, and what driver and workers took."""
    per_day = arguments.rows // DAYS
    if arguments.day:
        scope, numbers = f"{LAKE}dt={simulated_table.day(DAYS // 2)}/", np.arange(per_day) + DAYS // 2 * per_day
    else:
        scope, numbers = LAKE, np.arange(arguments.listed) * max(1, arguments.rows // arguments.listed)
    wanted = Wanted({"panoptic": FINGERPRINT}, scope)
    files = table.key_files(wanted)
    assert files is not None
    with ExitStack() as stack:
        if arguments.ray:
            stack.enter_context(cluster(None))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        watch = stack.enter_context(_watched(folder))
        stack.callback(setattr, tempfile, "tempdir", tempfile.tempdir)
        tempfile.tempdir = folder  # where the plan puts its scratch files
        cpu, started = time.process_time(), time.monotonic()
        pages = simulated_table.listing(numbers, per_day, _CHANGED_EVERY)
        keys = flow.done_digests(table.uri, wanted, files) if arguments.ray else digest(table.done_keys(wanted), KEYS, wanted.fingerprints)
        plan = make_plan(pages, _told(keys, started), wanted.fingerprints, work_list=WorkList(folder + "/work", job.GROUP_ROWS))
        seconds, cpu_seconds = time.monotonic() - started, time.process_time() - cpu
        children = watch()
    assert (plan.images, plan.todo_images) == (len(numbers), -(-len(numbers) // _CHANGED_EVERY)), plan
    return {
        "listed": plan.images,
        "to_do": plan.todo_images,
        "files_read": len(files),
        "rows_read": sum(file.rows for file in files),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "peak_mb": own_peak_mb(),
        **children,
    }


def _told(batches: Iterator[pa.RecordBatch], started: float) -> Iterator[pa.RecordBatch]:
    """The batches, with a word on stderr now and then."""
    rows, told = 0, 0
    _show("listed", started)
    for batch in batches:
        rows += batch.num_rows
        if rows - told >= 10_000_000:
            told = rows
            _show(f"{rows:,} rows of the table compared", started)
        yield batch
    _show(f"{rows:,} rows of the table compared, all", started)


@contextmanager
def _watched(folder: str) -> Iterator[Any]:
    """Look four times a second at the scratch folder and at Ray's workers; yields a function that says what the most was."""
    most = {"scratch_mb": 0, "workers_cpu_seconds": 0.0, "worker_peak_mb": 0}
    before = sum(cpu for cpu, _ in _workers())
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.25):
            size = sum(path.stat().st_blocks * 512 for path in Path(folder).rglob("*") if path.exists())
            workers = list(_workers())
            most["scratch_mb"] = max(most["scratch_mb"], size >> 20)
            most["workers_cpu_seconds"] = round(max(most["workers_cpu_seconds"], sum(cpu for cpu, _ in workers) - before), 1)
            most["worker_peak_mb"] = max([most["worker_peak_mb"], *(peak for _, peak in workers)])

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield lambda: most
    finally:
        ended.set()
        thread.join()


def _workers() -> Iterator[tuple[float, int]]:
    """CPU seconds and memory (MB, without what is shared with the driver) of each of our Ray's workers."""
    parents: dict[str, str] = {}
    names: dict[str, tuple[str, list[str]]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            name, _, rest = path.read_text().partition("(")[2].rpartition(")")
            fields = rest.split()
            parents[path.parent.name], names[path.parent.name] = fields[1], (name, fields)
    ours = str(os.getpid())
    for process, (name, fields) in names.items():
        ancestor = process
        while ancestor in parents and ancestor != ours:
            ancestor = parents[ancestor]
        with suppress(OSError):
            if ancestor == ours and name.startswith("ray::"):
                resident, shared = map(int, Path("/proc", process, "statm").read_text().split()[1:3])
                yield (int(fields[11]) + int(fields[12])) / _TICK, (resident - shared) * resource.getpagesize() >> 20


def _show(what: str, started: float) -> None:
    print(f"{time.monotonic() - started:7.1f} s  {own_peak_mb():5d} MB  {what}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmarks.planning", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--table", required=True, help="the table's folder; it is written where there is none")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the fingerprint that is asked for (default: %(default)s)")
    parser.add_argument("--older", type=int, default=0, help="rows of an earlier fingerprint, where the table is written (default: 0)")
    parser.add_argument("--listed", type=int, default=100_000, help="images listed, spread over all days (default: %(default)s)")
    parser.add_argument("--day", action="store_true", help="list all images of one day instead")
    parser.add_argument("--ray", action="store_true", help="have tasks of a local Ray read the table")
    parser.add_argument("--result", type=Path, help="write what is printed last here as well")
    return parser


if __name__ == "__main__":
    sys.exit(main())
