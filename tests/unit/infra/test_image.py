"""The container file installs the program as it is: its command, its settings, the tested versions."""

from __future__ import annotations

import re
import tomllib

from tests.lakes import MODEL, ROOT

INFRA = ROOT / "infra"
CONSTRAINTS = (INFRA / "constraints.txt").read_text(encoding="utf-8")


def containerfile() -> str:
    return (INFRA / "Containerfile").read_text(encoding="utf-8")


def test_the_image_starts_a_program_that_the_project_installs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    entry = re.search(r'^ENTRYPOINT \["(.+)"\]$', containerfile(), re.MULTILINE)
    assert entry is not None
    assert entry[1] in project["scripts"]
    python = re.search(r"^FROM python:(\d+)\.(\d+)-slim$", containerfile(), re.MULTILINE)
    assert python is not None
    assert project["requires-python"] == f">={python[1]}.{python[2]}"


def test_what_the_image_copies_is_there_and_holds_no_model_but_the_demos() -> None:
    sources = [source for line in re.findall(r"^COPY (.+)$", containerfile(), re.MULTILINE) for source in line.split()[:-1]]
    assert {"pipeline", "infra/constraints.txt", "pyproject.toml"} <= set(sources)
    for source in sources:
        found = list(ROOT.glob(source))
        assert found, source
        weights = [file for path in found for file in path.rglob("*.safetensors")]
        assert not [file for file in weights if file.parent != MODEL], source


def test_the_image_installs_the_tested_torch_by_itself() -> None:
    assert len(re.findall(r"^torch==", CONSTRAINTS, re.MULTILINE)) == 1
    assert "grep '^torch==' infra/constraints.txt" in containerfile()
    assert "pip install --constraint infra/constraints.txt ." in containerfile()
