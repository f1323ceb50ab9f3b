"""Where a table may lie: apart from the images, from other tables, and from whatever else is there."""

from __future__ import annotations

from pathlib import Path

import pytest
from deltalake import DeltaTable

from masklake import storage
from masklake.conversion.run import convert
from masklake.demo import MODEL
from masklake.errors import ErrorCode, ImageFailure, Refused
from masklake.storage import StorageError
from masklake.table.append import Table
from masklake.table.place import check_outside_tables, check_table_place
from tests.tables import BY


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images in a folder, a link to it, and a table of somebody's; the working folder is there."""
    (tmp_path / "images" / "dt=1").mkdir(parents=True)
    (tmp_path / "images" / "dt=1" / "a.jpg").touch()
    (tmp_path / "link").symlink_to(tmp_path / "images")
    Table.open_or_create(str(tmp_path / "other"), BY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("images", "output", "why"),
    [
        ("images", "images", "the same folder"),
        ("images/", "{lake}/images", "the same folder"),
        ("file://{lake}/images", "other/../images//", "the same folder"),
        ("link/", "images", "the same folder"),
        ("images/*.jpg", "images", "the same folder"),
        ("images", "images/masks", "the table lies among the images"),
        ("images/", "file://{lake}/images/dt=1/masks/", "the table lies among the images"),
        ("link", "images/masks", "the table lies among the images"),
        ("images", "link/masks", "the table lies among the images"),
        ("images/**/*.jpg", "images/masks", "the table lies among the images"),
        ("images/*/*.jpg", "images/masks", "the table lies among the images"),
        ("images/*/", "images/masks", "the table lies among the images"),
        ("images/dt=1", "images", "the images lie in the table's folder"),
        ("images/dt=*/*.jpg", "./", "the images lie in the table's folder"),
        ("images/dt=1/a.jpg", "images/dt=1", "the images lie in the table's folder"),
        ("images", "other/masks", "lies inside the table"),
        ("images", "other/task=panoptic/deep/masks", "lies inside the table"),
        ("images/dt=1", "notes", "the folder holds readme.txt"),
    ],
)
def test_what_would_mix_a_table_with_something_else_is_refused(lake: Path, images: str, output: str, why: str) -> None:
    (lake / "notes").mkdir()
    (lake / "notes" / "readme.txt").touch()
    with pytest.raises(Refused, match=why):
        check_table_place(output.format(lake=lake), images.format(lake=lake))


@pytest.mark.parametrize(
    ("images", "output"),
    [
        ("images", "masks"),
        ("images", "images-masks"),
        ("images/", "empty"),
        ("images/dt=*/*.jpg", "images/masks"),
        ("images/*.jpg", "images/masks"),
        ("images", "other"),
        ("images", "left"),
        ("/", "masks"),
    ],
)
def test_a_folder_of_its_own_will_do(lake: Path, images: str, output: str) -> None:
    (lake / "empty").mkdir()
    (lake / "empty" / ".DS_Store").touch()
    (lake / "left" / "_masklake" / "runs").mkdir(parents=True)
    check_table_place(output, images)


def test_a_table_that_others_put_something_into_goes_on(lake: Path) -> None:
    (lake / "other" / "notes.txt").touch()
    Table.open_or_create(str(lake / "other" / "deep"), BY)
    check_table_place("other", "images")
    assert DeltaTable("other").version() == 0


@pytest.mark.parametrize(
    ("images", "output", "why"),
    [
        ("s3://lake/images", "s3a://lake/images/", "the same folder"),
        ("s3://lake/images", "s3://lake/images/masks", "the table lies among the images"),
        ("s3://lake/images/dt=1/", "s3://lake", "the images lie in the table's folder"),
        ("s3://lake/images/dt=1/", "s3://lake/images", "the images lie in the table's folder"),
        ("s3://lake/images", "s3://lake/images/../masks", r"'\.\.' and '//' are names"),
        ("s3://lake/images", "s3://lake//masks", "are names"),
        ("s3://lake/masks/./images", "s3://lake/masks", "are names"),
        ("s3://lake/images", "s3://lake/their/masks", "lies inside the table s3://lake/their"),
        ("s3://lake/images", "s3://root/masks", "lies inside the table s3://root"),
        ("s3://lake/images", "s3://lake/held", "the folder holds cat.jpg"),
        ("s3://lake/images", "s3://lake", "the images lie in the table's folder"),
    ],
)
def test_on_a_store_as_well(monkeypatch: pytest.MonkeyPatch, images: str, output: str, why: str) -> None:
    names = {"s3://lake/their/_delta_log/": ["0.json"], "s3://root/_delta_log/": ["0.json"], "s3://lake/held/": ["_masklake/", "cat.jpg"]}
    monkeypatch.setattr(storage, "list_names", lambda uri: names.get(uri, []))
    with pytest.raises(Refused, match=why):
        check_table_place(output, images)
    for bucket in ("s3://lake", "s3://lake/"):
        check_table_place("s3://lake/masks/", bucket)  # it can lie nowhere else


def test_folders_that_this_user_may_not_list_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[str]()

    def denied(uri: str) -> list[str]:
        asked.append(uri)
        raise StorageError(uri, ImageFailure(ErrorCode.ACCESS_DENIED, "no"))

    monkeypatch.setattr(storage, "list_names", denied)
    check_outside_tables("s3://lake/a/b")
    assert asked == ["s3://lake/a/b/_delta_log/", "s3://lake/a/_delta_log/", "s3://lake/_delta_log/"]


@pytest.mark.parametrize("output", ["other", "other/", "{lake}/other/../other", "link-to-other", "other/deep"])
def test_nothing_else_is_written_into_a_tables_folder(lake: Path, output: str) -> None:
    """An export, an evaluation or a checkpoint: other programs' vacuums would delete it."""
    (lake / "link-to-other").symlink_to(lake / "other")
    with pytest.raises(Refused, match=r"--output .*: it (is the folder of a table|lies inside the table)"):
        check_outside_tables(output.format(lake=lake))
    with pytest.raises(Refused, match=r"it (is the folder of a table|lies inside the table)"):
        convert(str(MODEL), output.format(lake=lake), print)
    check_outside_tables("another")
