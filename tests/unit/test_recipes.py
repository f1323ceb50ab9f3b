"""The recipes of jobs/README.md are run as they are printed, on a small table whose answers are known."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from masklake.export.iceberg.publish import publish
from masklake.export.iceberg.settings import PublishConfig
from tests.answers import rectangle
from tests.exports import HEIGHT, ROOT, WIDTH, commit, export, labelled
from tests.lakes import ROOT as REPOSITORY

SECTION = (REPOSITORY / "jobs" / "README.md").read_text(encoding="utf-8").split("\n## export\n")[1].split("\n## evaluate\n")[0]
RECIPES = re.findall(r"^```python\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Three images of two days; the newest answers have persons of 123, 164 and, twice in one image, 246 pixels."""
    folder = tmp_path_factory.mktemp("lake")

    def shape(columns: slice) -> Any:
        return rectangle(HEIGHT, WIDTH, slice(0, 3), columns)  # up to 3 x 41 = 123 pixels

    rest = labelled(2, rectangle(HEIGHT, WIDTH, slice(20, 30), slice(0, WIDTH)), 2, 0.9)  # 410 pixels of sky
    just = [labelled(1, shape(slice(0, WIDTH)), 0), rest]
    larger = [labelled(1, rectangle(HEIGHT, WIDTH, slice(0, 4), slice(0, WIDTH)), 0), rest]
    twice = [labelled(n, rectangle(HEIGHT, WIDTH, slice(6 * n, 6 * n + 6), slice(0, WIDTH)), 0) for n in (1, 2)]
    table = str(folder / "masks")
    commit(table, "run-1", {"dt=2026-11-21/just.jpg": {"panoptic": larger}, "dt=2026-11-21/larger.jpg": {"panoptic": larger}})
    commit(table, "run-2", {"dt=2026-11-21/just.jpg": {"panoptic": just}, "dt=2026-11-22/twice.jpg": {"panoptic": twice}}, minute=2)
    export(table, folder / "segments", "segments", task="panoptic")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HOME", str(folder))
        publish(PublishConfig(table=table), lambda text: None)
        yield folder


@pytest.mark.parametrize("recipe", RECIPES, ids=[recipe.splitlines()[0] for recipe in RECIPES])
def test_a_recipe_runs_and_gives_the_right_answer(recipe: str, lake: Path) -> None:
    assert "s3://lake/" in recipe
    names: dict[str, Any] = {}
    exec(compile(recipe.replace("s3://lake", str(lake)), "README.md", "exec"), names)
    if "large" in names:
        large = names["large"]
        uris = large["image_uri"].to_list() if hasattr(large, "columns") else list(large)
        assert sorted(uris) == [f"{ROOT}dt=2026-11-21/larger.jpg", f"{ROOT}dt=2026-11-22/twice.jpg"]
    else:
        areas = names["areas"]
        found = (
            [(str(day), label, int(area)) for day, label, area in areas]
            if isinstance(areas, list)
            else [(*key, int(area)) for key, area in areas.items()]
        )
        assert sorted(found) == [("2026-11-21", "person", 123 + 164), ("2026-11-21", "sky", 820), ("2026-11-22", "person", 492)]


def test_each_question_is_answered_and_each_tool_is_shown() -> None:
    for tool in ("import polars", "import duckdb", "import pandas", "newest_arrow", "scan_iceberg"):
        assert any(tool in recipe for recipe in RECIPES), tool
    assert sum("large =" in recipe for recipe in RECIPES) == 2
    assert sum("areas =" in recipe for recipe in RECIPES) == 3
