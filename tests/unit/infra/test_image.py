"""The container file installs the program as it is: its command, its settings, the tested versions, and nothing that lies about."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatchcase

from tests.lakes import MODEL, ROOT

INFRA = ROOT / "infra"
CONTAINERFILE = (INFRA / "Containerfile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pins(name: str) -> dict[str, str]:
    lines = (INFRA / name).read_text(encoding="utf-8").splitlines()
    assert all("==" in line for line in lines)
    return {package.lower().replace("_", "-"): version for package, version in (line.split("==") for line in lines)}


def copied() -> list[str]:
    """What is copied from the repository."""
    return [source for line in re.findall(r"^COPY (.+)$", CONTAINERFILE, re.MULTILINE) for source in line.split()[:-1]]


def test_the_image_starts_a_program_that_the_project_installs() -> None:
    entry = re.search(r'^ENTRYPOINT \["(.+)"\]$', CONTAINERFILE, re.MULTILINE)
    assert entry is not None
    assert entry[1] in PROJECT["scripts"]
    extras = re.search(r"^RUN pip install --constraint constraints.txt \.\[([\w,]+)\]$", CONTAINERFILE, re.MULTILINE)
    assert extras is not None
    assert {"run", "gcs", "azure"} <= set(extras[1].split(",")) <= PROJECT["optional-dependencies"].keys()


def test_its_base_is_whatever_digest_is_written_down_and_never_a_tag_that_moves() -> None:
    assert re.findall(r"^(?:ARG BASE|FROM).*$", CONTAINERFILE, re.MULTILINE) == ["ARG BASE", "FROM ${BASE}"]
    shown = re.search(r"python:(\d+\.\d+)-slim", CONTAINERFILE)
    assert shown is not None
    assert PROJECT["requires-python"] == f">={shown[1]}"


def test_what_the_image_copies_is_there_and_holds_no_model_but_the_demos() -> None:
    assert {"pipeline", "infra/constraints.txt", "infra/constraints-cuda.txt", "pyproject.toml"} <= set(copied())
    for source in copied():
        path = ROOT / source
        assert path.exists(), source
        assert not [file for file in path.rglob("*.safetensors") if file.parent != MODEL], source


def test_what_is_not_copied_is_not_even_sent_to_the_builder() -> None:
    rules = [line for line in (ROOT / ".containerignore").read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    first, *others = rules
    assert first == "*"
    assert {rule[1:] for rule in others if rule.startswith("!")} == set(copied())
    left_out = [rule.removeprefix("**/") for rule in others if not rule.startswith("!")]
    for part in ("__pycache__", "masklake.egg-info"):
        assert any(fnmatchcase(part, rule) for rule in left_out)
    assert (INFRA / "Containerfile.dockerignore").resolve() == ROOT / ".containerignore"  # where Docker looks


def test_torch_and_what_cuda_brings_are_pinned_without_a_contradiction() -> None:
    tested, cuda = pins("constraints.txt"), pins("constraints-cuda.txt")
    assert tested.keys() & cuda.keys() == {"triton"}
    assert "grep -v '^triton==' infra/constraints.txt | cat - infra/constraints-cuda.txt" in CONTAINERFILE
    assert {"nvidia-cublas", "nvidia-cudnn-cu13", "nvidia-nccl-cu13", "cuda-toolkit"} <= cuda.keys()
    assert "torch" in tested
    assert CONTAINERFILE.count("grep '^torch==' constraints.txt") == 2
