from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from masklake import reading
from masklake.errors import MasklakeError, Refused
from masklake.storage import normalise
from masklake.table.append import Table
from masklake.table.write import write_rows
from tests.answers import rows

MASK = np.zeros((4, 6), bool)
MASK[0:2, 1:4] = True


def commit(folder: Path, run_id: str, uris: list[str], minute: int, failed: list[str] | None = None) -> None:
    """One run that answers these images at this minute, one day's partition each."""
    table = Table.open_or_create(str(folder), ["dt"])
    table.begin_run("s3://lake/", run_id)
    made = rows(uris, run_id, ["dt"], minute, failed or [], dt=[f"day {uri[-1]}" for uri in uris])
    table.commit(write_rows(made, table.uri, ["dt"], run_id))
    table.finish_run()


@pytest.fixture
def lake(tmp_path: Path) -> reading.MaskTable:
    """a, b, c answered by run 1; b again by run 2; c failed in run 3."""
    commit(tmp_path, "run-1", ["s3://lake/a", "s3://lake/b", "s3://lake/c"], 1)
    commit(tmp_path, "run-2", ["s3://lake/b"], 2)
    commit(tmp_path, "run-3", ["s3://lake/c"], 3, failed=["s3://lake/c"])
    return reading.open_table(str(tmp_path))


def test_the_newest_row_of_each_image_and_task(lake: reading.MaskTable) -> None:
    found = {row["image_uri"]: row for row in lake.newest()}
    assert {uri[-1]: row["run_id"] for uri, row in found.items()} == {"a": "run-1", "b": "run-2", "c": "run-3"}
    assert sum(1 for _ in lake.newest()) == 3
    assert found["s3://lake/b"]["dt"] == "day b"
    assert found["s3://lake/b"]["segments"][0]["bbox"] == [1, 0, 3, 2]


def test_conditions_come_before_the_choice_of_the_newest(lake: reading.MaskTable) -> None:
    ok = {row["image_uri"][-1]: row["run_id"] for row in lake.newest(where="status = 'ok'")}
    assert ok == {"a": "run-1", "b": "run-2", "c": "run-1"}
    assert [row["run_id"] for row in lake.newest(where="dt = 'day b' OR dt = 'none'", task="panoptic")] == ["run-2"]
    assert list(lake.newest(task="it's none")) == []


def test_arrow_streams_have_the_contracts_types(lake: reading.MaskTable) -> None:
    assert lake.newest_arrow().read_all().schema == lake.schema
    some = lake.newest_arrow(columns=["dt", "segments", "processed_at"]).read_all()
    assert some.column_names == ["dt", "segments", "processed_at"]
    assert some.num_rows == 3


def test_rows_are_the_whole_history(lake: reading.MaskTable) -> None:
    history = lake.rows(columns=["image_uri", "run_id"])
    assert sorted(history["image_uri"].to_pylist()) == [f"s3://lake/{name}" for name in "abbcc"]
    assert lake.rows(where="run_id = 'run-2'").schema == lake.schema


def test_masks_of_a_row(lake: reading.MaskTable) -> None:
    row = next(lake.newest(columns=["segments", "height", "width"], where="dt = 'day a'"))
    assert np.array_equal(reading.masks(row), MASK[None])
    ids, labels = reading.id_map(row)
    assert np.array_equal(ids, MASK.astype(np.int32))
    assert labels == {1: 3}


def test_an_error_row_has_no_masks(lake: reading.MaskTable) -> None:
    row = next(lake.newest(where="status = 'error'"))
    with pytest.raises(ValueError, match="s3://lake/c has no masks: model_failed"):
        reading.masks(row)


def test_an_overlay_reads_the_image(tmp_path: Path) -> None:
    uri = normalise(str(tmp_path / "a picture.png"))
    Image.new("RGB", (6, 4), (255, 255, 255)).save(tmp_path / "a picture.png")
    row = rows([uri]).to_pylist()[0]
    painted = reading.overlay(row)
    assert (painted[~MASK] == 255).all()
    assert (painted[MASK] < 255).any(axis=1).all()
    Image.new("RGB", (4, 6)).save(tmp_path / "a picture.png")
    with pytest.raises(MasklakeError, match="has changed since it was segmented"):
        reading.overlay(row)
    (tmp_path / "a picture.png").unlink()
    with pytest.raises(MasklakeError, match="cannot be shown"):
        reading.overlay(row)


def test_no_table_is_one_clear_message(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"file://\S+: there is no table: name the folder that segment has as --output"):
        reading.open_table(str(tmp_path))
