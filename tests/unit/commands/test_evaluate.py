from __future__ import annotations

import json
from pathlib import Path

import pytest

from masklake.commands import cli
from tests.exports import build, export


def test_the_job_ends_with_a_table_a_code_and_a_json_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = build(str(tmp_path / "masks"))
    export(table, tmp_path / "truth", "coco-panoptic")
    command = ["evaluate", "--table", table, "--truth", str(tmp_path / "truth"), "--output", str(tmp_path / "out")]
    assert cli.main(command) == 0
    told = capsys.readouterr()
    *shown, last = told.out.splitlines()
    summary = json.loads(last)
    assert (summary["outcome"], summary["task"], summary["scores"]["pq"], summary["exit_code"]) == ("done", "panoptic", 1, 0)
    assert summary["output"] == f"file://{tmp_path}/out"
    assert any("person" in line and "100.0" in line for line in shown)
    assert any(line.startswith("PQ 100.0   SQ 100.0") for line in shown)
    assert "masklake: 5 images of ground truth (coco-panoptic), 5 of them with an answer" in told.err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"evaluation.json", "evaluation.html"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "painting"], "--format painting (on the command line): input should be 'auto', 'coco-panoptic'"),
        (["--ignore-index", "none"], "--ignore-index none (on the command line): input should be a valid integer"),
        (["--truth", "/no/such/file.json"], "--table"),
        ([], "--table"),
    ],
)
def test_a_wrong_setting_is_one_sentence(arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", "--table", str(tmp_path / "masks"), "--truth", str(tmp_path), *arguments]) == 2
    told = capsys.readouterr()
    assert message in json.loads(told.out.splitlines()[-1])["error"]
    assert "Traceback" not in told.err


def test_the_help_says_what_counts_as_a_miss(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["evaluate", "--help"])
    assert ended.value.code == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "missed with everything in it" in told
    assert '"*": background' in told
