"""`masklake compact` and `masklake erase` as a user starts them: what they print, and their exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from masklake import reading, storage
from masklake.commands import cli
from masklake.errors import ErrorCode, ImageFailure
from masklake.table.write import write_rows
from tests.answers import rows
from tests.tables import BY, begun


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Images a to e in a folder, each with a row of its own file in a table beside it."""
    (tmp_path / "images").mkdir()
    table = begun(tmp_path / "masks", "run-1", f"file://{tmp_path}/images/")
    for name in "abcde":
        (tmp_path / "images" / f"{name}.jpg").write_bytes(b"an image")
        table.commit(write_rows(rows([f"file://{tmp_path}/images/{name}.jpg"], "run-1", BY, dt=["1"]), table.uri, BY, "run-1"))
    table.finish_run()
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, dict[str, Any], str]:
    """Exit code, summary and stderr of one job."""
    code = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, json.loads(captured.out.strip().splitlines()[-1]), captured.err


def images_in(table: Path) -> str:
    found = reading.open_table(str(table)).rows(columns=["image_uri"])["image_uri"].to_pylist()
    return "".join(sorted(uri[-5] for uri in found))


def data_files(table: Path) -> int:
    return len(list(table.rglob("part-*.parquet")))


def test_compact_merges_and_vacuums(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, summary, _ = run(capsys, "compact", "--table", lake / "masks", "--dry-run")
    assert (code, summary["outcome"], summary["merged_files"], summary["new_files"]) == (0, "planned", 5, 1)
    code, summary, errors = run(capsys, "compact", "--table", lake / "masks")
    assert (code, summary["outcome"], summary["files_after"], summary["vacuumed"]["files"]) == (0, "compacted", 1, 0)
    assert "5 files" in errors
    _, summary, errors = run(capsys, "compact", "--table", lake / "masks", "--vacuum-hours", "0", "--dry-run")
    assert errors.count(f"would delete file://{lake}/masks/task=panoptic/dt=1/part-run-1-") == summary["vacuumed"]["files"] == 5
    code, summary, errors = run(capsys, "compact", "--table", lake / "masks", "--vacuum-hours", "0")
    assert (code, summary["outcome"], summary["vacuumed"]["files"]) == (0, "nothing to do", 5)
    assert "readers" in errors
    assert (images_in(lake / "masks"), data_files(lake / "masks")) == ("abcde", 1)


@pytest.mark.slow
def test_erase_takes_uris_from_the_command_line_and_from_files(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (lake / "some.txt").write_text(f"{lake}/images/b.jpg\n\nfile://{lake}/images/z.jpg\n")
    pq.write_table(pa.table({"uri": [f"file://{lake}/images/c.jpg"]}), lake / "some.parquet")
    (lake / "images" / "a.jpg").unlink()
    before = images_in(lake / "masks")
    arguments = ["erase", "--table", f"{lake}/masks", f"{lake}/images/a.jpg", "--uris", f"{lake}/some.txt"]
    code, summary, errors = run(capsys, *arguments, "--dry-run")
    assert (code, summary["outcome"], summary["asked"], summary["images"], summary["rows"]) == (0, "planned", 3, 2, 2)
    assert images_in(lake / "masks") == before
    assert errors.count("would delete file://") == 2
    assert f"the table has no row of 1 of the images: file://{lake}/images/z.jpg" in errors
    code, summary, errors = run(capsys, *arguments, "--must-exist")
    assert (code, summary["outcome"]) == (2, "refused")
    assert f"nothing was erased, for the table has no row of 1 of the images: file://{lake}/images/z.jpg" in errors
    assert list((lake / "masks" / "_masklake" / "live").glob("*")) == []  # the next vacuum would wait for it
    assert images_in(lake / "masks") == before
    code, summary, errors = run(capsys, *arguments)
    assert (code, summary["outcome"], summary["images"], summary["vacuumed"]["files"]) == (0, "erased", 2, 2)
    assert summary["unknown"] == [f"file://{lake}/images/z.jpg"]
    assert "1 of these images is in the lake" in errors
    code, summary, errors = run(capsys, "erase", "--table", lake / "masks", "--uris", lake / "some.parquet", "--vacuum-hours", "24")
    assert (code, summary["rows"], summary["vacuumed"]["files"]) == (0, 1, 0)
    assert "old versions of the table still hold these rows" in errors
    assert (images_in(lake / "masks"), data_files(lake / "masks")) == ("de", 3)
    (lake / "some.csv").write_text(f"ticket,url\n7,file://{lake}/images/d.jpg\n8,\n")
    code, summary, _ = run(capsys, "erase", "--table", lake / "masks", "--uris", lake / "some.csv", "--dry-run")
    assert (code, summary["asked"], summary["rows"]) == (0, 1, 1)
    (lake / "odd.csv").write_text("ticket,which\n7,x\n")
    code, summary, errors = run(capsys, "erase", "--table", lake / "masks", "--uris", lake / "odd.csv")
    assert (code, summary["outcome"]) == (2, "refused")
    assert f"--uris file://{lake}/odd.csv: a list of images has a column of text that names them" in errors


def test_images_that_the_lake_has_no_more_are_shown_and_erased_only_when_asked(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "bd":
        (lake / "images" / f"{name}.jpg").unlink()
    (lake / "images" / "c.jpg").rename(lake / "images" / "_hidden.jpg")  # no longer listed, and really not there
    arguments = ["erase", "--table", f"{lake}/masks", "--input", f"{lake}/images"]
    code, summary, errors = run(capsys, *arguments)
    assert (code, summary["outcome"], summary["asked"], summary["rows"]) == (0, "planned", 3, 3)
    assert f"missing in the lake: file://{lake}/images/b.jpg" in errors
    assert "say --delete-missing" in errors
    assert images_in(lake / "masks") == "abcde"
    code, summary, _ = run(capsys, *arguments, "--delete-missing")
    assert (code, summary["outcome"], summary["rows"]) == (0, "erased", 3)
    assert images_in(lake / "masks") == "ae"
    assert run(capsys, *arguments, "--delete-missing")[1]["outcome"] == "nothing to do"


def test_what_lies_inside_an_object_is_not_missing(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = begun(lake / "masks", "run-2", f"file://{lake}/images/")
    inside = [f"file://{lake}/images/{name}" for name in ("dt=1/x.tar/f.jpg", "dt=1/x.tar/deep/g.jpg", "y.parquet#column=image&row=1")]
    made = rows([*inside, f"file://{lake}/images/dt=1/h.jpg"], "run-2", BY, dt=["1"] * 4)
    table.commit(write_rows(made, table.uri, BY, "run-2"))
    table.finish_run()
    (lake / "images" / "dt=1").mkdir()
    for name in ("dt=1/x.tar", "y.parquet"):
        (lake / "images" / name).write_bytes(b"images")
    _, summary, errors = run(capsys, "erase", "--table", f"{lake}/masks", "--input", f"{lake}/images")
    assert summary["asked"] == 1
    assert "dt=1/h.jpg" in errors


def test_only_rows_below_the_folder_can_be_missing_in_it(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (lake / "images" / "part").mkdir()
    (lake / "images" / "part" / "x.jpg").write_bytes(b"an image")
    code, summary, _ = run(capsys, "erase", "--table", lake / "masks", "--input", lake / "images" / "part", "--delete-missing")
    assert (code, summary["rows"]) == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compact", "--table", "absent"], "--table absent: there is no table"),
        (["erase", "--table", "masks", "a.jpg"], "a.jpg: name images as the table's image_uri does"),
        (["erase", "--table", "masks", "images/a.jpg"], "/images/a.jpg if you mean that"),
        (["erase", "--table", "masks", "--uris", "names.txt"], "a.jpg: name images as the table's image_uri does"),
        (
            ["erase", "--table", "masks", "--must-exist", "s3://lake/images/a.jpg"],
            "the table has no row of 1 of the images: s3://lake/images/a.jpg",
        ),
        (["erase", "--table", "masks", "--uris", "absent.txt"], "--uris absent.txt: cannot be read"),
        (["erase", "--table", "masks", "--input", "absent", "--delete-missing"], "--input absent"),
        (["erase", "--table", "masks", "--input", "empty", "--delete-missing"], "it holds no image"),
        (["erase", "--table", "masks", "--input", "images/*.jpg", "--delete-missing"], "name a folder"),
        (["erase", "--table", "masks", "--input", "images/a.jpg", "--delete-missing"], "name a folder"),
    ],
)
def test_what_cannot_be_right_is_refused_and_nothing_is_erased(
    lake: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(lake)
    (lake / "empty").mkdir()
    (lake / "names.txt").write_text("a.jpg\n")
    code, summary, errors = run(capsys, *arguments)
    assert (code, summary["outcome"]) == (2, "refused")
    assert message in errors
    assert images_in(lake / "masks") == "abcde"


@pytest.mark.parametrize(
    "arguments",
    [
        ["compact", "--table", "t", "--target-mb", "0"],
        ["compact", "--table", "t", "--vacuum-hours", "9999"],
        ["erase", "--table", "t"],
        ["erase", "--table", "t", "s3://a", "--input", "images"],
        ["erase", "--table", "t", "s3://a", "--delete-missing"],
        ["erase", "--table", "t", "--input", "images", "--must-exist"],
    ],
)
def test_a_wrong_setting_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, summary, _ = run(capsys, *arguments)
    assert (code, summary["outcome"], summary["exit_code"]) == (2, "refused", 2)


def test_a_listing_that_fails_erases_nothing(lake: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (lake / "images" / "b.jpg").unlink()
    real = storage.list_pages

    def failing(uri: str) -> Any:
        if uri.endswith("/images/"):
            yield storage.FilePage.of(next(real(uri)).files()[:1])  # a page arrives, and then no more
            raise storage.StorageError(uri, ImageFailure(ErrorCode.UNREACHABLE, "connection reset"))
        yield from real(uri)

    monkeypatch.setattr("masklake.storage.list_pages", failing)
    code, summary, _ = run(capsys, "erase", "--table", lake / "masks", "--input", lake / "images", "--delete-missing")
    assert (code, summary["outcome"]) == (1, "failed")
    monkeypatch.undo()
    assert images_in(lake / "masks") == "abcde"
