from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from polars.testing import assert_frame_equal

from masklake.export import segments
from tests.exports import NAMES, export, files

SORTED_BY = ["image_uri", "task", "segment_id"]


def exploded(table: str) -> pl.DataFrame:
    """The same by polars alone, from the Delta table."""
    rows = pl.scan_delta(table).filter(status="ok")
    rows = rows.filter(pl.col("run_order") == pl.col("run_order").max().over("image_uri", "task"))
    columns = ["image_uri", "width", "height", "task", "model", "fingerprint", "dt"]
    flat = rows.select(*columns, "segments").explode("segments").unnest("segments")
    boxes = [pl.col("bbox").list.get(index).alias(f"bbox_{name}") for index, name in enumerate(("x", "y", "width", "height"))]
    fraction = pl.col("area") / (pl.col("width").cast(pl.Float64) * pl.col("height"))
    return flat.with_columns(*boxes, area_fraction=fraction).drop("bbox").collect().sort(SORTED_BY)


def test_rows_are_those_that_polars_makes_of_the_table(table: str, tmp_path: Path) -> None:
    summary = export(table, tmp_path, "segments")
    assert files(tmp_path) == {"_export.json", "segments-00000.parquet"}
    expected, found = exploded(table), pl.read_parquet(tmp_path / "segments-*.parquet")
    assert found.columns == [
        *("image_uri", "width", "height", "task", "model", "fingerprint", "dt", "segment_id", "label_id", "label", "isthing", "score"),
        *("area", "area_fraction", "bbox_x", "bbox_y", "bbox_width", "bbox_height", "counts", "class_score"),
    ]
    assert_frame_equal(found.sort(SORTED_BY), expected.select(found.columns), rel_tol=1e-12)
    assert summary["segments"] == len(expected)
    assert found["area_fraction"].is_between(0, 1).all()


def test_filters_and_a_task(table: str, tmp_path: Path) -> None:
    export(table, tmp_path, "segments", task="instance", label=("dog",), min_score=0.5, where="dt = '2026-11-21'")
    expected = exploded(table).filter(pl.col("score") >= 0.5, task="instance", label="dog", dt="2026-11-21")
    found = pl.read_parquet(tmp_path / "segments-00000.parquet").sort(SORTED_BY)
    assert len(expected) > 3
    assert_frame_equal(found, expected.select(found.columns), rel_tol=1e-12)


def test_a_large_export_is_several_files(table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "_FILE_BYTES", 1000)
    monkeypatch.setattr(segments, "_ROW_GROUP_ROWS", 20)
    summary = export(table, tmp_path, "segments")
    assert len(files(tmp_path)) > 3
    found = pl.read_parquet(tmp_path / "segments-*.parquet").sort(SORTED_BY)
    assert_frame_equal(found, exploded(table).select(found.columns), rel_tol=1e-12)
    assert summary["rows"] == len(NAMES) * 3


def test_nothing_left_is_an_empty_file_and_a_word(table: str, tmp_path: Path) -> None:
    said: list[str] = []
    assert export(table, tmp_path, "segments", said, label=("persn",))["segments"] == 0
    assert "--label persn: no segment that was exported has it; is it spelt as in the table?" in said
    assert pq.read_table(tmp_path / "segments-00000.parquet").num_rows == 0
