"""Measure discovery and planning where a lake is large: a simulated store of many objects, and a simulated table of many rows.

    python -m jobs.benchmark_listing --objects 1000000 --layout days --latency 0.05
    python -m jobs.benchmark_listing --objects 1000000 --done 1000000            # against a table that holds as many rows

The store (infra/listed_store.py) is another process, and answers each list request after a latency; the table's rows come from memory, as
the table's own reader would give them. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import botocore.session
import pyarrow as pa

from infra.listed_store import LAYOUTS, key_of
from pipeline import job  # noqa: F401 - what a run's driver has in memory anyway
from pipeline.inputs.discover import discover
from pipeline.inputs.plan import WorkList, make_plan

_BATCH = 8192  # rows of a table that come at a time
_SAMPLED_PAGES = 40  # of a listing page after page, which is told in full by these
_FINGERPRINTS = {"panoptic": "0" * 32}


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; prints a sentence for a reader, and JSON last."""
    arguments = _parser().parse_args(argv)
    _show("imported", 0.0)
    with _store(arguments.layout, arguments.objects, arguments.latency) as endpoint, tempfile.TemporaryDirectory() as folder:
        os.environ |= {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "us-east-1"}
        each = _seconds_per_page(endpoint)
        asked, before, cpu, started = _requests(endpoint), _peak_mb(), time.process_time(), time.monotonic()
        done = _rows(arguments.layout, arguments.done) if arguments.done else None
        pages = discover("s3://lake/images/")
        plan = make_plan(_watched(pages, started), done, _FINGERPRINTS, work_list=WorkList(folder, 32))
        seconds, cpu, requests = time.monotonic() - started, time.process_time() - cpu, _requests(endpoint) - asked
    assert plan.images == arguments.objects
    assert plan.done_images == min(arguments.done, arguments.objects)
    pages_needed = -(-arguments.objects // 1000)
    measured = {
        "objects": arguments.objects,
        "layout": arguments.layout,
        "latency": arguments.latency,
        "done_rows": arguments.done,
        "seconds": round(seconds, 1),
        "requests": requests,
        "requests_per_1000_objects": round(requests / pages_needed, 3),
        "page_after_page_seconds": round(pages_needed * each, 1),
        "cpu_seconds": round(cpu, 1),
        "peak_mb": _peak_mb(),
        "peak_mb_before": before,
    }
    print(json.dumps(measured))
    return 0


def _watched(pages: Iterator[pa.Table], started: float) -> Iterator[pa.Table]:
    """The pages, with a word on stderr now and then."""
    seen, told = 0, 0
    for page in pages:
        seen += page.num_rows
        if seen - told >= 250_000:
            told = seen
            _show(f"{seen:,} listed", time.monotonic() - started)
        yield page
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
    key = key_of(layout)
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
    command = [sys.executable, "-m", "infra.listed_store", "--layout", layout, "--objects", str(objects), "--latency", str(latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.kill()


def _requests(endpoint: str) -> int:
    with urllib.request.urlopen(f"{endpoint}/requests") as answer:  # noqa: S310 - our own server
        return int(answer.read())


def _peak_mb() -> int:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def _show(what: str, seconds: float) -> None:
    print(f"{seconds:7.1f} s  {_peak_mb():5d} MB  {what}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmark_listing", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=1_000_000, help="objects in the store (default: %(default)s)")
    parser.add_argument("--layout", choices=LAYOUTS, default="days", help="folders of days, of users, or one folder (default: %(default)s)")
    parser.add_argument("--latency", type=float, default=0.05, help="seconds before each answer of the store (default: %(default)s)")
    parser.add_argument("--done", type=int, default=0, help="rows that the table holds already (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
