"""How a job ends that something unforeseen befell: a last line of JSON, whatever happens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest

from masklake.commands.ending import end_with


def ended(work: Any, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any], str]:
    code = end_with(work)
    captured = capsys.readouterr()
    return code, json.loads(captured.out.splitlines()[-1]), captured.err


def test_a_full_disk_is_one_sentence_that_names_the_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def fill() -> dict[str, Any]:
        try:
            Path("/dev/full").write_bytes(b"a")  # the kernel's own answer of a full disk
        except OSError as error:
            raise duckdb.IOException("Could not write file") from error
        return {}

    code, summary, said = ended(fill, capsys)
    assert (code, summary["outcome"], summary["exit_code"]) == (1, "failed", 1)
    assert said == f"masklake: {summary['error']}\n"
    assert "no space is left" in said
    assert "TMPDIR" in said


def test_what_nobody_foresaw_shows_its_stack_and_still_ends_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, summary, said = ended(lambda: {"a": 1 // 0}, capsys)
    assert (code, summary) == (1, {"outcome": "failed", "error": "ZeroDivisionError: integer division or modulo by zero", "exit_code": 1})
    assert "Traceback" in said
