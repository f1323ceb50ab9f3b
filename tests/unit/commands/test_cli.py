"""What every command has alike: help, examples, placeholders, refusals, and that it answers before anything large is imported."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import masklake
from masklake.commands import cli
from masklake.config import Positional, Shown, resolve
from masklake.config.kinds import choices, is_flag, mark
from tests.lakes import ROOT

LARGE = [
    "ray",
    "torch",
    "transformers",
    "pyarrow",
    "duckdb",
    "deltalake",
    "fsspec",
    "s3fs",
    "botocore",
    "numpy",
    "PIL",
    "pyiceberg",
    "rich",
]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The error of a command that ends with 2, after it is told on stderr as well."""
    assert cli.main(arguments) == 2
    told = capsys.readouterr()
    summary = json.loads(told.out.splitlines()[-1])
    assert (summary["outcome"], summary["exit_code"]) == ("refused", 2)
    assert all(f"masklake: {line}" in told.err for line in summary["error"].splitlines())
    error: str = summary["error"]
    return error


def test_help_and_refusals_import_nothing_large() -> None:
    script = (
        "import sys; from masklake.commands import cli\n"
        "for name in cli.COMMANDS:\n"
        "    for wrong in (['--help'], ['--quux']):\n"
        "        try: cli.main([name, *wrong])\n"
        "        except SystemExit: pass\n"
        f"print([name for name in {LARGE!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.count('{"outcome": "refused"') == len(cli.COMMANDS)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_misspelt_flag_or_key_is_a_refusal_like_any_other(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--confg is not a setting: did you mean --config?" in refused(capsys, name, "--confg", "x")
    file = tmp_path / "run.yaml"
    file.write_text("quux: 1\n", encoding="utf-8")
    assert f"'quux' in {file} is not a setting" in refused(capsys, name, "--config", str(file))


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_misspelt_variable_is_refused_by_every_command(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MASKLAKE_BATCHSIZE", "4")
    assert "MASKLAKE_BATCHSIZE in the environment is not a setting: did you mean MASKLAKE_BATCH_SIZE?" in refused(capsys, name)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_three_examples_or_more_that_the_command_takes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # where the settings files of some are
    program = cli.program(name)
    assert len(program.examples) >= 3
    for example in program.examples:
        words = shlex.split(re.sub(r"^source <\(|\)$| > .*$", "", example))
        assert words[:2] == ["masklake", name]
        resolve(words[2:], program)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_placeholder_says_what_is_meant(name: str) -> None:
    """A number, a text or a list needs a name of its own: `Annotated[int, Shown("ROWS")]`, or a kind of `masklake.config` that has one."""
    fields = cli.program(name).fields
    assert [name for name, field in fields.items() if not (is_flag(field) or choices(field) or mark(field, Shown))] == []
    shown = {mark.placeholder for mark in (mark(field, Shown) for field in fields.values()) if mark}
    assert {word for word in shown if not re.fullmatch(r"[A-Z]+([.=x|:][A-Z]+)*", word)} == set()


def test_settings_of_one_name_are_of_one_kind_in_all_commands() -> None:
    """`--images` is the number of images in none where it is their folder in another."""
    kinds: dict[str, set[str]] = {}
    for command in cli.COMMANDS:
        for name, field in cli.program(command).fields.items():
            shown = mark(field, Shown)
            kinds.setdefault(name, set()).add(shown.placeholder if shown else "flag" if is_flag(field) else "choice")
    place = {"URI", "TABLE", "FOLDER", "FILE"}
    assert {name: kind for name, kind in kinds.items() if len(kind) > 1 and not kind <= place} == {}


def test_every_command_that_takes_a_task_takes_it_by_both_names() -> None:
    named = {name: set(cli.program(name).names) & {"task", "tasks"} for name in cli.COMMANDS}
    assert {name for name, names in named.items() if names} == {"segment", "export", "evaluate", "finetune", "models"}
    assert all(len(names) in (0, 2) for names in named.values())


@pytest.mark.parametrize("arguments", [["help"], ["--help"], ["-h"]])
def test_help_lists_every_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 0
    text = capsys.readouterr().out
    assert [name for name in cli.COMMANDS if not re.search(rf"^  {name} ", text, re.MULTILINE)] == []


def test_help_of_a_command_is_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for arguments in (["help", "export"], ["export", "--help"]):
        with pytest.raises(SystemExit, match="0"):
            cli.main(arguments)
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert shown[0].startswith("usage: masklake export ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["segmnt"], "no command is called 'segmnt': did you mean 'segment'?"),
        (["help", "finetun"], "no command is called 'finetun': did you mean 'finetune'?"),
        (["--verison"], "no command is called '--verison': did you mean '--version'?"),
        (["quux"], "no command is called 'quux'; there are segment, "),
        ([], "no command is named"),
    ],
)
def test_a_misspelt_command_is_a_refusal(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refused(capsys, *arguments)


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"masklake {masklake.__version__}\n"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "masklake.__version__"}


def test_positional_settings_are_few() -> None:
    loose = {name: [each for each, field in cli.program(name).fields.items() if mark(field, Positional)] for name in cli.COMMANDS}
    expected = {"status": ["table"], "browse": ["table"], "convert": ["model"], "erase": ["uri"], "completion": ["shell"]}
    assert {name: names for name, names in loose.items() if names} == expected
