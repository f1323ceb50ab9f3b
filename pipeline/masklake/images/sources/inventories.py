"""S3 Inventory: the listing of a bucket that AWS delivers as files, daily or weekly, read instead of asking page by page.

The input is an inventory's `manifest.json`, which names the data files, in gzipped CSV or Parquet. Older versions of objects and delete
markers are passed over, and so are hidden names, as in a listing. The format: https://docs.aws.amazon.com/AmazonS3/latest/userguide/
storage-inventory-location.html
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, BinaryIO
from urllib.parse import unquote_plus

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from masklake import storage
from masklake.errors import Refused
from masklake.images.keys import Asked
from masklake.images.listing import Tables, There, completed
from masklake.images.locations import check_locations
from masklake.images.pages import is_hidden, page
from masklake.images.parquet_pages import text_batches
from masklake.images.source import Input, Source

_NAME = "/manifest.json"

_COLUMNS = {  # the name in Parquet, and in the CSV's schema
    "key": "Key",
    "is_latest": "IsLatest",
    "is_delete_marker": "IsDeleteMarker",
    "size": "Size",
    "last_modified_date": "LastModifiedDate",
    "e_tag": "ETag",
}


class Inventories(Source):
    """A `manifest.json`. It is another one every day, so it stands for its bucket."""

    name = "inventory"

    def claims(self, asked: Input, there: There) -> bool:
        """A file of this name."""
        return asked.uri.endswith(_NAME) and there.file is not None

    def fences(self, asked: Input) -> str:
        """The bucket."""
        return f"s3://{open_inventory(asked.uri).bucket}/"

    def may_hold(self, asked: Input) -> str | None:
        """The bucket's URIs."""
        return self.fences(asked)

    def pages(self, asked: Input, columns: Asked) -> Iterator[pa.Table]:
        """The newest versions of its objects; what it was not configured to tell is asked for."""
        del columns
        inventory = open_inventory(asked.uri)
        # As AWS delivers it, the bucket that was listed is one of the folders of its place.
        listed = [] if f"/{inventory.bucket}/" in asked.uri else [f"s3://{inventory.bucket}/"]
        check_locations([*listed, *inventory.files], asked.uri, asked.allowed)
        return map(completed, read(inventory, asked.tables))


@dataclass(frozen=True)
class Inventory:
    """What a manifest says: the bucket that was listed, and the data files with the columns of a CSV."""

    uri: str
    bucket: str
    format: str
    columns: tuple[str, ...]
    files: tuple[str, ...]


def open_inventory(uri: str) -> Inventory:
    """Read a manifest.

    Raises:
        Refused: it is none of an S3 Inventory's, or in a format that is not read.
        StorageError: it could not be read after retries.
    """
    try:
        manifest = json.loads(storage.read_bytes(uri))
        bucket, form, schema = manifest["sourceBucket"], manifest["fileFormat"], manifest["fileSchema"]
        holder = manifest["destinationBucket"].rpartition(":")[2]  # an ARN, or a name
        files = tuple(f"s3://{holder}/{file['key']}" for file in manifest["files"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Refused(f"--input {uri}: not the manifest of an S3 Inventory") from None
    if form not in ("CSV", "Parquet"):
        raise Refused(f"--input {uri}: inventories in {form} are not read: configure the inventory to be CSV or Parquet")
    columns = tuple(name.strip() for name in schema.split(",")) if form == "CSV" else ()
    if columns and "Key" not in columns:
        raise Refused(f"--input {uri}: the inventory has no column Key; it has {schema}")
    return Inventory(uri, bucket, form, columns, files)


def read(inventory: Inventory, tables: Tables) -> Iterator[pa.Table]:
    """The objects of the bucket, in pages; null where the inventory was not configured to tell. `tables` is told of those among them.

    Raises:
        Refused: a data file cannot be read.
        StorageError: the store did not give one, after retries.
    """
    rows = _csv_rows if inventory.format == "CSV" else _parquet_rows
    for file in inventory.files:
        try:
            with storage.open_file(file) as source:
                for part in rows(source, inventory):
                    tables.note_names((f"s3://{inventory.bucket}/{key}" for key in part["key"].to_pylist()), f"s3://{inventory.bucket}/")
                    yield _page(part, inventory.bucket)
        except (OSError, EOFError, zlib.error, ValueError, pa.ArrowException) as error:
            raise Refused(f"--input {inventory.uri}: its file {file} cannot be read: {error}") from None


def _csv_rows(source: BinaryIO, inventory: Inventory) -> Iterator[pa.Table]:
    places = {name: inventory.columns.index(column) for name, column in _COLUMNS.items() if column in inventory.columns}
    with gzip.open(source) as plain:
        lines = csv.reader(io.TextIOWrapper(plain, encoding="utf-8", newline=""))
        while part := list(islice(lines, storage.PAGE)):
            columns: dict[str, list[Any]] = {name: [line[place] or None for line in part] for name, place in places.items()}
            columns["key"] = [unquote_plus(key) for key in columns["key"]]
            if times := columns.get("last_modified_date"):
                columns["last_modified_date"] = [time and datetime.fromisoformat(time) for time in times]
            yield pa.table({name: pa.array(values) for name, values in columns.items()})


def _parquet_rows(source: BinaryIO, inventory: Inventory) -> Iterator[pa.Table]:
    there = pq.read_schema(source).names
    names = [name for name in _COLUMNS if name in there]
    if "key" not in names:
        raise Refused(f"--input {inventory.uri}: the inventory has no column key; it has {', '.join(there)}")
    yield from text_batches(source, names)


def _page(rows: pa.Table, bucket: str) -> pa.Table:
    """The newest versions among some rows of an inventory."""
    known = {name: rows[name] for name in rows.column_names}
    current = [not is_hidden(key) for key in known["key"].to_pylist()]
    for name, wrong in (("is_latest", "false"), ("is_delete_marker", "true")):
        if name in known:
            told = known[name].cast(pa.string()).to_pylist()
            current = [good and (value or "").lower() != wrong for good, value in zip(current, told, strict=True)]
    listed = page(
        pc.binary_join_element_wise(f"s3://{bucket}", known["key"].cast(pa.string()), "/"),
        image_etag=known.get("e_tag"),
        image_bytes=known.get("size"),
        image_modified=known.get("last_modified_date"),
    )
    return listed.filter(pa.array(current, pa.bool_()))
