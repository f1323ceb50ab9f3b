"""Columns of manifests and tables of images that are carried into the table: their types, their values, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from masklake.errors import Refused
from masklake.images.discover import carried_columns, discover
from masklake.images.keys import kind_in_table
from masklake.images.source import Input
from masklake.segment.plan import WorkList, make_plan, read_group
from tests.unit.images.sources.test_shards import write_tar
from tests.unit.images.test_discover import ANYWHERE

IMAGE = "image"
TIME = pa.timestamp("us", tz="UTC")


def carried(folder: Path, uri: object, names: Sequence[str], column: str | None = None) -> pa.Table:
    """What the work list of an input carries: a column of image names, then one per name."""
    columns = carried_columns(Input(str(uri), column, allowed=ANYWHERE), names)
    pages = discover(Input(str(uri), column, allowed=ANYWHERE), carried=columns)
    plan = make_plan(pages, None, {"panoptic": "p"}, work_list=WorkList(str(folder / "plan"), 100, carried=columns))
    assert plan.groups == 1
    group = read_group(str(folder / "plan"), 0)
    flat = pa.table(group["carried"].combine_chunks().flatten(), schema=columns.schema)
    return flat.add_column(0, "name", [[uri.removeprefix(f"file://{folder}/") for uri in group["image_uri"].to_pylist()]])


def manifest(folder: Path, **columns: Any) -> Path:
    path = folder / "images.parquet"
    uris = [f"{name}.jpg" for name in "abcdefgh"[: len(next(iter(columns.values())))]]
    pq.write_table(pa.table({"uri": uris, "etag": ["e"] * len(uris), **columns}), path)
    return path


NOON = datetime(2026, 11, 22, 12, 0, 0, 123456)  # noqa: DTZ001 - without a zone it means UTC


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "values", "in_table", "expected"),
    [
        (pa.string(), ["a", None, "ü"], pa.string(), ["a", None, "ü"]),
        (pa.dictionary(pa.int8(), pa.large_string()), ["a", None, "a"], pa.string(), ["a", None, "a"]),
        (pa.null(), [None, None], pa.string(), [None, None]),
        (pa.int16(), [-7, None], pa.int64(), [-7, None]),
        (pa.uint64(), [2**63 - 1], pa.int64(), [2**63 - 1]),
        (pa.float32(), [0.5, None, math.inf], pa.float64(), [0.5, None, math.inf]),
        (pa.float64(), [0.1, 1e-320, -0.0], pa.float64(), [0.1, 1e-320, -0.0]),
        (pa.bool_(), [True, None, False], pa.bool_(), [True, None, False]),
        (pa.date64(), [date(1969, 12, 31), None], pa.date32(), [date(1969, 12, 31), None]),
        (pa.timestamp("ns"), [NOON, None], TIME, [NOON.replace(tzinfo=UTC), None]),
        (pa.timestamp("s", "Europe/Berlin"), [datetime(1950, 1, 1, tzinfo=UTC)], TIME, [datetime(1950, 1, 1, tzinfo=UTC)]),
    ],
)
def test_a_manifests_values_keep_their_kind(
    tmp_path: Path, kind: pa.DataType, values: list[Any], in_table: Any, expected: list[Any]
) -> None:
    found = carried(tmp_path, manifest(tmp_path, more=pa.array(values, kind), unused=values), ["more"])
    assert found.schema.field("more").type == in_table
    assert dict(zip(found["name"].to_pylist(), found["more"].to_pylist(), strict=True)) == {
        f"{name}.jpg": value for name, value in zip("abc", expected, strict=False)
    }


def test_not_a_number_is_not_null(tmp_path: Path) -> None:
    found = carried(tmp_path, manifest(tmp_path, more=pa.array([math.nan, None])), ["more"])["more"]
    assert found.null_count == 1
    assert math.isnan(found[0].as_py())


def test_what_the_manifest_has_not_comes_from_the_path_and_every_member_of_a_tar_gets_its_values(tmp_path: Path) -> None:
    write_tar(tmp_path / "site=1" / "b.tar", {"1.jpg": b"1", "2.jpg": b"2"})
    uris, split = ["site=1/a.jpg", "site=1/b.tar", "c.jpg"], ["train", "test", None]
    pq.write_table(pa.table({"uri": uris, "split": split, "dt": [1, 2, 3]}), tmp_path / "images.parquet")
    found = carried(tmp_path, tmp_path / "images.parquet", ["site", "split"])
    assert {row["name"]: (row["site"], row["split"]) for row in found.to_pylist()} == {
        "c.jpg": (None, None),
        "site=1/a.jpg": ("1", "train"),
        "site=1/b.tar/1.jpg": ("1", "test"),
        "site=1/b.tar/2.jpg": ("1", "test"),
    }


def test_a_column_may_be_a_key_and_carried_and_a_name_of_the_work_list(tmp_path: Path) -> None:
    path = manifest(tmp_path, tasks=[1, 2], size=[10, 20])
    columns = carried_columns(Input(str(path), allowed=ANYWHERE), ["tasks", "size"])
    pages = discover(Input(str(path), allowed=ANYWHERE), keys=("size",), carried=columns)
    make_plan(pages, None, {"panoptic": "p"}, work_list=WorkList(str(tmp_path / "plan"), 100, ("size",), columns))
    group = read_group(str(tmp_path / "plan"), 0)
    assert group["size"].to_pylist() == ["10", "20"]
    assert group["image_bytes"].to_pylist() == [10, 20]
    assert group["carried"].to_pylist() == [{"tasks": 1, "size": 10}, {"tasks": 2, "size": 20}]
    assert group["tasks"].to_pylist() == [["panoptic"]] * 2


def test_tables_of_images_carry_columns_and_keys(tmp_path: Path) -> None:
    for number, columns in enumerate(({"split": ["a", "b"], "taken": [NOON, None]}, {"split": pa.nulls(1)}), 1):
        path = tmp_path / "in" / f"site={number}" / "part.parquet"
        path.parent.mkdir(parents=True)
        rows = len(columns["split"])
        pq.write_table(pa.table({"image": pa.array([b"x"] * rows), "deep": [{"a": 1}] * rows, **columns}), path)
    found = carried(tmp_path, tmp_path / "in", ["split", "taken", "site"], IMAGE)
    assert found.drop_columns(["name"]).to_pylist() == [
        {"split": "a", "taken": NOON.replace(tzinfo=UTC), "site": "1"},
        {"split": "b", "taken": None, "site": "1"},
        {"split": None, "taken": None, "site": "2"},
    ]
    with pytest.raises(Refused, match=r"--carry deep: it is struct<a: int64> in .*/in: text, numbers, booleans, dates and times"):
        carried_columns(Input(str(tmp_path / "in"), IMAGE), ["deep"])


def test_of_a_delta_table_the_type_is_the_tables_and_partitions_are_keys(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "t", pa.table({"image": [b"1"], "day": [7]}), partition_by=["day"])
    more = pa.table({"image": [b"2"], "day": [8], "count": pa.array([2**40], pa.int64())})
    write_deltalake(tmp_path / "t", more, mode="append", schema_mode="merge")
    found = carried(tmp_path, tmp_path / "t", ["count", "day"], IMAGE)
    assert found.drop_columns(["name"]).to_pylist() == [{"count": None, "day": "7"}, {"count": 2**40, "day": "8"}]


def test_columns_of_a_table_of_images_are_keys_as_those_of_a_manifest_are(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"1", b"2"], "split": ["train", "test"]}), tmp_path / "a.parquet")
    pages = discover(Input(str(tmp_path / "a.parquet"), IMAGE), keys=("split", "image"))
    make_plan(pages, None, {"panoptic": "p"}, work_list=WorkList(str(tmp_path / "plan"), 100, ("split",)))
    assert read_group(str(tmp_path / "plan"), 0)["split"].to_pylist() == ["train", "test"]


def test_files_that_do_not_agree_on_a_type_are_refused(tmp_path: Path) -> None:
    for name, values in (("a", pa.array([1])), ("b", pa.array(["1"]))):
        pq.write_table(pa.table({"image": [b"x"], "split": values}), tmp_path / f"{name}.parquet")
    with pytest.raises(Refused, match=r"--carry split: it is (string|int64) in .*, and (string|int64) in other files: make them alike"):
        carried(tmp_path, tmp_path, ["split"], IMAGE)


def test_a_name_that_is_nowhere_is_refused_once_the_input_was_listed(tmp_path: Path) -> None:
    path = manifest(tmp_path, split=["a", "b"])
    with pytest.raises(Refused, match=r"--carry licence: .*images.parquet has no such column, and no image has it in its path"):
        carried(tmp_path, path, ["split", "licence"])
    (tmp_path / "dt=1").mkdir()
    (tmp_path / "dt=1" / "a.jpg").write_bytes(b"x")
    assert carried(tmp_path, tmp_path, ["dt"])["dt"].to_pylist() == ["1", None]  # the manifest is an object like any other here
    with pytest.raises(Refused, match="--carry day"):
        list(discover(Input(str(tmp_path)), carried=carried_columns(Input(str(tmp_path)), ["day"])))
    (tmp_path / "empty").mkdir()
    assert list(discover(Input(str(tmp_path / "empty")), carried=carried_columns(Input(str(tmp_path / "empty")), ["day"]))) == []


def test_a_number_that_no_table_holds_is_refused(tmp_path: Path) -> None:
    path = manifest(tmp_path, more=pa.array([2**63], pa.uint64()))
    with pytest.raises(Refused, match="--carry more: a value is out of range"):
        carried(tmp_path, path, ["more"])


@pytest.mark.parametrize("kind", [pa.binary(), pa.decimal128(9, 2), pa.list_(pa.string()), pa.time64("us"), pa.duration("s")])
def test_what_has_no_type_there_is_not_carried(kind: pa.DataType) -> None:
    assert kind_in_table(kind) is None
