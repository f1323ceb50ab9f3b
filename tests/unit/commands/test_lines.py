"""Without a terminal, whatever a command says is a line of JSON, whoever says it; a terminal has sentences."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from masklake.commands import cli, lines
from masklake.commands.ending import Paced, end_with
from masklake.commands.progress import show_progress
from masklake.errors import Refused
from masklake.segment.progress import State
from tests.lakes import ROOT

COMMON = ("ts", "level", "event", "run_id", "table")
TABLE, RUN = "s3://lake/masks", "20261127T020000-abcdef"
PRINTS = """
import json, logging, os, sys, warnings
from masklake.commands import lines
from masklake.commands.ending import end_with
def work():
    lines.say("read \\u00e9t\\u00e9")
    quiet = os.dup(2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # as while Ray starts
    lines.say("meanwhile")
    os.dup2(quiet, 2)
    print("half a line, ", end="", file=sys.stderr)
    print("and the rest", file=sys.stderr)
    return {"outcome": "done"}
sys.exit(end_with(work))
"""


@pytest.fixture
def as_json(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As where no terminal is, which is what a test's stderr is."""
    monkeypatch.delenv(lines.VARIABLE)
    yield
    lines.about(None)


def told(text: str) -> list[dict[str, Any]]:
    """Every line as JSON, each with what they have in common."""
    found = [json.loads(line) for line in text.splitlines()]
    for each in found:
        assert tuple(each)[:5] == COMMON
        assert datetime.fromisoformat(each["ts"]).utcoffset() is not None
        assert each["level"] in {"debug", "info", "warning", "error", "critical"}
    return found


@pytest.mark.usefixtures("as_json")
def test_what_masklake_says_is_about_its_run_and_table(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> dict[str, Any]:
        lines.say("before it has a name")
        with show_progress() as listener:
            listener.begin(RUN, TABLE)
            listener.say('12 images of "a\x1b[2J"')
            listener.say("ATTENTION: the whole lake again")
            listener._last = -1e9  # type: ignore[attr-defined]  # as ten seconds ago
            listener.update(State("starting the model", planned=12))
        paced = Paced()
        paced._last = -1e9
        paced("half of it")
        return {"outcome": "done", "images": 12}

    assert end_with(work) == 0
    out, err = capsys.readouterr()
    said = told(err)
    assert [(each["event"], each["level"], each["message"]) for each in said] == [
        ("message", "info", "before it has a name"),
        ("message", "info", '12 images of "a\\u001b[2J"'),
        ("message", "warning", "ATTENTION: the whole lake again"),
        ("message", "info", "half of it"),
    ]
    assert [(each["run_id"], each["table"]) for each in said] == [(None, None), *[(RUN, TABLE)] * 3]
    progress, end = told(out)
    assert (progress["event"], progress["run_id"], progress["phase"], progress["eta_seconds"]) == (
        "progress",
        RUN,
        "starting the model",
        None,
    )
    assert {name: end[name] for name in ("event", "level", "run_id", "table", "exit_code", "outcome", "images")} == {
        "event": "end",
        "level": "info",
        "run_id": RUN,
        "table": TABLE,
        "exit_code": 0,
        "outcome": "done",
        "images": 12,
    }


@pytest.mark.usefixtures("as_json")
def test_what_libraries_log_warn_of_and_print_is_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    own = logging.getLogger("a.library.with.a.handler.of.its.own")
    own.propagate = False

    def work() -> dict[str, Any]:
        handler = logging.StreamHandler()  # as Ray's and transformers', to what stderr is at that time
        own.addHandler(handler)
        own.error("two\nlines")
        own.removeHandler(handler)
        logging.getLogger("a.library.that.tries.again").warning("retry %d", 3)
        logging.getLogger("a.library.that.tries.again").info("nobody asked")
        try:
            raise ValueError("why")
        except ValueError:
            logging.getLogger("a.library.that.fails").exception("a stage failed")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("old", DeprecationWarning, stacklevel=1)
        print("  0%|   | 0/2\r 50%|#  | 1/2\r100%|###| 2/2", file=sys.stderr)
        thread = threading.Thread(target=lambda: print("from a thread", file=sys.stderr))
        print("begun, ", end="", file=sys.stderr)
        thread.start()
        thread.join()
        print("and ended\n", file=sys.stderr)
        print(json.dumps({"already": "JSON"}), file=sys.stderr)
        return {}

    before = sys.stderr, warnings.showwarning, list(logging.getLogger().handlers)
    assert end_with(work) == 0
    assert (sys.stderr, warnings.showwarning, logging.getLogger().handlers) == before
    *found, passed = capsys.readouterr().err.splitlines()
    said = told("\n".join(found))
    assert [(each["event"], each["level"], each["message"]) for each in said] == [
        ("stderr", "warning", "two"),
        ("stderr", "warning", "lines"),
        ("log", "warning", "retry 3"),
        ("log", "error", "a stage failed"),
        ("warning", "warning", "old"),
        ("stderr", "warning", "100%|###| 2/2"),
        ("stderr", "warning", "from a thread"),
        ("stderr", "warning", "begun, and ended"),
    ]
    assert (said[2]["logger"], said[4]["category"]) == ("a.library.that.tries.again", "DeprecationWarning")
    assert said[4]["where"].startswith(__file__)
    assert said[3]["traceback"].endswith("ValueError: why")
    assert json.loads(passed) == {"already": "JSON"}


@pytest.mark.usefixtures("as_json")
def test_what_ends_a_run_is_an_error_by_its_outcome(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse() -> dict[str, Any]:
        raise Refused("no bucket", "no model")

    def stop() -> dict[str, Any]:
        raise KeyboardInterrupt

    assert (end_with(refuse), end_with(stop), end_with(lambda: {"a": 1 // 0})) == (2, 130, 1)
    out, err = capsys.readouterr()
    said = told(err)
    assert [(each["event"], each["level"]) for each in said] == [
        ("refused", "error"),
        ("refused", "error"),
        ("stopped", "warning"),
        ("traceback", "error"),
        ("failed", "error"),
    ]
    assert [each["message"] for each in said[:2]] == ["no bucket", "no model"]
    assert said[3]["message"].startswith("Traceback")
    assert [(end["event"], end["level"], end["exit_code"]) for end in told(out)] == [
        ("end", "error", 2),
        ("end", "warning", 130),
        ("end", "error", 1),
    ]


@pytest.mark.usefixtures("as_json")
@pytest.mark.parametrize("command", [name for name in cli.COMMANDS if name not in ("models", "completion", "demo", "convert")])
def test_every_command_speaks_so(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKLAKE_SOMEBODYS_OWN", "1")
    assert cli.main([command, "--tabel", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert {each["event"] for each in told(err)} == {"message", "refused"}
    assert [end["outcome"] for end in told(out)] == ["refused"]


@pytest.mark.usefixtures("as_json")
def test_a_table_is_named_as_soon_as_the_settings_say_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compact", "--table", f"{tmp_path}/none/"]) == 2
    assert {each["table"] for each in told(capsys.readouterr().err)} == {f"{tmp_path}/none"}


def test_a_process_of_its_own_writes_lines_also_while_stderr_goes_nowhere() -> None:
    environment = {name: value for name, value in os.environ.items() if name != lines.VARIABLE}
    done = subprocess.run([sys.executable, "-c", PRINTS], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert [each["message"] for each in told(done.stderr)] == ["read \u00e9t\u00e9", "meanwhile", "half a line, and the rest"]
    assert told(done.stdout)[-1]["outcome"] == "done"


def hello() -> dict[str, Any]:
    lines.say("hello")
    return {}


def test_a_terminal_has_sentences_unless_the_variable_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(lines.VARIABLE)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert end_with(hello) == 0
    assert capsys.readouterr() == ('{"exit_code": 0}\n', "masklake: hello\n")
    monkeypatch.setenv(lines.VARIABLE, "json")
    assert end_with(hello) == 0
    out, err = capsys.readouterr()
    assert (told(err)[0]["message"], told(out)[0]["event"]) == ("hello", "end")


def test_a_wrong_format_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(lines.VARIABLE, "xml")
    assert cli.main(["compact", "--table", str(tmp_path)]) == 2
    (end,) = told(capsys.readouterr().out)
    assert end["error"] == "MASKLAKE_LOG_FORMAT xml (in the environment): must be one of auto, json, text"
