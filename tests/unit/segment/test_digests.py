from __future__ import annotations

import hashlib
from typing import Any

import pyarrow as pa
import pytest

from masklake.segment.digests import DIGESTS, digest

KEYS = pa.schema([(name, pa.string()) for name in ("image_uri", "image_etag", "task", "fingerprint", "status")])
WANTED = {"panoptic": "p1", "semantic": "s1"}


def rows(*found: tuple[str, str | None, str, str, str]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([dict(zip(KEYS.names, row, strict=True)) for row in found], schema=KEYS)


def digests(*batches: pa.RecordBatch) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pa.Table.from_batches(digest(batches, KEYS, WANTED), schema=DIGESTS).to_pylist()
    return found


def image(uri: str, etag: str | None) -> int:
    (found,) = digests(rows((uri, etag, "panoptic", "p1", "ok")))
    return int(found["image"])


@pytest.mark.parametrize(
    ("uri", "etag", "text"), [("s3://é/a", "E1", "9:s3://é/aE1"), ("s3://a", "", "6:s3://a"), ("s3://a", None, "-s3://a")]
)
def test_a_digest_is_126_bits_of_md5_of_the_uris_length_in_bytes_the_uri_and_the_etag(uri: str, etag: str | None, text: str) -> None:
    assert image(uri, etag) == int.from_bytes(hashlib.md5(text.encode()).digest(), "little") >> 2


def test_where_the_uri_ends_and_whether_there_is_an_etag_is_part_of_it() -> None:
    pairs = [("ab", "c"), ("a", "bc"), ("abc", ""), ("abc", None), ("1:a", "bc"), ("-abc", None), ("-abc", "")]
    assert len({image(*pair) for pair in pairs}) == len(pairs)


def test_bits_say_which_tasks_are_done_and_which_failed_and_others_are_left_out() -> None:
    found = digests(
        rows(("a", "A", "panoptic", "p1", "ok"), ("a", "A", "semantic", "s1", "error")),
        rows(("a", "A", "panoptic", "p0", "ok"), ("a", "A", "semantic", "p1", "ok"), ("a", "A", "instance", "i1", "ok")),
    )
    assert sorted((row["ok"], row["failed"]) for row in found) == [(0, 2), (1, 0)]


def test_many_rows_are_all_there() -> None:
    batches = [rows(*[(f"{part}-{number}", "A", "panoptic", "p1", "ok") for number in range(1000)]) for part in range(70)]
    assert len({row["image"] for row in digests(*batches)}) == 70_000
