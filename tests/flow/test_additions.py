"""A kind of input, a model family and a format of export, added by a module and a line each, and run as a user runs them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import masklake
from masklake import reading
from tests.lakes import scene

SERIES = """
import contextlib, io, json, sys
from masklake.commands import cli
for arguments in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.redirect_stderr(io.StringIO()) as errors:
        code = cli.main(arguments)
    print(json.dumps([code, json.loads(output.getvalue().strip().splitlines()[-1]), errors.getvalue()]))
"""
TOYS = Path(__file__).parents[1] / "toys"
ADDED = {  # the module's place, and the file with the line: what stands before it there, and the line
    "zips": (
        "images/sources",
        "images/sources/__init__.py",
        "    _OBJECTS,\n",
        "    Zips(),\n",
        "from masklake.images.sources.zips import Zips\n",
    ),
    "boxes": (
        "export/formats",
        "export/formats/__init__.py",
        "FORMATS: tuple[Format, ...] = (",
        "boxes.FORMAT, ",
        "from masklake.export.formats import boxes\n",
    ),
}


def extended(folder: Path) -> Path:
    """A copy of the package with the three modules, each with its line; its import is a line as well, as in any Python."""
    source = Path(masklake.__file__).parent
    package = folder / "masklake"
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__", "demo"))
    for name, (place, listing, mark, line, imported) in ADDED.items():
        shutil.copy(TOYS / f"{name}.py", package / place)
        text = (package / listing).read_text()
        head, found, tail = text.partition(mark)
        assert found, listing
        inside = head + line + found + tail if mark.endswith("\n") else head + found + line + tail
        future = "from __future__ import annotations\n"
        (package / listing).write_text(inside.replace(future, f"{future}\n{imported}", 1))
    shutil.copy(TOYS / "mobilevit.py", package / "inference")
    families = package / "inference" / "families.py"
    families.write_text(families.read_text() + "\nfrom masklake.inference.mobilevit import FAMILY\n\nFAMILIES['mobilevit'] = FAMILY\n")
    return folder


def checkpoint(folder: Path) -> Path:
    """A small MobileViT with random weights."""
    import torch
    from transformers import MobileViTConfig, MobileViTForSemanticSegmentation

    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_sizes": [16, 24, 32],
        "neck_hidden_sizes": [8, 8, 16, 16, 24, 32, 32],
        "aspp_out_channels": 16,
        "num_attention_heads": 2,
    }
    config = MobileViTConfig(**sizes, image_size=64, id2label={0: "sky", 1: "road", 2: "car"}, label2id={"sky": 0, "road": 1, "car": 2})
    MobileViTForSemanticSegmentation(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": {"height": 64, "width": 64}}))
    return folder


def run(package: Path, *commands: list[str]) -> list[tuple[int, dict[str, Any], str]]:
    """Commands of the extended package, in a process of their own: exit code, last line, what the user was told."""
    done = subprocess.run(
        [sys.executable, "-c", SERIES],
        cwd=package,
        env={**os.environ, "PYTHONPATH": str(package)},
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_source_a_family_and_a_format_of_export_are_a_module_and_a_line_each(tmp_path: Path) -> None:
    package = extended(tmp_path / "package")
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "in" / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/0.jpg", scene(0))
        archive.writestr("1.jpg", scene(1))
        archive.writestr("bad.jpg", b"no image")
    (tmp_path / "in" / "torn.zip").write_bytes(b"PK no zip")
    (tmp_path / "in" / "2.jpg").write_bytes(scene(2))
    arguments = ["segment", "--input", str(tmp_path / "in"), "--output", str(tmp_path / "masks"), "--tasks", "semantic"]
    arguments += ["--model", str(checkpoint(tmp_path / "model"))]
    export = ["export", "--table", str(tmp_path / "masks"), "--format", "boxes", "--output", str(tmp_path / "out")]
    first, again, *exports = run(package, arguments, arguments, export, [*export, "--overwrite"])
    assert first[0] == 0, first
    rows = {row["image_uri"].removeprefix(f"file://{tmp_path}/in/"): row for row in reading.open_table(str(tmp_path / "masks")).newest()}
    codes = {name: row["error_code"] for name, row in rows.items()}
    assert codes == {"a.zip/x/0.jpg": None, "a.zip/1.jpg": None, "a.zip/bad.jpg": "not_an_image", "torn.zip": "broken", "2.jpg": None}
    assert (
        sum(segment["area"] for segment in rows["a.zip/1.jpg"]["segments"]) == rows["a.zip/1.jpg"]["width"] * rows["a.zip/1.jpg"]["height"]
    )
    assert (again[0], again[1]["outcome"]) == (0, "nothing to do"), again
    for code, summary, errors in exports:
        assert (code, summary["task"]) == (0, "semantic"), errors
        assert "--task semantic: the only answers in the table that boxes can hold" in errors
    lines = (tmp_path / "out" / "boxes.csv").read_text().splitlines()
    assert len(lines) == 1 + sum(len(row["segments"] or ()) for row in rows.values())
    assert any(line.startswith(f"file://{tmp_path}/in/a.zip/x/0.jpg,") for line in lines)
