from __future__ import annotations

import json
from pathlib import Path

import pytest

from masklake.commands import cli
from tests.exports import build


def test_the_job_ends_with_a_code_and_a_json_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = build(str(tmp_path / "masks"))
    command = [
        "export",
        "--table",
        table,
        "--output",
        str(tmp_path / "out"),
        "--format",
        "coco-instances",
        "--label",
        "dog",
        "--label",
        "person",
    ]
    assert cli.main(command) == 0
    told = capsys.readouterr()
    summary = json.loads(told.out.splitlines()[-1])
    assert (summary["outcome"], summary["rows"], summary["labels"], summary["exit_code"]) == ("done", 5, ["dog", "person"], 0)
    assert "masklake: 5 rows of version" in told.err
    assert cli.main(command) == 2
    refusal = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (refusal["outcome"], refusal["exit_code"]) == ("refused", 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "yolo"], "--format yolo (on the command line): input should be 'coco-instances'"),
        (["--format", "segments", "--min-score", "high"], "--min-score high (on the command line): input should be a valid number"),
        (["--format", "coco-panoptic", "--task", "instance"], "--task instance: masks of such an answer may overlap"),
        ([], "--format is missing"),
    ],
)
def test_a_wrong_setting_is_one_sentence(arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", "--table", str(tmp_path / "masks"), "--output", str(tmp_path / "out"), *arguments]) == 2
    told = capsys.readouterr()
    assert message in json.loads(told.out.splitlines()[-1])["error"]
    assert message in told.err
    assert "Traceback" not in told.err


def test_the_help_states_how_ids_are_made(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["export", "--help"])
    assert ended.value.code == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "A category's id is the table's label_id + 1" in told
    assert "An image's id is its position" in told
