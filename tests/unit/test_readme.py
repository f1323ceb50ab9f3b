"""The README's tree, commands and settings exist."""

from __future__ import annotations

import re
import subprocess

import pytest

from jobs import make_scenes
from masklake.commands import cli, compact, erase, evaluate, export, publish
from masklake.config import Config
from masklake.errors import ErrorCode
from masklake.schema import SEGMENT, TABLE
from masklake.training.settings import FinetuneConfig
from tests.lakes import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_file_of_the_tree_exists() -> None:
    tree = README.split("## What is where", 1)[1]
    inside = ""
    for line in re.findall(r"^    ( *)([\w./-]+)  +\S", tree, re.MULTILINE):
        indent, name = line
        inside = inside if indent else name
        path = ROOT / inside / name if indent else ROOT / name
        assert path.exists(), path


def test_every_command_of_the_tree_is_one() -> None:
    named = re.search(r"masklake/commands/ +the command line: (.*)", README)
    assert named
    assert set(named[1].split(", ")) == set(cli.COMMANDS)


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"make ([a-z-]+) ", README)) - {"help"}
    known = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert targets <= set(re.findall(r"make ([a-z-]+)", known))


def test_every_flag_is_a_setting() -> None:
    flags = set(re.findall(r"`--([a-z-]+)", README)) - {"config"}
    parsers = (
        compact.settings_parser(),
        erase.settings_parser(),
        export._parser(),
        evaluate._parser(),
        publish._parser(),
        make_scenes._parser(),
    )
    of_others = "".join(parser.format_help() for parser in parsers)
    of_runs = {name.replace("_", "-") for name in (*Config.model_fields, *FinetuneConfig.model_fields)}
    assert flags <= of_runs | set(re.findall(r"--([a-z-]+)", of_others))


@pytest.mark.parametrize("name", [*TABLE.names, *(field.name for field in SEGMENT), *ErrorCode])
def test_every_column_and_code_is_explained(name: str) -> None:
    assert re.search(rf"\b{name}\b", README)
