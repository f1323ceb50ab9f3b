"""A list, an inventory or a table names what lies beside it; what lies elsewhere is asked for, or refused before anything is read."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from masklake.errors import Refused
from masklake.images.discover import discover
from masklake.images.locations import check_locations, own_location
from masklake.images.source import Input


@pytest.mark.parametrize(
    ("uri", "own"),
    [
        ("s3://lake/lists/a.parquet", "s3://lake/"),
        ("s3://lake/lists/dt=*/a-*.csv", "s3://lake/"),
        ("file:///data/lists/a.txt", "file:///data/lists/"),
        ("file:///data/lists/dt=*/a.txt", "file:///data/lists/"),
        ("https://host:80/a/b.csv", "https://host:80/"),
    ],
)
def test_its_own_is_the_bucket_or_the_local_folder(uri: str, own: str) -> None:
    assert own_location(uri) == own


def test_prefixes_are_folders() -> None:
    check_locations(["s3://other/images/a.jpg"], "s3://lake/a.csv", ["s3://other/images"])
    check_locations(["s3://other/a.jpg"], "s3://lake/a.csv", ["s3a://other"])
    with pytest.raises(Refused, match=r"it names s3://other/images2/a.jpg.* say --allow-location s3://other/ if images there are meant"):
        check_locations(["s3://lake/b.jpg", "s3://other/images2/a.jpg"], "s3://lake/a.csv", ["s3://other/images"])


@pytest.mark.parametrize(
    "name", ["file:///etc/hostname", "/etc/hostname", "../secret.jpg", "http://169.254.169.254/latest", "s3://other/a.jpg"]
)
def test_a_list_names_nothing_elsewhere(tmp_path: Path, name: str) -> None:
    lake = tmp_path / "lake"
    lake.mkdir()
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (lake / "a.jpg").write_bytes(b"one")
    pq.write_table(pa.table({"uri": ["a.jpg", name]}), lake / "list.parquet")
    with pytest.raises(Refused, match=r"list.parquet: it names .*: say --allow-location ") as refusal:
        list(discover(Input(str(lake / "list.parquet"))))
    assert "secret\n" not in str(refusal.value)


@pytest.mark.parametrize("secret", ["https://host/a.jpg?X-Amz-Signature=hush", "s3://key:hush@lake/a.jpg"])
def test_a_list_that_holds_a_secret_is_named_and_the_secret_is_not(tmp_path: Path, secret: str) -> None:
    (tmp_path / "list.txt").write_text(f"a.jpg\n{secret}\n")
    with pytest.raises(Refused, match=r"^--input file://.*/list.txt: it names \w+://...: a URI must not carry a ") as refusal:
        list(discover(Input(str(tmp_path / "list.txt"))))
    assert "hush" not in str(refusal.value)


def test_what_is_allowed_is_listed(tmp_path: Path) -> None:
    for folder in ("lists", "images"):
        (tmp_path / folder).mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(b"one")
    (tmp_path / "lists" / "a.txt").write_text("../images/a.jpg\n")
    (page,) = discover(Input(str(tmp_path / "lists" / "a.txt"), allowed=(str(tmp_path / "images"),)))
    assert page["image_uri"].to_pylist() == [f"file://{tmp_path}/images/a.jpg"]


def test_a_delta_table_of_images_names_only_files_of_its_own(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    write_deltalake(str(lake), pa.table({"image": pa.array([b"one"], pa.binary())}))
    pq.write_table(pa.table({"image": pa.array([b"secret"], pa.binary())}), tmp_path / "secret.parquet")
    (entry,) = (lake / "_delta_log").glob("*.json")
    actions = [json.loads(line) for line in entry.read_text().splitlines()]
    for action in actions:
        if "add" in action:
            action["add"]["path"] = "../secret.parquet"
    entry.write_text("\n".join(map(json.dumps, actions)))
    assert DeltaTable(str(lake)).version() == 0
    with pytest.raises(Refused, match=r"it names file://.*/secret.parquet"):
        list(discover(Input(str(lake), "image")))
