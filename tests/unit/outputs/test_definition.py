"""Tables of other schema versions: older ones are extended by the first run that writes, newer and foreign ones refused."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, Schema, write_deltalake

from pipeline import reading, schema
from pipeline.errors import Refused
from pipeline.outputs import definition, table
from pipeline.outputs.compact import compact
from pipeline.outputs.keys import Wanted
from pipeline.outputs.table import Table
from pipeline.outputs.upkeep import UpkeepTable
from pipeline.schema import VERSION_PROPERTY, table_schema
from tests.answers import rows
from tests.tables import BY, LAKE, begun, files


def older(folder: Path, lacks: tuple[str, ...] = ("format", "error_message")) -> None:
    """A table from before these columns were thought of, with one row."""
    made = rows([f"{LAKE}old.jpg"], "run-0", BY, dt=["2026-11-22"]).drop_columns(list(lacks))
    DeltaTable.create(str(folder), Schema.from_arrow(made.schema), partition_by=list(BY))
    write_deltalake(str(folder), made, mode="append")


def test_a_new_table_says_its_version(tmp_path: Path) -> None:
    Table.open_or_create(str(tmp_path), BY)
    assert DeltaTable(str(tmp_path)).metadata().configuration[VERSION_PROPERTY] == str(schema.SCHEMA_VERSION)


def test_an_older_table_is_extended_by_the_first_run_that_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (definition, table):
        monkeypatch.setattr(module, "SCHEMA_VERSION", 2)
    older(tmp_path)
    assert [row["image_uri"] for row in reading.open_table(str(tmp_path)).newest()] == [f"{LAKE}old.jpg"]
    opened = Table.open(str(tmp_path), BY)
    assert opened
    assert opened.done_keys(Wanted({"panoptic": "f-panoptic"})).read_all().num_rows == 1
    assert "format" not in [field.name for field in DeltaTable(str(tmp_path)).schema().fields], "only looked at"

    run = begun(tmp_path, "run-1")
    run.commit(files(run, "run-1", ["new"]))
    delta = DeltaTable(str(tmp_path))
    assert {field.name for field in delta.schema().fields} == set(table_schema(BY).names)
    assert delta.metadata().configuration[VERSION_PROPERTY] == "2"
    expected = {f"{LAKE}old.jpg": None, f"{LAKE}dt=2026-11-22/new.jpg": "JPEG"}
    assert dict(pl.read_delta(str(tmp_path)).select("image_uri", "format").rows()) == expected
    assert {row["image_uri"]: row["format"] for row in reading.open_table(str(tmp_path)).newest()} == expected

    version = delta.version()
    with UpkeepTable.job(str(tmp_path), "compact-1", beat=False) as upkeep:
        assert compact(upkeep, 1_000_000, say=lambda text: None).files_after == 1
    assert dict(pl.read_delta(str(tmp_path)).select("image_uri", "format").rows()) == expected
    begun(tmp_path, "run-2")
    assert DeltaTable(str(tmp_path)).version() == version + 2, "the compaction and the beginning: nothing is extended twice"


def test_many_can_extend_it_at_once(tmp_path: Path) -> None:
    older(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda number: begun(tmp_path, f"run-{number}", f"{LAKE}{number}/"), range(4)))
    for number, run in enumerate(runs):
        run.commit(files(run, f"run-{number}", [f"{number}"]))
    delta = DeltaTable(str(tmp_path))
    assert [field.name for field in delta.schema().fields].count("format") == 1
    assert delta.to_pyarrow_table().num_rows == 5


def test_a_run_that_works_while_another_extends_the_table_goes_on(tmp_path: Path) -> None:
    older(tmp_path)
    run = begun(tmp_path, "run-1", f"{LAKE}1/")
    delta = DeltaTable(str(tmp_path))
    delta.alter.add_columns(Schema.from_arrow(pa.schema([pa.field("from_the_future", pa.string())])).fields)
    run.commit(files(run, "run-1", ["a"]))
    assert DeltaTable(str(tmp_path)).to_pyarrow_table().num_rows == 2


def test_a_newer_table_is_refused(tmp_path: Path) -> None:
    Table.open_or_create(str(tmp_path), BY)
    DeltaTable(str(tmp_path)).alter.set_table_properties({VERSION_PROPERTY: "99"}, raise_if_not_exists=False)
    with pytest.raises(Refused, match=r"a newer masklake wrote this table \(schema version 99, this one knows 1\): update masklake"):
        Table.open(str(tmp_path), BY)


@pytest.mark.parametrize("lacks", [("fingerprint",), ("image_uri", "format")])
def test_a_table_without_what_every_row_must_have_is_refused(tmp_path: Path, lacks: tuple[str, ...]) -> None:
    older(tmp_path, lacks)
    with pytest.raises(Refused, match=f"other columns than masklake's .*{lacks[0]}"):
        Table.open(str(tmp_path), BY)


def test_a_column_of_another_type_is_refused(tmp_path: Path) -> None:
    odd = table_schema(BY).set(table_schema(BY).get_field_index("width"), pa.field("width", pa.string()))
    DeltaTable.create(str(tmp_path), Schema.from_arrow(odd), partition_by=list(BY))
    with pytest.raises(Refused, match=r"other columns than masklake's \(width\)"):
        Table.open(str(tmp_path), BY)
