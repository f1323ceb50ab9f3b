"""Measure discovery and planning where a lake is large: a simulated store of many objects, and a simulated table of many rows.

    python -m jobs.benchmarks.listing --objects 1000000 --layout days --latency 0.05
    python -m jobs.benchmarks.listing --objects 1000000 --from-memory --done 1000000     # planning alone, against as many rows

The store (listed_store.py) is another process, and answers each list request after a latency; the table's rows come from memory, as
the table's own reader would give them. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import botocore.session
import pyarrow as pa

from jobs.benchmarks.listed_store import LAYOUTS
from jobs.benchmarks.process_tree import own_peak_mb
from masklake import storage  # the job: what a run's driver has in memory anyway
from masklake.images.discover import discover
from masklake.images.pages import page
from masklake.images.source import Input
from masklake.segment import run as job
from masklake.segment.digests import digest
from masklake.segment.plan import WorkList, make_plan
from masklake.table.keys import KEYS

_BATCH = 8192  # rows of a table that come at a time
_SAMPLED_PAGES = 40  # of a listing page after page, which is told in full by these
_FINGERPRINTS = {"panoptic": "0" * 32}


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; shows on stderr how it goes on, and prints JSON last."""
    arguments = _parser().parse_args(argv)
    measured = _from_memory(arguments) if arguments.from_memory else _from_store(arguments)
    asked = {name: value for name, value in vars(arguments).items() if name != "result"}
    # What else was at work here, beside the two processes of this: it changes the seconds, and the seconds of CPU a little.
    told = json.dumps({**asked, **measured, "peak_mb": own_peak_mb(), "load_of_the_machine": round(os.getloadavg()[1], 1)})
    if arguments.result:
        arguments.result.write_text(told + "\n")
    print(told)
    return 0


def _from_store(arguments: argparse.Namespace) -> dict[str, Any]:
    """List a store and plan; how long, and how many requests."""
    with _store(arguments.layout, arguments.objects, arguments.latency) as endpoint:
        os.environ |= {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "us-east-1"}
        each, asked = _seconds_per_page(endpoint), _requests(endpoint)
        measured = _plan(discover(Input("s3://lake/images/")), arguments)
        requests = _requests(endpoint) - asked
    pages = -(-arguments.objects // storage.PAGE)
    return {
        **measured,
        "requests": requests,
        "requests_per_1000_objects": round(requests / pages, 3),
        "page_after_page_seconds": round(pages * each, 1),
    }


def _from_memory(arguments: argparse.Namespace) -> dict[str, Any]:
    """Plan alone, from a listing that costs next to nothing."""
    key = LAYOUTS[arguments.layout]
    now = pa.scalar(datetime(2026, 11, 22, tzinfo=UTC), pa.timestamp("us", tz="UTC"))

    def pages() -> Iterator[pa.Table]:
        for first in range(0, arguments.objects, storage.PAGE):
            numbers = range(first, min(first + storage.PAGE, arguments.objects))
            etags = [f"{number:032x}" for number in numbers]
            yield page(
                [f"s3://lake/{key(number)}" for number in numbers], image_etag=etags, image_bytes=pa.scalar(100_000), image_modified=now
            )

    return _plan(pages(), arguments)


def _plan(pages: Iterator[pa.Table], arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare a listing with a table and write the work list."""
    before, cpu, started = own_peak_mb(), time.process_time(), time.monotonic()
    done = digest(_rows(arguments.layout, arguments.done), KEYS, _FINGERPRINTS) if arguments.done else None
    with tempfile.TemporaryDirectory() as folder:
        plan = make_plan(_watched(pages, started), done, _FINGERPRINTS, work_list=WorkList(folder, job.GROUP_ROWS))
    assert (plan.images, plan.done_images) == (arguments.objects, min(arguments.done, arguments.objects))
    seconds = {"seconds": round(time.monotonic() - started, 1), "cpu_seconds": round(time.process_time() - cpu, 1)}
    return {**seconds, "peak_mb_before": before}


def _watched(pages: Iterator[pa.Table], started: float) -> Iterator[pa.Table]:
    """The pages, with a word on stderr now and then."""
    seen, told = 0, 0
    for listed in pages:
        seen += listed.num_rows
        if seen - told >= 250_000:
            told = seen
            _show(f"{seen:,} listed", time.monotonic() - started)
        yield listed
    _show(f"{seen:,} listed, all", time.monotonic() - started)


def _seconds_per_page(endpoint: str) -> float:
    """How long botocore's own paginator takes for a page, one after the other: what a plain loop over a listing takes."""
    client = botocore.session.get_session().create_client("s3", endpoint_url=endpoint)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="lake", Prefix="images/")
    started, count = time.monotonic(), 0
    for _ in itertools.islice(pages, _SAMPLED_PAGES):
        count += 1
    return (time.monotonic() - started) / count


def _rows(layout: str, count: int) -> Iterator[pa.RecordBatch]:
    """What a table would give that holds the first objects, done."""
    key = LAYOUTS[layout]
    for first in range(0, count, _BATCH):
        numbers = range(first, min(first + _BATCH, count))
        size = len(numbers)
        yield pa.record_batch(
            {
                "image_uri": [f"s3://lake/{key(number)}" for number in numbers],
                "image_etag": [f"{number:032x}" for number in numbers],
                "task": ["panoptic"] * size,
                "fingerprint": [_FINGERPRINTS["panoptic"]] * size,
                "status": ["ok"] * size,
            }
        )


@contextmanager
def _store(layout: str, objects: int, latency: float) -> Iterator[str]:
    command = [
        sys.executable,
        "-m",
        "jobs.benchmarks.listed_store",
        "--layout",
        layout,
        "--objects",
        str(objects),
        "--latency",
        str(latency),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.kill()


def _requests(endpoint: str) -> int:
    with urllib.request.urlopen(f"{endpoint}/requests") as answer:  # noqa: S310 - our own server
        return int(answer.read())


def _show(what: str, seconds: float) -> None:
    print(f"{seconds:7.1f} s  {own_peak_mb():5d} MB  {what}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmarks.listing", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=1_000_000, help="objects in the store (default: %(default)s)")
    parser.add_argument("--layout", choices=list(LAYOUTS), default="days", help="how keys are made (default: %(default)s)")
    parser.add_argument("--latency", type=float, default=0.05, help="seconds before each answer of the store (default: %(default)s)")
    parser.add_argument("--from-memory", action="store_true", help="leave the store out: measure planning alone")
    parser.add_argument("--done", type=int, default=0, help="rows that the table holds already (default: %(default)s)")
    parser.add_argument("--result", type=Path, help="write what is printed last here as well")
    return parser


if __name__ == "__main__":
    sys.exit(main())
