"""Discovery on local files; the same listing on S3 is tested with the storage verbs."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from masklake import storage
from masklake.images.discover import discover
from masklake.images.keys import hive_keys
from masklake.images.listing import Tables
from masklake.images.pages import PAGE_SCHEMA, are_hidden, is_hidden, page
from masklake.images.source import Input
from masklake.images.sources.inventories import Inventory, read
from masklake.segment.plan import Filter, WorkList, make_plan, read_group

ANYWHERE = ("s3://", "file:///", "nosuch://")
"""What lists of tests may name."""


def files(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def found(uri: object) -> dict[str, dict[str, Any]]:
    """Everything discovered, by URI."""
    pages = list(discover(Input(str(uri), allowed=ANYWHERE)))
    assert all(page.schema == PAGE_SCHEMA for page in pages)
    rows = [row for page in pages for row in page.to_pylist()]
    assert len({row["image_uri"] for row in rows}) == len(rows)
    return {row["image_uri"]: row for row in rows}


def names(folder: Path, uri: object) -> list[str]:
    return sorted(name.removeprefix(f"file://{folder}/") for name in found(uri))


def test_a_prefix_has_what_lies_below_it_except_hidden_names(tmp_path: Path) -> None:
    files(tmp_path, "in/a.jpg", "in/dt=1/b.png", "in/readme.txt")
    files(tmp_path, "in/_delta_log/0.json", "in/.part", "in/dt=1/_SUCCESS", "in/dt=1/.tmp/c.jpg", "in/dt_$folder$", "other/d.jpg")
    assert names(tmp_path, tmp_path / "in") == ["in/a.jpg", "in/dt=1/b.png", "in/readme.txt"]
    assert names(tmp_path, f"file://{tmp_path}/in/") == ["in/a.jpg", "in/dt=1/b.png", "in/readme.txt"]


@pytest.mark.parametrize("folder", ["s3://lake/in/", "s3://_lake/.in/_a/", "s3://lake/i"])
def test_names_are_hidden_together_as_they_are_one_by_one(folder: str) -> None:
    seen = ["a.jpg", "a_b/c.d/e_", "ü/a..b", "a$folder$b"]
    for hidden in ("", "_a", ".a", "b/_c", "b/.c/d", "b/", "/", "//_", "b_$folder$", "_", "."):
        for names in ([*seen, hidden], [hidden, *seen], seen):
            uris = pa.chunked_array([[folder + name for name in names]])
            # a part of a column has the others' text in its memory as well
            for some in (uris, uris.slice(1), uris.slice(0, 3)):
                one_by_one = [is_hidden(uri.removeprefix(folder)) for uri in some.to_pylist()]
                assert are_hidden(some, folder).to_pylist() == one_by_one


def test_a_hidden_name_above_the_prefix_hides_nothing(tmp_path: Path) -> None:
    files(tmp_path, "_landing/.today/a.jpg", "_landing/_b.jpg")
    assert names(tmp_path, tmp_path / "_landing/.today") == ["_landing/.today/a.jpg"]
    assert names(tmp_path, f"{tmp_path}/_landing/.today/*.jpg") == ["_landing/.today/a.jpg"]


def test_a_row_tells_what_the_store_knows(tmp_path: Path) -> None:
    files(tmp_path, "a.jpg")
    (stored,) = storage.stat_many([f"{tmp_path}/a.jpg"])
    assert isinstance(stored, storage.StoredFile)
    expected = {
        "image_uri": f"file://{tmp_path}/a.jpg",
        "image_etag": stored.etag,
        "image_bytes": 5,
        "image_modified": stored.modified,
        "error_code": None,
        "error_message": None,
        "image_container": None,
        "image_start": None,
        "image_source": None,
        "image_keys": None,
    }
    for uri in (tmp_path, tmp_path / "a.jpg", f"{tmp_path}/*.jpg"):
        assert list(found(uri).values()) == [expected]


def test_a_single_file_is_taken_though_its_name_is_hidden(tmp_path: Path) -> None:
    files(tmp_path, "_a.jpg")
    assert names(tmp_path, tmp_path / "_a.jpg") == ["_a.jpg"]


def test_brackets_are_a_pattern_unless_a_file_or_folder_is_called_so(tmp_path: Path) -> None:
    files(tmp_path, "in/a.jpg", "in/b.jpg", "[in]/c.jpg")
    assert names(tmp_path, f"{tmp_path}/in/[a].jpg") == ["in/a.jpg"]
    assert names(tmp_path, f"{tmp_path}/[in]") == ["[in]/c.jpg"]


def test_an_empty_folder_has_no_images(tmp_path: Path) -> None:
    assert found(tmp_path) == {}


def test_a_long_listing_comes_in_pages(tmp_path: Path) -> None:
    for number in range(2 * storage.PAGE + 1):
        (tmp_path / f"{number}.jpg").touch()
    assert [page.num_rows for page in discover(Input(str(tmp_path)))] == [storage.PAGE, storage.PAGE, 1]


@pytest.mark.parametrize(
    ("uri", "keys"),
    [
        ("s3://lake/images/dt=2026-11-22/city=S%C3%A3o%20Paulo/a.jpg", {"dt": "2026-11-22", "city": "São Paulo"}),
        ("s3://lake/dt=1/dt=2/a.jpg", {"dt": "2"}),
        ("s3://lake/a=b=c/x", {"a": "b=c"}),
        ("s3://lake/images/k=v.jpg", {}),  # a file's own name is not a folder
        ("s3://lake/=x/y/dt=__HIVE_DEFAULT_PARTITION__/empty=/a.jpg", {"empty": ""}),
        ("file:///data/day=1/a b.jpg", {"day": "1"}),
    ],
)
def test_hive_keys_are_the_folders_with_an_equals_sign(uri: str, keys: dict[str, str]) -> None:
    assert hive_keys(uri) == keys


# Tables among the images


def planned_names(folder: Path, asked: Input) -> list[str]:
    """What is work of an input, by the plan."""
    shutil.rmtree(folder / "plan", ignore_errors=True)
    made = make_plan(discover(asked), None, {"panoptic": "p"}, Filter(tables=asked.tables.found), WorkList(str(folder / "plan")))
    if made.groups == 0:
        return []
    return sorted(uri.removeprefix(f"file://{folder}/") for uri in read_group(str(folder / "plan"), 0)["image_uri"].to_pylist())


@pytest.mark.parametrize("pattern", ["in", "in/", "in/*/", "in/**/*.*", "in/**"])
def test_what_lies_in_a_table_is_no_image(tmp_path: Path, pattern: str) -> None:
    files(tmp_path, "in/a/a.jpg", "in/masks-2/b.jpg", "in/deep/dt=1/c.jpg")
    files(tmp_path, "in/masks/0.parquet", "in/masks/_delta_log/0.json", "in/masks/dt=1/zebra.parquet", "in/masks/Note.jpg")
    files(tmp_path, "in/deep/their/_delta_log/0.checkpoint.parquet", "in/deep/their/x.parquet")
    asked = Input(f"{tmp_path}/{pattern}")
    assert planned_names(tmp_path, asked) == ["in/a/a.jpg", "in/deep/dt=1/c.jpg", "in/masks-2/b.jpg"]
    assert asked.tables.found == {f"file://{tmp_path}/in/masks/", f"file://{tmp_path}/in/deep/their/"}
    assert asked.tables.left_out >= 3, "the data files before they were counted as anything"


def test_how_much_lies_in_tables_is_counted_whatever_the_order_of_the_listing() -> None:
    for order in (1, -1):
        names = ["s3://lake/masks/A.parquet", "s3://lake/masks/z.parquet", "s3://lake/masks-2/a.jpg", "s3://lake/b.jpg"][::order]
        plan = make_plan([page(names)], None, {"panoptic": "p"}, Filter(tables={"s3://lake/masks/"}))
        assert (plan.images, plan.in_tables) == (2, 2)


def test_a_pattern_that_names_what_lies_in_a_tables_folder_itself_is_taken_at_its_word(tmp_path: Path) -> None:
    files(tmp_path, "in/_delta_log/0.json", "in/a.jpg")
    assert planned_names(tmp_path, Input(f"{tmp_path}/in/*.jpg")) == ["in/a.jpg"]


def test_of_tables_of_images_only_those_outside_of_delta_tables_are_opened(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"image": [b"x"]}), tmp_path / "in" / "z.parquet")
    files(tmp_path, "in/masks/0.parquet", "in/masks/_delta_log/0.json")
    assert planned_names(tmp_path, Input(f"{tmp_path}/in", "image")) == ["in/z.parquet#column=image&row=0"]


def test_of_an_inventory_as_well(tmp_path: Path) -> None:
    lines = "".join(f'"lake","{key}","{key}-etag","1"\n' for key in ("masks/A.parquet", "masks/_delta_log/0.json", "a.jpg"))
    (tmp_path / "data.csv.gz").write_bytes(gzip.compress(lines.encode()))
    tables = Tables()
    inventory = Inventory("s3://lake/inv/manifest.json", "lake", "CSV", ("Bucket", "Key", "ETag", "Size"), (f"{tmp_path}/data.csv.gz",))
    listed = [row for part in read(inventory, tables) for row in part["image_uri"].to_pylist()]
    assert listed == ["s3://lake/masks/A.parquet", "s3://lake/a.jpg"]
    assert tables.found == {"s3://lake/masks/"}


@pytest.mark.parametrize("column", [None, "image"])
def test_a_name_that_is_not_utf_8_is_an_error_of_that_file_alone(tmp_path: Path, column: str | None) -> None:
    name = "caf\udce9.parquet" if column else "caf\udce9.jpg"
    (tmp_path / "in" / "dt=\udcff").mkdir(parents=True)
    for path in (f"in/{name}", f"in/dt=\udcff/{name}"):
        (tmp_path / path).write_bytes(b"x")
    pq.write_table(pa.table({"image": [b"x"]}), tmp_path / "in" / "good.parquet")
    rows = {row["image_uri"].rpartition("/in/")[2]: row for part in discover(Input(f"{tmp_path}/in", column)) for row in part.to_pylist()}
    good, odd = "good.parquet#column=image&row=0" if column else "good.parquet", name.replace("\udce9", "\\xe9")
    assert rows.keys() == {good, odd, f"dt=\\xff/{odd}"}
    assert rows[good]["error_code"] is None
    assert (rows[odd]["error_code"], rows[odd]["error_message"][:22]) == ("unsupported", "its name is not UTF-8,")
