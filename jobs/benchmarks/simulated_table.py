"""A table of any number of rows as planning sees it: a real Delta table of real Parquet files, in which everything that planning does not
read is null or the same in every row.

    python -m jobs.benchmarks.simulated_table --rows 100000000 --older 20000000 /tmp/table

Image `i` lies in one of 100 day folders and has an etag that cannot be compressed, both made from its number, so that a listing can be made
to fit. Files are written by the product's own writer, in the order in which `masklake compact` leaves them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from masklake.schema import TABLE
from masklake.table.append import Table
from masklake.table.write import FileRecord, FileWriter

LAKE = "s3://lake/images/"
DAYS = 100
FINGERPRINT, OLDER = "5" * 32, "0" * 32
"""Of the rows to be found, and of those of an earlier model."""

_FILE_ROWS = 500_000
_WRITTEN_ROWS = 25_000  # at a time: about a row group
_ERROR_EVERY = 1000
_HEX = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), np.uint16)


def day(number: int) -> str:
    """The value of `dt` of a day's folder."""
    return f"{number:05d}"


def uris(numbers: NDArray[np.int64], per_day: int) -> pa.StringArray:
    """The URIs of images, in the order of their numbers: `per_day` of them lie in a day's folder."""
    parts = [
        _text(f"{LAKE}dt=", len(numbers)),
        _digits(numbers // per_day, 5),
        _text("/camera-", len(numbers)),
        _digits(numbers % per_day // 1000, 7),
        _text("-", len(numbers)),
        _digits(numbers, 10),
        _text(".jpg", len(numbers)),
    ]
    return _strings(np.hstack(parts))


def etags(numbers: NDArray[np.int64]) -> pa.StringArray:
    """32 hex digits for each image, as random as a store's."""
    words = np.stack([_mixed(numbers.astype(np.uint64) * np.uint64(2) + np.uint64(half)) for half in (0, 1)], axis=1)
    return _strings(_HEX[words.view(np.uint8)].view(np.uint8))


def write_table(uri: str, rows: int, older: int = 0, processes: int = 2) -> Table:
    """Make the table: `rows` rows of `FINGERPRINT`, for images 0, 1, ..., and `older` rows of `OLDER`, for the first of them.

    Every thousandth row is an error. Both numbers must be multiples of `DAYS`.
    """
    table = Table.open_or_create(uri, ["dt"])
    table.begin_run(LAKE, "simulated", beat=False)
    per_day = rows // DAYS
    shares = [
        (number, first, min(first + _FILE_ROWS, end), fingerprint)
        for fingerprint, count in ((FINGERPRINT, rows), (OLDER, older))
        for number in range(DAYS)
        for end in [number * per_day + count // DAYS]
        for first in range(number * per_day, end, _FILE_ROWS)
    ]
    with ProcessPoolExecutor(processes) as pool:
        table.commit(list(pool.map(partial(_write_file, table.uri, per_day), shares)))
    table.finish_run()
    return table


def _write_file(uri: str, per_day: int, share: tuple[int, int, int, str]) -> FileRecord:
    number, first, end, fingerprint = share
    writer = FileWriter(TABLE)
    for start in range(first, end, _WRITTEN_ROWS):
        writer.add(_rows(np.arange(start, min(start + _WRITTEN_ROWS, end)), per_day, fingerprint))
    stored = writer.store(uri, {"dt": day(number)}, "simulated")
    assert stored
    return FileRecord(**vars(stored), ok=stored.rows)


def _rows(numbers: NDArray[np.int64], per_day: int, fingerprint: str) -> pa.Table:
    now = datetime(2026, 11, 22, tzinfo=UTC)
    told = {"task": "panoptic", "model": "m", "model_revision": "r", "fingerprint": fingerprint, "run_id": "simulated", "run_order": 1}
    columns = {
        "processed_at": pa.repeat(pa.scalar(now, TABLE.field("processed_at").type), len(numbers)),
        **{name: pa.repeat(pa.scalar(value, TABLE.field(name).type), len(numbers)) for name, value in told.items()},
        "image_uri": uris(numbers, per_day),
        "image_etag": etags(numbers),
        "status": pa.array(np.where(numbers % _ERROR_EVERY, "ok", "error"), pa.string()),
    }
    return pa.table([columns.get(field.name, pa.nulls(len(numbers), field.type)) for field in TABLE], schema=TABLE)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64 of each."""
    values = values * np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return values ^ values >> np.uint64(31)


def _digits(numbers: NDArray[np.int64], width: int) -> NDArray[np.uint8]:
    places = [(numbers // 10**place % 10 + ord("0")).astype(np.uint8) for place in reversed(range(width))]
    return np.stack(places, axis=1)


def _text(text: str, rows: int) -> NDArray[np.uint8]:
    return np.broadcast_to(np.frombuffer(text.encode(), np.uint8), (rows, len(text)))


def _strings(characters: NDArray[np.uint8]) -> pa.StringArray:
    rows, width = characters.shape
    offsets = np.arange(0, (rows + 1) * width, width, dtype=np.int32)
    return pa.StringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(characters)))


def listing(numbers: NDArray[np.int64], per_day: int, changed_every: int) -> Iterator[pa.Table]:
    """Pages of a listing of these images; the first of each `changed_every` has another etag than the table's."""
    for first in range(0, len(numbers), 1000):
        page = numbers[first : first + 1000]
        versions = np.where(np.arange(first, first + len(page)) % changed_every, page, page + (1 << 40))
        yield pa.table(
            {
                "image_uri": uris(page, per_day),
                "image_etag": etags(versions),
                "image_bytes": pa.repeat(pa.scalar(100_000), len(page)),
            }
        )


def main(argv: list[str] | None = None) -> int:
    """Write the table."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmarks.simulated_table", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--older", type=int, default=0)
    arguments = parser.parse_args(argv)
    write_table(arguments.folder, arguments.rows, arguments.older)
    return 0


if __name__ == "__main__":
    sys.exit(main())
