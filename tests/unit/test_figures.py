"""Figures in the documents are those of the files that programs wrote."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from jobs.benchmarks import tables


@pytest.mark.parametrize("path", tables.DOCUMENTS, ids=lambda path: str(path.relative_to(tables.ROOT)))
def test_every_figure_is_its_files(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert tables.differences(text, tables.rewritten(text, tables.RESULTS)) == []
    assert len(tables.FIGURE.findall(text)) == len(re.findall(r"<!-- [\w.-]+\.json#", text)), "a figure that is not read is not looked at"


def test_what_the_program_knows_of_speed_is_the_files() -> None:
    text = tables.MEASURED.read_text(encoding="utf-8")
    assert text == tables.measured(tables.RESULTS)
    (tiny,) = (each for each in json.loads(text) if each["variant"] == "Swin-T")
    speed = json.loads((tables.RESULTS / "gpu-h200.json").read_text())["parts"]["speed"]
    milliseconds = speed["mask2former-swin-tiny-384, 640x480"]["result"]["everything, panoptic, graphs"]
    assert tiny["images_per_second"] == round(1000 / milliseconds)


def test_every_file_is_of_some_figure() -> None:
    """What nothing shows is measured for nobody, or its figures stand somewhere without it."""
    told = "".join(path.read_text(encoding="utf-8") for path in tables.DOCUMENTS) + Path(tables.__file__).read_text(encoding="utf-8")
    assert [path.name for path in tables.RESULTS.iterdir() if path.name not in told] == []


def test_a_page_of_figures_has_none_without_a_file() -> None:
    page = (tables.ROOT / "jobs" / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for pattern in (r"<!-- table: .*?<!-- end -->", r"`[^`]*`", r"[^ |(]*<!--.*?-->"):
        page = re.sub(pattern, "", page, flags=re.DOTALL)
    assert re.findall(r".*\d\.\d.*", page) == []


def test_a_figure_that_is_not_its_files_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / "a.json").write_text(json.dumps({"rates": [{"a/b": 1234.567}, {"share": 0.0244, "grown": 17.2}], "words": "no number"}))
    page = tmp_path / "page.md"
    shown = "**1,000.0**<!-- a.json#/rates/0/a~1b --> in 3.1 %<!-- a.json#/rates/1/share x100 -->, +4 MB<!-- a.json#/rates/1/grown -->."
    page.write_text(shown)
    speed = {"parts": {"speed": {}}, "environment": {"gpu": "none"}}
    (results / "gpu-h200.json").write_text(json.dumps(speed))
    (tmp_path / "measured.json").write_text(tables.measured(results))
    for name, changed in (("ROOT", tmp_path), ("RESULTS", results), ("DOCUMENTS", (page,)), ("MEASURED", tmp_path / "measured.json")):
        monkeypatch.setattr(tables, name, changed)
    assert tables.main(["--check"]) == 1
    assert capsys.readouterr().err.startswith("page.md\n  -**1,000.0**")
    assert page.read_text() == shown
    assert tables.main([]) == 0
    assert [found["figure"] for found in tables.FIGURE.finditer(page.read_text())] == ["1,234.6", "2.4", "+17"]
    assert tables.main(["--check"]) == 0
    monkeypatch.setitem(
        tables.TABLES, "some", lambda folder: tables.rows(("", "x"), ("a", tables.value(folder, "a.json", "/rates/1/grown")))
    )
    page.write_text("Before\n\n<!-- table: some -->\n| old |\n<!-- end -->\n")
    assert tables.main([]) == 0
    assert page.read_text() == "Before\n\n<!-- table: some -->\n| | x |\n|---|---|\n| a | 17.2 |\n<!-- end -->\n"


@pytest.mark.parametrize(
    ("written", "error"),
    [("b.json#/x", OSError), ("a.json#/none", LookupError), ("a.json#/list/7", LookupError), ("a.json#/words", ValueError)],
)
def test_a_figure_of_nothing_is_an_error(tmp_path: Path, written: str, error: type[Exception]) -> None:
    (tmp_path / "a.json").write_text('{"list": [1], "words": "no number"}')
    with pytest.raises(error):
        tables.rewritten(f"It is 1<!-- {written} -->.", tmp_path)
