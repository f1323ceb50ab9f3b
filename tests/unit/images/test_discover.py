"""Discovery on local files; the same listing on S3 is tested with the storage verbs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from masklake import storage
from masklake.images.discover import discover
from masklake.images.keys import hive_keys
from masklake.images.pages import PAGE_SCHEMA
from masklake.images.source import Input


def files(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def found(uri: object) -> dict[str, dict[str, Any]]:
    """Everything discovered, by URI."""
    pages = list(discover(Input(str(uri))))
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
        ("s3://lake/images/k=v.jpg", {}),  # a file's own name is no folder
        ("s3://lake/=x/y/dt=__HIVE_DEFAULT_PARTITION__/empty=/a.jpg", {"empty": ""}),
        ("file:///data/day=1/a b.jpg", {"day": "1"}),
    ],
)
def test_hive_keys_are_the_folders_with_an_equals_sign(uri: str, keys: dict[str, str]) -> None:
    assert hive_keys(uri) == keys
