"""What planning reads of a table, and what it leaves alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, TableFeatures

from masklake.table.append import Table
from masklake.table.keys import KEYS, Wanted, read_keys
from masklake.table.write import write_rows
from tests.answers import FINGERPRINTS, rows
from tests.tables import LAKE, begun, files

DAYS = ("2026-11-22", "2026-11-23", "2026-12-01")


def with_days(folder: Path) -> Table:
    table = begun(folder, "run-1")
    for day in DAYS:
        table.commit(files(table, "run-1", ["a", "b"], day))
    return table


def read(table: Table, wanted: Wanted) -> list[str]:
    """The end of each URI that both ways of reading give."""
    left = table.key_files(wanted)
    assert left is not None
    found = pa.Table.from_batches(read_keys(table.uri, left, wanted), schema=KEYS).sort_by("image_uri")
    assert found.to_pylist() == table.done_keys(wanted).read_all().sort_by("image_uri").to_pylist()
    return [uri.removeprefix(LAKE) for uri in found["image_uri"].to_pylist()]


def test_a_days_rows_are_read_although_all_other_files_are_garbage(tmp_path: Path) -> None:
    table, wanted = with_days(tmp_path), Wanted(FINGERPRINTS, f"{LAKE}dt=2026-11-23/")
    for day in ("2026-11-22", "2026-12-01"):
        for path in tmp_path.glob(f"task=panoptic/dt={day}/*.parquet"):
            path.write_bytes(b"unreadable" * 100)
    assert read(table, wanted) == ["dt=2026-11-23/a.jpg", "dt=2026-11-23/b.jpg"]
    everything = Wanted(FINGERPRINTS, LAKE)
    left = table.key_files(everything)
    assert left is not None
    with pytest.raises(pa.ArrowException):
        list(read_keys(table.uri, left, everything))


@pytest.mark.parametrize("by", [("dt",), ("fingerprint", "dt")])
def test_files_of_other_fingerprints_are_not_opened(tmp_path: Path, by: tuple[str, ...]) -> None:
    table = Table.open_or_create(str(tmp_path), by)
    table.begin_run(LAKE, "run-1", beat=False)
    uri = f"{LAKE}dt=2026-11-22/a.jpg"
    answered = rows([uri], "run-1", by, dt=["2026-11-22"])
    place = answered.schema.get_field_index("fingerprint")
    another = answered.set_column(place, "fingerprint", pa.array(["another"]))
    for part in (answered, another):
        table.commit(write_rows(part.cast(answered.schema), table.uri, by, "run-1"))
    files_left = table.key_files(Wanted({"panoptic": "another"}, LAKE))
    assert files_left is not None
    (left,) = files_left
    for path in tmp_path.rglob("part-*.parquet"):
        if path != tmp_path / left.path:
            path.write_bytes(b"unreadable" * 100)
    assert read(table, Wanted({"panoptic": "another"}, LAKE)) == ["dt=2026-11-22/a.jpg"]


def test_the_log_says_how_many_rows_there_are_to_read(tmp_path: Path) -> None:
    table = with_days(tmp_path)

    def count(prefix: str | None, fingerprint: str = FINGERPRINTS["panoptic"]) -> int:
        return sum(file.rows for file in table.key_files(Wanted({"panoptic": fingerprint}, prefix)) or ())

    assert (count(LAKE), count(None), count(f"{LAKE}dt=2026-11-2"), count(f"{LAKE}dt=2026-11-22/")) == (6, 6, 4, 2)
    assert (count(f"{LAKE}dt=2026-11-22/b.jpg"), count(LAKE, "another"), count("s3://other/")) == (2, 0, 0)
    assert Table.open_or_create(str(tmp_path / "empty"), []).key_files(Wanted(FINGERPRINTS, None)) == []


def test_a_file_of_which_the_log_says_nothing_is_read(tmp_path: Path) -> None:
    table = begun(tmp_path, "run-1")
    table.commit([replace(record, stats=json.dumps({"numRecords": 2})) for record in files(table, "run-1", ["a", "b"], "ü /1%")])
    assert read(table, Wanted(FINGERPRINTS, f"{LAKE}dt=ü /1%/")) == ["dt=ü /1%/a.jpg", "dt=ü /1%/b.jpg"]
    assert read(table, Wanted(FINGERPRINTS, f"{LAKE}dt=2026-11-22/")) == []


def test_a_table_with_features_of_another_program_is_left_to_deltas_own_reader(tmp_path: Path) -> None:
    table = with_days(tmp_path)
    DeltaTable(str(tmp_path)).alter.add_feature(TableFeatures.DeletionVectors, allow_protocol_versions_increase=True)
    wanted = Wanted(FINGERPRINTS, LAKE)
    assert table.key_files(wanted) is None
    assert table.done_keys(wanted).read_all().num_rows == 6
