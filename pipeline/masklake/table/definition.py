"""What the Delta table is defined as: its columns, its partitioning, its version. An older version can be extended, a newer one not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Field, Schema
from deltalake.exceptions import TableNotFoundError

from masklake import storage
from masklake.errors import Refused
from masklake.schema import NOTHING_CARRIED, SCHEMA_VERSION, VERSION_PROPERTY, table_schema

_HASTY = {"connect_timeout": "4s", "timeout": "4s", "max_retries": "1", "retry_timeout": "4s"}


def check_log(uri: str, setting: str = "--output") -> None:
    """See within seconds whether delta-rs, which writes the table's log, reaches the store.

    Its client is not the one that reads and writes files: certificates, endpoint and keys come to it by other ways.

    Raises:
        Refused: it does not; the message names the `setting`.
    """

    def look() -> None:
        DeltaTable.is_deltatable(storage.delta_uri(uri), {**storage.delta_options(uri), **_HASTY})

    storage.refuse_unless(setting, uri, "list", look)


_CONSTRAINT = "delta.constraints."
_COLUMN_RULES = {"delta.invariants": "invariants", "delta.generationExpression": "expressions"}
_WRITABLE = {
    *("appendOnly", "changeDataFeed", "checkConstraints", "columnMapping", "deletionVectors"),
    *("generatedColumns", "invariants", "timestampNtz", "v2Checkpoint"),
}
_IDENTITY_VERSION = 6  # of writers: before features had names of their own


def create(uri: str, partition_by: Sequence[str], carried: pa.Schema = NOTHING_CARRIED) -> None:
    """Make an empty table.

    Raises:
        DeltaError: there is one, or the store does not take it.
    """
    DeltaTable.create(
        storage.delta_uri(uri),
        Schema.from_arrow(table_schema(partition_by, carried)),
        partition_by=list(partition_by),
        configuration={VERSION_PROPERTY: str(SCHEMA_VERSION)},
        raise_if_key_not_exists=False,
        storage_options=storage.delta_options(uri),
        # With retries, a creation that comes second would become version 1, and put its own schema and partitioning over the first's.
        commit_properties=CommitProperties(max_commit_retries=0),
    )


def check(uri: str, delta: DeltaTable, partition_by: Sequence[str] | None, carried: pa.Schema = NOTHING_CARRIED) -> None:
    """See that rows of this masklake fit a table, after columns that it lacks are added. Others that it has may be null, and then are.

    Args:
        partition_by: the columns by which it must be partitioned; None for any.
        carried: the further columns that rows will have.

    Raises:
        Refused: they do not.
    """
    there = list(delta.metadata().partition_columns)
    if partition_by is not None and there != list(partition_by):
        raise Refused(
            f"--partition-by {_names(partition_by)}: the table {uri} is partitioned by {_names(there)}; "
            f"say --partition-by {_names(there)}, or give --output another folder"
        )
    if schema_version(delta) > SCHEMA_VERSION:
        raise Refused(
            f"{uri}: a newer masklake wrote this table (schema version {schema_version(delta)}, this one knows {SCHEMA_VERSION}): "
            "update masklake, or give another folder"
        )
    expected, found = _types(Schema.from_arrow(table_schema(there))), _types(delta.schema())
    others = {field.name for field in delta.schema().fields if field.name not in expected}
    odd = {name for name in found if name not in others and not _fits(found[name], expected[name])}
    odd |= {field.name for field in delta.schema().fields if field.name in others and not field.nullable}
    odd |= {field.name for field in missing_columns(delta, there) if field.name not in found and not field.nullable}
    if odd:
        raise Refused(
            f"--output {uri}: the Delta table there has other columns than masklake's ({', '.join(sorted(odd | others))}): "
            "give another folder"
        )
    check_carried(uri, delta, carried)


def check_rules(uri: str, delta: DeltaTable) -> None:
    """See that nobody gave a table rules that new rows must keep: delta-rs (1.6) would not look whether they do.

    Raises:
        Refused: there are such rules, or features that delta-rs does not write.
    """
    settings, protocol = delta.metadata().configuration, delta.protocol()
    rules = [f"the constraint {name.removeprefix(_CONSTRAINT)} ({settings[name]})" for name in settings if name.startswith(_CONSTRAINT)]
    columns = delta.schema().to_json()
    rules += [f"{words} of its columns" for key, words in _COLUMN_RULES.items() if f'"{key}' in columns]
    if rules:
        raise Refused(
            f"--output {uri}: somebody gave the table {', '.join(rules)}, which cannot be kept here: drop it, or give another folder"
        )
    unknown = sorted(set(protocol.writer_features or ()) - _WRITABLE)
    if unknown or protocol.min_writer_version == _IDENTITY_VERSION:
        told = ", ".join(unknown) or "identity columns"
        raise Refused(f"--output {uri}: another program gave the table features that cannot be written here ({told}): give another folder")


def check_carried(uri: str, delta: DeltaTable, carried: pa.Schema) -> None:
    """See that columns to carry are those that a table has under these names, if it has any.

    Raises:
        Refused: one is of another type there, or its name differs in case only, which readers would take for the same.
    """
    found = _types(delta.schema())
    there = {name.lower(): name for name in found}
    for name, kind in _types(Schema.from_arrow(carried)).items():
        known = there.get(name.lower(), name)
        if known != name:
            raise Refused(f"--carry {name}: the table {uri} has a column {known}: call it so, or give --output another folder")
        if name in found and found[name] != kind:
            raise Refused(
                f"--carry {name}: it is {kind} here, and the table {uri} has a column of that name with {found[name]}: "
                "carry it under another name or type, or give --output another folder"
            )


def missing_columns(delta: DeltaTable, partition_by: Sequence[str], carried: pa.Schema = NOTHING_CARRIED) -> list[Field]:
    """The columns of this masklake, and of those to carry, that a table lacks, or in which it lacks a field of a struct."""
    found, expected = _types(delta.schema()), Schema.from_arrow(table_schema(partition_by, carried))
    types = _types(expected)
    return [field for field in expected.fields if field.name not in found or _lacks(found[field.name], types[field.name])]


def schema_version(delta: DeltaTable) -> int:
    """The version of the schema with which a table was made, or to which it was extended."""
    return int(delta.metadata().configuration.get(VERSION_PROPERTY, 1))


def table_id(uri: str) -> str | None:
    """The id of the Delta table that is at this place now; None where there is none."""
    try:
        delta = DeltaTable(storage.delta_uri(uri), storage_options=storage.delta_options(uri))
    except TableNotFoundError:
        return None
    return str(delta.metadata().id)


def _types(schema: Schema) -> dict[str, Any]:
    """Each column's type as Delta's protocol writes it: a word, or a mapping with the types inside."""
    return {field["name"]: field["type"] for field in json.loads(schema.to_json())["fields"]}


def _fits(found: Any, expected: Any) -> bool:
    """Whether values of a type can be stored where the table has another: structs may differ in fields that may be null."""
    if not isinstance(found, dict) or not isinstance(expected, dict) or found["type"] != expected["type"]:
        return bool(found == expected)
    if found["type"] == "array":
        return found["containsNull"] == expected["containsNull"] and _fits(found["elementType"], expected["elementType"])
    if found["type"] != "struct":
        return bool(found == expected)
    there, wanted = _fields(found), _fields(expected)
    both = [(there[name], wanted[name]) for name in there.keys() & wanted.keys()]
    one = [each[name] for each, other in ((there, wanted), (wanted, there)) for name in each.keys() - other.keys()]
    return all(field["nullable"] for field in one) and all(
        left["nullable"] == right["nullable"] and _fits(left["type"], right["type"]) for left, right in both
    )


def _lacks(found: Any, expected: Any) -> bool:
    """Whether a type that fits lacks a field, however deep."""
    if not isinstance(expected, dict) or not isinstance(found, dict):
        return False
    if expected["type"] == "array":
        return _lacks(found["elementType"], expected["elementType"])
    if expected["type"] != "struct":
        return False
    there = _fields(found)
    return any(name not in there or _lacks(there[name]["type"], field["type"]) for name, field in _fields(expected).items())


def _fields(struct: Any) -> dict[str, Any]:
    return {field["name"]: field for field in struct["fields"]}


def _names(columns: Sequence[str]) -> str:
    return ",".join(columns) if columns else "'' (nothing)"
