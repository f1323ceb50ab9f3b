"""What an Iceberg table must look like to be the Delta table: its schema, partitioning and properties, and its files.

The files hold neither Iceberg's field ids nor the columns of the partitioning. So a name mapping in the table's properties gives the ids,
and each file's entry in the snapshot carries its partition values: Iceberg's rules of column projection take a column that a file lacks
from its identity partition (https://iceberg.apache.org/spec/#column-projection). pyiceberg's own `add_files` wants these columns in the
files, which is why entries are made here.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io.pyarrow import (
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
    pyarrow_to_schema,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat, ManifestContent, ManifestFile
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table, TableProperties
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.transforms import IdentityTransform
from pyiceberg.typedef import Record

from masklake import storage
from masklake.errors import MasklakeError, Refused
from masklake.spelling import plural
from masklake.upkeep.upkeep import TableFile, UpkeepTable

VERSION = "masklake.delta-version"
"""The key in a snapshot's summary that says which version of the Delta table it is."""
TABLE_ID = "masklake.delta-table-id"
"""The key in the Iceberg table's properties that says which Delta table it mirrors."""

RULES = {
    TableProperties.COMMIT_NUM_RETRIES: "0",  # pyiceberg would make the same snapshot again on top of another one: files twice
    TableProperties.MANIFEST_MERGE_ENABLED: "true",  # or each publication leaves one more manifest to read
    "gc.enabled": "false",  # which files may be deleted only the Delta table knows
}
"""Properties on which publishing relies."""

_FIRST_PARTITION_ID = 1000  # as Iceberg's specification numbers partition fields
_COLUMN_METRICS = "write.metadata.metrics.column."
_BOUNDED = {
    "image_uri": "truncate(512)",  # URIs share long prefixes
    **dict.fromkeys(
        ("image_etag", "model", "run_id", "run_order", "status", "error_code", "processed_at", "width", "height"), "truncate(64)"
    ),
    "fingerprint": "truncate(128)",
}
_MANIFEST_READERS = 8


@dataclass(frozen=True)
class Difference:
    """What makes the Iceberg table equal to the Delta table."""

    missing: Sequence[TableFile]
    surplus: Sequence[DataFile]
    same: int
    """Files that are in both."""


def iceberg_schema(table: UpkeepTable) -> Schema:
    """The Delta table's columns with ids. Those of the partitioning are optional: pyiceberg looks for required ones in the file."""
    ids = itertools.count(1)

    def numbered(column: pa.Field) -> pa.Field:
        kind = column.type
        if pa.types.is_struct(kind):
            kind = pa.struct([numbered(inner) for inner in kind])
        elif pa.types.is_list(kind):
            kind = pa.list_(numbered(kind.value_field))
        return column.with_type(kind).with_metadata({"PARQUET:field_id": str(next(ids))})

    by = table.partition_by
    return pyarrow_to_schema(pa.schema([numbered(column.with_nullable(column.nullable or column.name in by)) for column in table.schema]))


def partition_spec(schema: Schema, partition_by: Sequence[str]) -> PartitionSpec:
    """The Delta table's partitioning: the columns themselves, in order."""
    fields = [
        PartitionField(schema.find_field(name).field_id, _FIRST_PARTITION_ID + position, IdentityTransform(), name)
        for position, name in enumerate(partition_by)
    ]
    return PartitionSpec(*fields)


def properties(table: UpkeepTable) -> dict[str, str]:
    """The properties of a new Iceberg table, but for the name mapping: that names ids which its creation gives."""
    bounds = {f"{_COLUMN_METRICS}{name}": mode for name, mode in _BOUNDED.items() if name not in table.partition_by}
    return {
        **RULES,
        **bounds,
        TableProperties.DEFAULT_WRITE_METRICS_MODE: "none",
        TableProperties.METADATA_DELETE_AFTER_COMMIT_ENABLED: "true",
        TABLE_ID: table.table_id,
    }


def check(there: Table, table: UpkeepTable, name: str) -> None:
    """See that an Iceberg table is this Delta table's.

    Raises:
        Refused: it is another's, or partitioned in another way.
    """
    if TABLE_ID not in there.properties:
        raise Refused(f"--name {name}: an Iceberg table of this name exists and was not published by masklake: give another --name")
    spec = [field.name if isinstance(field.transform, IdentityTransform) else str(field) for field in there.spec().fields]
    if spec != table.partition_by:
        raise Refused(
            f"--name {name}: that Iceberg table is partitioned by {', '.join(spec) or 'nothing'}, and {table.uri} by "
            f"{', '.join(table.partition_by) or 'nothing'}: give another --name, or drop that table from the catalog"
        )
    if there.properties[TABLE_ID] != table.table_id:
        raise Refused(
            f"--name {name}: that Iceberg table was published from another Delta table than {table.uri} is now: give another --name, or "
            "drop that table from the catalog"
        )


def missing_columns(there: Table, table: UpkeepTable) -> list[str]:
    """The columns, and fields of structs, that the Delta table has gained."""
    known = set(there.schema().column_names)
    return [name for name in iceberg_schema(table).column_names if name not in known]


def difference(there: Table | None, table: UpkeepTable, files: Sequence[TableFile], name: str) -> Difference:
    """Compare the files of both tables.

    Raises:
        Refused: another program has deleted rows from the Iceberg table.
    """
    snapshot = there.current_snapshot() if there else None
    if there is None or snapshot is None:
        return Difference(files, [], 0)
    if snapshot.summary is not None and snapshot.summary.get(VERSION) == str(table.version):
        return Difference([], [], len(files))  # of our own making: whoever commits to the table makes another snapshot
    wanted = {f"{table.uri}/{file.path}": file for file in files}
    there_now: Counter[str] = Counter()
    surplus = list[DataFile]()
    for entries in _entries(there, snapshot.manifests(there.io), name):
        for file in entries:
            there_now[file.file_path] += 1
            if file.file_path not in wanted or there_now[file.file_path] > 1:
                surplus.append(file)  # all of a file's entries go with one of them
    missing = [file for uri, file in wanted.items() if there_now[uri] != 1]
    return Difference(missing, surplus, len(wanted) - len(missing))


def _entries(there: Table, manifests: Sequence[ManifestFile], name: str) -> Iterator[list[DataFile]]:
    """The files of each manifest."""
    if any(manifest.content == ManifestContent.DELETES for manifest in manifests):
        raise Refused(
            f"--name {name}: another program has deleted rows from that Iceberg table: drop it from the catalog, and publish again"
        )

    def read(manifest: ManifestFile) -> list[DataFile]:
        return [entry.data_file for entry in manifest.fetch_manifest_entry(there.io, discard_deleted=True)]

    with ThreadPoolExecutor(_MANIFEST_READERS, thread_name_prefix="manifest") as pool:
        yield from pool.map(read, manifests)


def data_files(table: UpkeepTable, files: Sequence[TableFile], metadata: TableMetadata, show: Callable[[str], None]) -> list[DataFile]:
    """Each file as an entry of a snapshot, with its partition values and the statistics of its footer: one or two requests per file.

    Raises:
        StorageError: a file cannot be read.
        MasklakeError: a file has columns that the table has not.
    """
    plan = compute_statistics_plan(metadata.schema(), metadata.properties)
    columns = parquet_path_to_id_mapping(metadata.schema())

    def describe(file: TableFile) -> DataFile:
        uri = f"{table.uri}/{file.path}"
        with storage.open_file(uri) as source:
            footer = pq.read_metadata(source)
        try:
            statistics = data_file_statistics_from_parquet_metadata(footer, plan, columns)
        except KeyError as error:
            raise MasklakeError(f"{uri}: has a column {error} that the table lacks") from None
        return DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=uri,
            file_format=FileFormat.PARQUET,
            partition=_partition(file.partition_values, metadata.spec()),
            file_size_in_bytes=file.size,
            spec_id=metadata.default_spec_id,
            sort_order_id=None,
            equality_ids=None,
            key_metadata=None,
            **statistics.to_serialized_dict(),
        )

    described = []
    with ThreadPoolExecutor(storage.CONCURRENCY, thread_name_prefix="footer") as pool:
        for number, entry in enumerate(pool.map(describe, files), 1):
            described.append(entry)
            show(f"{number:,} of {plural(len(files), 'new file')} looked at")
    return described


def _partition(values: Mapping[str, str | None], spec: PartitionSpec) -> Record:
    return Record(*(values[field.name] for field in spec.fields))
