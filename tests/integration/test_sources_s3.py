"""Sources of images on a real S3 server: ranges of tar files, tables, and inventories as AWS writes them."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from masklake import storage
from masklake.demo.seaweedfs import SeaweedFS
from masklake.errors import ErrorCode, ImageFailure, Refused
from masklake.images.discover import discover
from masklake.images.fetch import fetch, fetch_by_uri
from masklake.images.source import Input
from masklake.images.sources import source_of
from masklake.storage import Span
from tests.promises import Example, check_promises

MOST = 10**7
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def found(uri: str, **settings: Any) -> dict[str, dict[str, Any]]:
    return {row["image_uri"]: row for page in discover(Input(uri, **settings)) for row in page.to_pylist()}


def contents(uri: str, **settings: Any) -> dict[str, bytes | ImageFailure]:
    return {
        name: content
        for page in discover(Input(uri, **settings))
        for name, content in zip(page["image_uri"].to_pylist(), fetch(page, MOST), strict=True)
    }


def test_what_an_api_lists_is_a_list_whose_etags_are_those_of_a_listing(s3: SeaweedFS, bucket: str) -> None:
    for name in ("dt=1/a.jpg", "dt=1/b.jpg"):
        s3.client.put_object(Bucket=bucket, Key=name, Body=name.encode())
    entries = s3.client.list_objects_v2(Bucket=bucket, Prefix="dt=1/")["Contents"]
    assert entries[0]["ETag"].startswith('"')
    told = [
        {
            "uri": f"s3://{bucket}/{entry['Key']}",
            "etag": entry["ETag"],
            "size": entry["Size"],
            "modified": int(entry["LastModified"].timestamp()),
        }
        for entry in entries
    ]
    s3.client.put_object(Bucket=bucket, Key="lists/all.jsonl", Body="\n".join(map(json.dumps, told)).encode())
    listed = {
        name: {**row, "image_modified": row["image_modified"].replace(microsecond=0)} for name, row in found(f"s3://{bucket}/dt=1/").items()
    }
    assert found(f"s3://{bucket}/lists/all.jsonl") == found(f"s3://{bucket}/lists/") == listed


# --- ranges -------------------------------------------------------------------------------------------------------------------------------


def test_a_span_is_read_of_the_version_that_is_meant(bucket: str) -> None:
    uri = f"s3://{bucket}/a b+c.bin"
    storage.write_bytes(uri, bytes(range(100)))
    (stored,) = storage.stat_many([uri])
    assert isinstance(stored, storage.StoredFile)
    spans = [Span(uri, 10, 5), Span(uri, 99, 1, stored.etag), Span(uri, 0, 5, "another"), Span(uri, 100, 5), Span(f"{uri}x", 0, 1)]
    first, last, other, beyond, absent = storage.read_spans(spans)
    assert (first, last) == (bytes(range(10, 15)), bytes([99]))
    changed = ImageFailure(ErrorCode.CHANGED, "it has changed since it was listed")
    assert (other, beyond) == (changed, changed)
    assert absent == ImageFailure(ErrorCode.NOT_FOUND, "there is no such object")


def test_an_open_file_reads_ranges_and_never_mixes_versions(bucket: str) -> None:
    uri = f"s3://{bucket}/a.bin"
    data = bytes(range(256)) * 20_000
    storage.write_bytes(uri, data)
    with storage.open_file(uri) as file:
        assert file.read(3) == data[:3]
        assert file.seek(-2, 2) == len(data) - 2
        assert file.read() == data[-2:]
        assert file.seek(1_000_001) == 1_000_001
        assert file.read(2_000_000) == data[1_000_001:3_000_001]
        storage.write_bytes(uri, data[::-1])
        file.seek(4_500_000)
        with pytest.raises(storage.StorageError, match="it has changed since it was listed"):
            file.read(1)


# --- tar files and tables -----------------------------------------------------------------------------------------------------------------


def test_shards_are_indexed_and_read_by_ranges(s3: SeaweedFS, bucket: str) -> None:
    files = {f"{number:03}.{kind}": bytes([number]) * 3000 for number in range(60) for kind in ("jpg", "cls")}
    for shard in range(3):
        sink = io.BytesIO()
        with tarfile.open(fileobj=sink, mode="w") as tar:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        s3.client.put_object(Bucket=bucket, Key=f"in/dt=1/shard {shard}.tar", Body=sink.getvalue())
    images = {name: data for name, data in files.items() if name.endswith("jpg")}
    expected = {f"s3://{bucket}/in/dt=1/shard {shard}.tar/{name}": data for shard in range(3) for name, data in images.items()}
    assert contents(f"s3://{bucket}/in/") == expected
    assert contents(f"s3://{bucket}/in/dt=*/*[01].tar").keys() == {uri for uri in expected if "shard 2" not in uri}
    assert fetch_by_uri(f"s3://{bucket}/in/dt=1/shard 1.tar/007.jpg") == bytes([7]) * 3000


def test_rows_of_a_table_are_read_by_ranges(s3: SeaweedFS, bucket: str) -> None:
    values = [bytes([number]) * 2000 for number in range(50)]
    sink = io.BytesIO()
    pq.write_table(pa.table({"image": values}), sink, row_group_size=20)
    s3.client.put_object(Bucket=bucket, Key="in/dt=1/part-0.parquet", Body=sink.getvalue())
    uri = f"s3://{bucket}/in/dt=1/part-0.parquet#column=image&row="
    assert contents(f"s3://{bucket}/in", bytes_column="image") == {f"{uri}{row}": value for row, value in enumerate(values)}
    assert fetch_by_uri(f"{uri}33") == values[33]


# --- inventories --------------------------------------------------------------------------------------------------------------------------

KEYS = ["images/dt=1/a b+c%.jpg", 'images/dt=1/ümläut/日本,".jpg', "images/old.jpg", "images/gone.jpg", "images/_x/hidden.jpg", "images/"]


def put_inventory(s3: SeaweedFS, bucket: str, form: str, schema: str, files: Sequence[bytes], **more: Any) -> str:
    """Store an inventory of bucket `lake` as AWS delivers it; returns the URI of its manifest."""
    keys = [f"inventory/lake/daily/data/{number}.{form.lower()}" for number in range(len(files))]
    for key, data in zip(keys, files, strict=True):
        s3.client.put_object(Bucket=bucket, Key=key, Body=data)
    manifest = {
        "sourceBucket": "lake",
        "destinationBucket": f"arn:aws:s3:::{bucket}",
        "version": "2016-11-30",
        "creationTimestamp": "1795348800000",
        "fileFormat": form,
        "fileSchema": schema,
        "files": [{"key": key, "size": len(data), "MD5checksum": "0" * 32} for key, data in zip(keys, files, strict=True)],
        **more,
    }
    s3.client.put_object(Bucket=bucket, Key="inventory/lake/daily/2026-11-22T01-00Z/manifest.json", Body=json.dumps(manifest).encode())
    return f"s3://{bucket}/inventory/lake/daily/2026-11-22T01-00Z/manifest.json"


def versions() -> list[dict[str, Any]]:
    """Every version of the bucket's objects, in the order of AWS's columns."""
    rows = [
        {"bucket": "lake", "key": key, "version_id": "v1", "is_latest": True, "is_delete_marker": False, "size": 10 + number}
        for number, key in enumerate(KEYS)
    ]
    rows[2]["is_latest"] = False
    rows[3]["is_delete_marker"] = True
    rows[3]["size"] = None
    return [{**row, "last_modified_date": NOON, "e_tag": f"etag of {row['key']}", "storage_class": "STANDARD"} for row in rows]


def as_csv(rows: Sequence[dict[str, Any]]) -> bytes:
    sink = io.StringIO()
    writer = csv.writer(sink, quoting=csv.QUOTE_ALL)
    for row in rows:
        told = {**row, "key": quote_plus(row["key"], safe="/"), "last_modified_date": "2026-11-22T12:00:00.000Z"}
        writer.writerow([str(value).lower() if isinstance(value, bool) else "" if value is None else value for value in told.values()])
    return gzip.compress(sink.getvalue().encode())


def as_parquet(rows: Sequence[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)).cast(PARQUET_SCHEMA), sink)
    return sink.getvalue()


CSV_SCHEMA = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag, StorageClass"
PARQUET_SCHEMA = pa.schema(
    [
        pa.field("bucket", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("version_id", pa.string()),
        pa.field("is_latest", pa.bool_()),
        pa.field("is_delete_marker", pa.bool_()),
        pa.field("size", pa.int64()),
        pa.field("last_modified_date", pa.timestamp("ms", tz="UTC")),
        pa.field("e_tag", pa.string()),
        pa.field("storage_class", pa.string()),
    ]
)


@pytest.mark.parametrize("form", ["CSV", "Parquet"])
def test_an_inventory_is_a_listing_of_the_newest_versions(s3: SeaweedFS, bucket: str, form: str) -> None:
    written = as_csv if form == "CSV" else as_parquet
    rows = versions()
    uri = put_inventory(
        s3, bucket, form, CSV_SCHEMA if form == "CSV" else "message s3.inventory {...}", [written(rows[:1]), written(rows[1:])]
    )
    assert found(uri) == {
        f"s3://lake/{KEYS[number]}": {
            "image_uri": f"s3://lake/{KEYS[number]}",
            "image_etag": f"etag of {KEYS[number]}",
            "image_bytes": 10 + number,
            "image_modified": NOON,
            "error_code": None,
            "error_message": None,
            "image_container": None,
            "image_start": None,
            "image_source": None,
            "image_keys": None,
        }
        for number in (0, 1)
    }
    assert source_of(Input(uri)).fences(Input(uri)) == "s3://lake/"
    assert found(uri, since=NOON.replace(hour=13)) == {}


def test_an_inventory_keeps_the_promises_of_every_kind(s3: SeaweedFS, bucket: str, tmp_path: Path) -> None:
    for name, body in (("dt=1/a.jpg", b"a"), ("dt=1/b c.png", b"b")):
        s3.client.put_object(Bucket=bucket, Key=name, Body=body)
    rows = b"".join(f'"{bucket}","dt=1/{name}"\n'.encode() for name in ("a.jpg", "b+c.png", "gone.jpg", "_hidden/d.jpg"))
    uri = put_inventory(s3, bucket, "CSV", "Bucket, Key", [gzip.compress(rows)], sourceBucket=bucket)
    lake = f"s3://{bucket}/dt=1"

    def change() -> set[str]:
        s3.client.put_object(Bucket=bucket, Key="dt=1/a.jpg", Body=b"another a")
        return {f"{lake}/a.jpg"}

    images, broken = {f"{lake}/a.jpg": b"a", f"{lake}/b c.png": b"b"}, {f"{lake}/gone.jpg": ErrorCode.NOT_FOUND}
    check_promises(Example(Input(uri), images, broken, change), tmp_path)


def test_what_an_inventory_was_not_configured_to_tell_is_asked_for(s3: SeaweedFS, bucket: str) -> None:
    s3.client.put_object(Bucket=bucket, Key="a b.jpg", Body=b"12345")
    data = gzip.compress(f'"{bucket}","a+b.jpg"\n"{bucket}","gone.jpg"\n'.encode())
    uri = put_inventory(s3, bucket, "CSV", "Bucket, Key", [data, gzip.compress(b"", mtime=0)], sourceBucket=bucket)
    rows = found(uri)
    assert [row["image_bytes"] for row in rows.values()] == [5, None]
    assert rows[f"s3://{bucket}/gone.jpg"]["error_code"] == "not_found"


def test_shards_of_an_inventory_are_opened(s3: SeaweedFS, bucket: str) -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        member = tarfile.TarInfo("1.jpg")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"one"))
    s3.client.put_object(Bucket=bucket, Key="a.tar", Body=sink.getvalue())
    data = gzip.compress(f'"{bucket}","a.tar","of yesterday"\n'.encode())
    uri = put_inventory(s3, bucket, "CSV", "Bucket, Key, ETag", [data], sourceBucket=bucket)
    assert contents(uri) == {f"s3://{bucket}/a.tar/1.jpg": b"one"}
    assert found(uri)[f"s3://{bucket}/a.tar/1.jpg"]["image_etag"] == hashlib.md5(sink.getvalue()).hexdigest(), "of what was read"


@pytest.mark.parametrize(
    ("form", "schema", "data", "sentence"),
    [
        ("ORC", "struct<bucket:string,key:string>", b"", "inventories in ORC are not read"),
        ("CSV", "Bucket, Size", b"", "has no column Key"),
        ("CSV", "Bucket, Key", b"no gzip", "cannot be read"),
        ("CSV", "Bucket, Key, ETag", gzip.compress(b'"b","k","e"\n' * 9999, mtime=0)[:60], "cannot be read"),
        ("CSV", "Bucket, Key, Size", gzip.compress(b'"b","k","many"\n', mtime=0), "cannot be read"),
        ("Parquet", "message s3.inventory {...}", b"no Parquet", "cannot be read"),
    ],
    ids=["ORC", "no key", "not compressed", "cut short", "a size that is none", "no Parquet"],
)
def test_an_inventory_that_cannot_be_read_is_refused(
    s3: SeaweedFS, bucket: str, form: str, schema: str, data: bytes, sentence: str
) -> None:
    uri = put_inventory(s3, bucket, form, schema, [data])
    with pytest.raises(Refused, match=sentence):
        found(uri)


def test_another_json_is_no_inventory(s3: SeaweedFS, bucket: str) -> None:
    s3.client.put_object(Bucket=bucket, Key="x/manifest.json", Body=b"[1]")
    with pytest.raises(Refused, match="not the manifest of an S3 Inventory"):
        found(f"s3://{bucket}/x/manifest.json")
