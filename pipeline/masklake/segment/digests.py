"""What a table holds, as planning compares it: for each row 16 bytes that stand for image and version, and the bit of its task.

A billion rows so take 18 GB to compare instead of 100 GB, and numbers are compared faster than text. 126 bits of MD5 are kept, as an Arrow
decimal of 38 digits. Two of a billion images that differ share them with a probability of 6e-21; of 64 bits, with one of 3 %. A digest says
how long the URI is, so that the end of one cannot be taken for the beginning of an etag.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import duckdb
import pyarrow as pa

from masklake.database import connect

DIGESTS = pa.schema([("image", pa.decimal128(38)), ("ok", pa.uint8()), ("failed", pa.uint8())])
"""An image's digest, and bit masks of the tasks that are done and that failed; the bit of a task is its place among those asked for."""

OF_URI = "(md5_number(image_uri) >> 2)::DECIMAL(38)"
OF_IMAGE = "(md5_number(if(image_etag IS NULL, '-' || image_uri, strlen(image_uri) || ':' || image_uri || image_etag)) >> 2)::DECIMAL(38)"
"""In DuckDB's SQL; an image without an etag is a version of its own."""

_BATCH_ROWS = 131_072


def digest(
    rows: Iterable[pa.RecordBatch], schema: pa.Schema, fingerprints: Mapping[str, str], threads: int = 2
) -> Iterator[pa.RecordBatch]:
    """Rows of a table as `DIGESTS`, streamed; those of other tasks and fingerprints are left out.

    Args:
        rows: rows of the table.
        schema: theirs: `image_uri, image_etag, task, fingerprint, status`, all strings.
        fingerprints: the fingerprint of each task that is asked for.
        threads: how many to use; they take most of the time.
    """
    bits = [1 << number for number in range(len(fingerprints))]
    wanted = pa.table({"task": [*fingerprints], "fingerprint": [*fingerprints.values()], "bit": pa.array(bits, pa.uint8())})
    with connect(config={"threads": threads, "preserve_insertion_order": False}) as database:
        database.execute("SET enable_progress_bar = false")  # it would go to standard output, where the job's JSON is
        database.execute("SET disabled_optimizers = 'join_order, build_side_probe_side'")  # keep `wanted`, and let the rows pass by
        database.register("wanted", wanted)
        with streamed(database, "rows", schema, rows):
            found = database.sql(
                f"SELECT {OF_IMAGE} AS image, if(status = 'ok', bit, 0)::UTINYINT AS ok, if(status = 'ok', 0, bit)::UTINYINT AS failed "  # noqa: S608
                "FROM rows JOIN wanted USING (task, fingerprint)"
            )
            yield from found.to_arrow_reader(_BATCH_ROWS)


@contextmanager
def streamed(database: duckdb.DuckDBPyConnection, name: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[None]:
    """Batches as a view that can be read once. What making them raises comes out as it is, not as DuckDB or Arrow would put it."""
    raised: list[Exception] = []

    def watched() -> Iterator[pa.RecordBatch]:
        try:
            yield from batches
        except Exception as error:
            raised.append(error)
            raise

    database.register(name, pa.RecordBatchReader.from_batches(schema, watched()))
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        if raised:
            raise raised[0] from error
        raise
    database.unregister(name)
