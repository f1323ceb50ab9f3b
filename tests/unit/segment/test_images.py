"""What a run says of its images, seen by its plan: nothing is started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from masklake import demo
from masklake.commands import cli
from masklake.table.append import Table
from tests.unit.images.test_discover import files


def plan(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, last line and messages of a dry run."""
    code = cli.main(
        ["segment", "--model", str(demo.MODEL), "--output", str(folder / "masks"), "--dry-run", "--precision", "float32", *arguments]
    )
    captured = capsys.readouterr()
    return code, json.loads(captured.out.splitlines()[-1]), captured.err


def test_an_empty_input_is_refused_unless_it_is_expected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files(tmp_path, "in/dt=1/a.jpg", "in/dt=2/a.jpg")
    (tmp_path / "in/dt=3").mkdir()
    for uri, message in (("in/dt=*", "write file://{in}/dt=*/ for what is below"), ("in/dt=3", "there is nothing there: ")):
        code, summary, errors = plan(capsys, tmp_path, "--input", f"{tmp_path}/{uri}")
        assert (code, summary["outcome"]) == (2, "refused")
        assert message.replace("{in}", f"{tmp_path}/in") in errors
        code, summary, _ = plan(capsys, tmp_path, "--input", f"{tmp_path}/{uri}", "--allow-empty")
        assert (code, summary["planned"], summary["plan"]["images"]) == (0, 0, 0)
    code, summary, _ = plan(capsys, tmp_path, "--input", f"{tmp_path}/in", "--since", "2100-01-01")
    assert (code, summary["plan"]["older"]) == (0, 2)


def test_an_empty_night_of_a_schedule_is_nothing_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run and no plan; and the next night's images are work of the same command."""
    command = ["segment", "--model", str(demo.MODEL), "--output", str(tmp_path / "masks"), "--precision", "float32", "--since", "48h"]
    command += ["--input", f"{tmp_path}/in/dt=2026-11-23/", "--local"]
    files(tmp_path, "in/dt=2026-11-22/a.jpg")
    for more, code, outcome in (([], 2, "refused"), (["--allow-empty"], 0, "nothing to do")):
        assert cli.main([*command, *more]) == code
        summary = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (summary["outcome"], summary["exit_code"]) == (outcome, code)
        assert not summary.get("planned")
    files(tmp_path, "in/dt=2026-11-23/b.jpg")
    assert cli.main([*command, "--allow-empty", "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["planned"] == 1


def test_the_plan_counts_what_is_left_out_and_what_looks_like_no_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files(tmp_path, "in/a.jpg", "in/b.png", "in/raw/c.jpg", "in/README.txt", "in/x.txt", "in/Thumbs.db")
    code, summary, errors = plan(capsys, tmp_path, "--input", f"{tmp_path}/in", "--exclude", "raw/*.{jpg,png},*.tif")
    assert code == 0
    assert {name: summary["plan"][name] for name in ("images", "excluded", "unlike_images")} == {
        "images": 5,
        "excluded": 1,
        "unlike_images": 3,
    }
    assert "; 1 left out by --include and --exclude; 3 objects whose name is not an image's (2 .txt, 1 .db)" in errors
    assert "--exclude '*{.txt,.db}' leaves out what is called so" in errors
    code, summary, errors = plan(capsys, tmp_path, "--input", f"{tmp_path}/in", "--exclude", "*{.txt,.db}")
    assert (summary["plan"]["images"], summary["plan"]["unlike_images"]) == (3, 0)
    assert "whose name is not" not in errors
    code, summary, errors = plan(capsys, tmp_path, "--input", f"{tmp_path}/in", "--include", "*.jpeg")
    assert (code, summary["outcome"]) == (2, "refused")
    assert "they leave out every image" in errors


def test_a_partition_that_no_image_has_is_refused_with_those_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files(tmp_path, "in/dt=1/camera=n/a.jpg", "in/dt=2/b.jpg", "flat/a.jpg")
    code, _, errors = plan(capsys, tmp_path, "--input", f"{tmp_path}/in", "--partition-by", "dat,task")
    assert code == 2
    assert "--partition-by dat: " in errors
    assert "there are camera, dt" in errors
    code, _, errors = plan(capsys, tmp_path, "--input", f"{tmp_path}/flat", "--partition-by", "dt")
    assert code == 2
    assert "there are no such folders" in errors
    assert plan(capsys, tmp_path, "--input", f"{tmp_path}/in", "--partition-by", "camera,dt")[0] == 0
    Table.open_or_create(str(tmp_path / "masks"), ["dt"])
    assert plan(capsys, tmp_path, "--input", f"{tmp_path}/flat", "--partition-by", "dt")[0] == 0, "a table that is so partitioned takes any"
