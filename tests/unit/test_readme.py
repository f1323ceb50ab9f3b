"""What the documents name exists: files, commands, settings, links."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from jobs import make_scenes
from masklake.commands import cli
from masklake.config import resolve
from masklake.errors import ErrorCode, Refused
from masklake.inference.released import RELEASED
from masklake.schema import SEGMENT, TABLE
from masklake.training.models import PARTS
from tests.lakes import ROOT

SOURCE = ROOT / "pipeline" / "masklake"
PAGES = ("README.md", "pipeline/README.md", "jobs/README.md", "jobs/benchmarks/README.md", "tests/README.md", "infra/README.md")
DOCUMENTS = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
EVERYTHING = "\n".join(DOCUMENTS.values())


def test_the_readme_is_a_page() -> None:
    assert len(DOCUMENTS["README.md"].splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", DOCUMENTS[page]):
        file = (ROOT / page).parent / target if target else ROOT / page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, anchor


@pytest.mark.parametrize("page", PAGES)
def test_every_table_is_whole(page: str) -> None:
    """A row behind a blank line, or before one without a line of dashes, is no row of a table but text with bars."""
    for block in re.findall(r"(?:^\|.*\n)+", DOCUMENTS[page], re.MULTILINE):
        head, dashes, *rows = [re.sub(r"`[^`]*`", "", line).count("|") for line in block.splitlines()]
        assert re.fullmatch(r"(\|-+)+\|", block.splitlines()[1]), block[:99]
        assert {dashes, *rows} == {head}, block[:99]


def test_every_file_of_the_tree_exists() -> None:
    tree = re.search(r"^    masklake/\n((?:      .*\n?)+)", DOCUMENTS["pipeline/README.md"], re.MULTILINE)
    assert tree
    named = {name.rstrip("/") for name in re.findall(r"^      ([\w./-]+)  +\S", tree[1], re.MULTILINE)}
    there = {path.name for path in SOURCE.iterdir() if path.name not in ("__init__.py", "__main__.py", "__pycache__", "py.typed")}
    assert named == there


@pytest.mark.parametrize("room", sorted(path.parent for path in SOURCE.glob("*/__init__.py")), ids=lambda room: room.name)
def test_a_room_says_what_it_needs_and_what_it_does_not_know(room: Path) -> None:
    said = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8"))) or ""
    assert re.search(r"\bNeeds\b", said)
    assert re.search(r"\bKnows nothing of\b", said)


def test_every_command_is_described() -> None:
    table = DOCUMENTS["jobs/README.md"].split("| command | |")[1].split("\n\n")[0]
    assert set(re.findall(r"[a-z]+", " ".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| ")))) - {
        "and"
    } >= set(cli.COMMANDS)


def commands(page: str) -> Iterator[tuple[list[str], bool]]:
    """The words of every command of a page, without a shell's comments; whether it is whole, or stands in a sentence or has `...`."""
    text = re.sub(r" \\\n\s*", " ", (ROOT / page).read_text(encoding="utf-8"))
    for place in (r"^ {4}(.+)$", r"`([^`\n]+)`"):
        for line in re.findall(place, text, re.MULTILINE):
            if found := re.search(r"(?:^|.* )(python -m (?:masklake|jobs|tests|infra)\b.*)|^(masklake .*)", line):
                words = shlex.split(found[1] or found[2], comments=True)
                yield [word for word in words if word != "..."], place.startswith("^") and "..." not in words


@pytest.mark.parametrize("page", [*PAGES, "pipeline/masklake/demo/model/README.md"])
def test_every_command_is_one_that_its_program_takes(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    shown = list(commands(page))
    assert shown
    for words, whole in shown:
        module, *arguments = words[2:] if words[0] == "python" else words
        if module == "masklake":
            wrong = [each for each in _refused(arguments) if whole or " is missing" not in each]
            assert wrong == [], words
        else:
            file = Path(find_spec(module).origin or "")  # type: ignore[union-attr]
            program = file.with_name("__main__.py") if file.name == "__init__.py" else file
            flags = {word.partition("=")[0] for word in arguments if word.startswith("--")}
            assert {flag for flag in flags if not _takes(program, flag)} == set(), words


def _refused(arguments: list[str]) -> list[str]:
    """What a command says to these settings, a sentence each."""
    name, *settings = arguments
    if name in ("help", "NAME") or "--help" in settings:
        return []
    try:
        resolve(settings, cli.program(name))
    except Refused as refused:
        return str(refused).splitlines()
    return []


def _takes(program: Path, flag: str) -> bool:
    """Whether a program of the checkout has such a flag, with argparse or with settings of its own."""
    name = flag.removeprefix("--")
    return bool(re.search(rf"[\"']--{name}[\"']|^ +{name.replace('-', '_')}: ", program.read_text(encoding="utf-8"), re.MULTILINE))


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"make ([a-z-]+) ", EVERYTHING)) - {"help"}
    known = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert targets <= set(re.findall(r"make ([a-z-]+)", known))


def test_every_flag_is_a_setting() -> None:
    flags = set(re.findall(r"`--([a-z-]+)", EVERYTHING)) - {"config", "working-dir"}  # --working-dir is Ray's
    settings = {name for command in cli.COMMANDS for name in cli.program(command).names}
    known = {name.replace("_", "-") for name in {*settings, *make_scenes.PROGRAM.names}} | {"help", "version"}
    assert {flag for flag in flags if flag not in known and flag.removeprefix("no-") not in known} == set()


@pytest.mark.parametrize("name", [*TABLE.names, *(field.name for field in SEGMENT), *ErrorCode])
def test_every_column_and_code_is_explained(name: str) -> None:
    assert re.search(rf"\b{name}\b", EVERYTHING)


def test_the_table_of_released_checkpoints_is_the_programs_own() -> None:
    """What is written there is what decides the tasks of a checkpoint whose files do not say them."""
    trained = {"mask2former": "Mask2Former", "maskformer": "MaskFormer", "oneformer": "OneFormer", "segformer": "SegFormer"}
    assert set(trained) == set(PARTS)
    learns = {True: "yes", False: "-"}
    rows = [
        f"| {each.kind} | `{each.repositories}` | {each.dataset} | {', '.join(each.tasks)} | {learns[each.kind in trained.values()]} |"
        for each in RELEASED
    ]
    written = DOCUMENTS["jobs/README.md"].split("| segment | finetune |\n")[1].split("\n\n")[0].splitlines()[1:]
    assert written == rows
