"""Where rows lie: in whatever way a table is partitioned, each row is found where it is said to be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from masklake.errors import MasklakeError
from masklake.table.keys import Wanted
from masklake.table.places import PlacedRows, ok_places
from tests.planning import FINGERPRINTS, LAKE, PARTITIONINGS, random_case, write_table


@pytest.mark.parametrize("by", PARTITIONINGS, ids="+".join)
def test_every_row_that_is_wanted_lies_where_it_is_said(by: tuple[str, ...], tmp_path: Path) -> None:
    case = replace(random_case(23), partition_by=by)
    table, prefix = write_table(case, tmp_path), f"{LAKE}dt=2026-11-22/"
    wanted = Wanted({"a": FINGERPRINTS["panoptic"], "b": "older"}, prefix)
    key_files = table.key_files(wanted)
    assert key_files
    rows, found = PlacedRows(("image_uri", "image_etag", "model"), files=1, groups=1), []
    for batch in ok_places(table.uri, key_files, wanted):
        for place in batch.to_pylist():
            row = rows.row(f"{table.uri}/{key_files[place['file']].path}", place["place"])
            assert row == {"image_uri": place["image_uri"], "image_etag": place["image_etag"], "model": "m"}
            found.append((place["image_uri"], place["image_etag"], place["fingerprint"]))
    expected = [
        (row["image_uri"], row["image_etag"], row["fingerprint"])
        for part in case.held
        for row in part
        if row["status"] == "ok" and row["fingerprint"] in wanted.fingerprints.values() and row["image_uri"].startswith(prefix)
    ]
    assert sorted(found, key=str) == sorted(expected, key=str)
    assert expected


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    table, wanted = write_table(random_case(23), tmp_path), Wanted({"a": FINGERPRINTS["panoptic"]})
    key_files = table.key_files(wanted)
    assert key_files
    Path(tmp_path, key_files[0].path).unlink()
    with pytest.raises(MasklakeError, match=r"\.parquet: this file of the table is gone"):
        list(ok_places(table.uri, key_files, wanted))
