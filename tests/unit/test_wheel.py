"""The wheel: what is not Python code goes along only where pyproject.toml names it, so a new kind of file is easily left behind."""

from __future__ import annotations

import tomllib

from tests.lakes import ROOT


def test_the_wheel_has_every_file_of_the_package() -> None:
    source = ROOT / "pipeline"
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    patterns = [(source / package.replace(".", "/"), each) for package, several in settings.items() for each in several]
    named = {path for folder, each in patterns for path in folder.glob(each)}
    files = {path for path in (source / "masklake").rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}}
    assert len(files) > 15
    assert files == named
    assert all((path.parent / "__init__.py").exists() for path in (source / "masklake").rglob("*.py")), "a folder that setuptools finds"
