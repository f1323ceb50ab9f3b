"""An evaluation in groups on a local Ray gives the figures that it gives in one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evaluations import evaluate
from tests.exports import build, export


def test_figures_do_not_depend_on_ray_or_the_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = build(str(tmp_path / "masks"))
    export(table, tmp_path / "instances", "coco-instances", where="run_id = 'run-1'")
    export(table, tmp_path / "panoptic", "coco-panoptic", where="run_id = 'run-1'")
    kinds = ("instances", "panoptic")
    whole = {kind: evaluate(table, tmp_path / kind) for kind in kinds}
    monkeypatch.setattr("masklake.evaluation.pairs._ROWS_AT_ONCE", 1)
    assert {kind: evaluate(table, tmp_path / kind) for kind in kinds} == whole
    assert evaluate(table, tmp_path / "instances", ray_address="local") == whole["instances"]
    assert 0.2 < whole["panoptic"]["scores"]["pq"] < 1
