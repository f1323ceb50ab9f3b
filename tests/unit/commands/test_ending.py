"""How a job ends that something unforeseen befell: a last line of JSON, whatever happens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest

from masklake.commands.ending import end_with
from masklake.commands.lines import say
from masklake.commands.progress import show_progress
from masklake.errors import Refused
from masklake.segment.progress import State


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


def test_names_and_labels_are_spelt_out_wherever_a_person_reads_them(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\x1b[2J\x1b]0;title\x07\nmasklake: done\u202egpj.jpg"
    spelt = "a\\u001b[2J\\u001b]0;title\\u0007\\u000amasklake: done\\u202egpj.jpg"

    def refuse() -> dict[str, Any]:
        say(name)
        raise Refused(f"{name}: no", "and another thing")

    def crash() -> dict[str, Any]:
        raise RuntimeError("\x1b[2J")

    code, summary, said = ended(refuse, capsys)
    assert said == f"masklake: {spelt}\nmasklake: {spelt}: no\nmasklake: and another thing\n"
    assert (code, summary["error"]) == (2, f"{name}: no\nand another thing")  # a program reads it as it is
    assert "\x1b" not in ended(crash, capsys)[2]


def test_a_terminals_progress_takes_no_orders_from_names(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    with show_progress() as listener:
        listener.say("licence \x1b]0;title\x07[red]mit[/red]")
        listener.update(State("waiting for run [bold]\x1b[2J"))
    said = capsys.readouterr().err
    assert "licence \\u001b]0;title\\u0007[red]mit[/red]" in said
    assert "\x1b]0;" not in said
    assert "\x1b[2J" not in said
