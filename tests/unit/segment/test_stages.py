"""The cluster's stages as plain functions, on local folders and the demo model, without Ray."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from masklake.demo.lake import broken_files
from masklake.images.discover import discover
from masklake.images.source import Input
from masklake.inference import checkpoint
from masklake.inference.options import Options
from masklake.inference.source import ModelSource
from masklake.schema import NOTHING_CARRIED, table_schema
from masklake.segment import stages
from masklake.segment.plan import WorkList, make_plan
from masklake.segment.stages import Work
from masklake.table.rows import RunStamp
from masklake.table.write import fits
from tests.lakes import MODEL, scene

TASKS = ("panoptic", "semantic")


@pytest.fixture
def work(tmp_path: Path) -> Work:
    """A lake of three scenes and the broken files, planned in groups of four."""
    images = tmp_path / "images"
    images.mkdir()
    for index in range(3):
        (images / f"scene-{index}.jpg").write_bytes(scene(index))
    for name, data in broken_files().items():
        (images / name).write_bytes(data)
    fingerprints = {task: f"print-of-{task}" for task in TASKS}
    planned = make_plan(discover(Input(str(images))), None, fingerprints, work_list=WorkList(str(tmp_path / "plan"), 4))
    return Work(
        plan_uri=str(tmp_path / "plan"),
        groups=planned.groups,
        table_uri=str(tmp_path / "masks"),
        partition_by=("task",),
        carried=NOTHING_CARRIED,
        source=ModelSource("folder", str(MODEL)),
        description=checkpoint.describe(MODEL, Options(tasks=TASKS)),
        stamp=RunStamp("demo", "1", fingerprints, "run-1", 1, datetime(2026, 11, 22, tzinfo=UTC)),
        max_pixels=10**8,
        max_image_bytes=10**8,
        max_decode_seconds=60.0,
        precision="float32",
        batch_size=None,
        forward="eager",
        device="cpu",
    )


def load_all(work: Work) -> pa.Table:
    return pa.concat_tables([table for index in range(work.groups) for table in stages.load_group(work, index)])


def test_loading_gives_each_planned_image_a_row_with_pixels_or_a_code(work: Work) -> None:
    rows = load_all(work).to_pylist()
    assert work.groups == 2
    codes = {row["image_uri"].rsplit("/", 1)[-1]: row["error_code"] for row in rows}
    assert codes == {
        "bomb.png": "too_large",
        "cut-short.jpg": "truncated",
        "empty.jpg": "empty",
        "login-page.jpg": "not_an_image",
        "scene-0.jpg": None,
        "scene-1.jpg": None,
        "scene-2.jpg": None,
    }
    assert all((row["pixels"] is None) == (row["error_code"] is not None) for row in rows)
    good = next(row for row in rows if row["error_code"] is None)
    assert len(good["pixels"]) == good["pixels_height"] * good["pixels_width"] * 3 == 160 * 160 * 3
    assert (good["width"], good["height"], good["format"]) == (512, 512, "JPEG")


def test_an_image_that_was_replaced_since_is_new_work_and_tells_nothing_of_a_version_that_was_not_read(work: Work, tmp_path: Path) -> None:
    (tmp_path / "images" / "scene-1.jpg").write_bytes(scene(7))
    row = next(row for row in load_all(work).to_pylist() if row["image_uri"].endswith("scene-1.jpg"))
    assert (row["error_code"], row["error_message"]) == ("changed", "it has changed since it was listed")
    assert (row["image_etag"], row["image_bytes"], row["image_modified"], row["pixels"]) == (None, None, None, None)


@pytest.mark.slow
def test_a_key_that_is_too_long_for_a_folder_is_an_error_of_its_image_alone(work: Work, tmp_path: Path) -> None:
    city = "\u4eac" * 80  # 240 bytes in its own folder, 720 once encoded
    (tmp_path / "images" / f"city={city}").mkdir()
    (tmp_path / "images" / f"city={city}" / "far.jpg").write_bytes(scene(0))
    keyed = replace(work, partition_by=("task", "city"))
    pages = discover(Input(str(tmp_path / "images")))
    made = make_plan(pages, None, work.stamp.fingerprints, work_list=WorkList(work.plan_uri, 100, ("city",)))
    loaded = load_all(replace(keyed, groups=made.groups))
    row = next(row for row in loaded.to_pylist() if row["image_uri"].endswith("far.jpg"))
    assert (row["error_code"], row["city"]) == ("unsupported", None)
    assert row["error_message"] == "its key city is too long for a partition's folder: 80 characters"
    segmenter = stages.open_segmenter(work, threads=1)
    written = stages.write_packets(keyed, [stages.segment_rows(keyed, segmenter, loaded)])
    assert (written.images, written.failed) == (8, 5)


def test_how_long_a_partitions_name_may_be() -> None:
    assert fits("file:///masks", {"dt": "x" * 252}, "run-1")
    assert not fits("file:///masks", {"dt": "x" * 253}, "run-1")
    rest = len("masks/dt=/part-run-1-.parquet") + 36
    assert fits("s3://lake/masks", {"dt": "x" * (1024 - rest)}, "run-1")
    assert not fits("s3://lake/masks", {"dt": "x" * (1025 - rest)}, "run-1")


def test_large_pixels_travel_in_several_tables(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "_CHUNK_BYTES", 1)
    tables = list(stages.load_group(work, 1))
    assert [table.num_rows for table in tables] == [1, 1, 1]
    assert pa.concat_tables(tables)["image_uri"].to_pylist() == load_all(work)["image_uri"].to_pylist()[4:]


def test_a_packet_holds_every_row_of_its_images_and_a_write_partitions_them(work: Work, tmp_path: Path) -> None:
    segmenter = stages.open_segmenter(work, threads=1)
    loaded = load_all(work)
    packets = [stages.segment_rows(work, segmenter, loaded.slice(first, 4)) for first in (0, 4)]
    written = stages.write_packets(work, packets)
    assert (written.images, written.failed) == (7, 4)
    assert sum(record.rows for record in written.records) == 7 * len(TASKS)
    assert {record.partition_values["task"] for record in written.records} == set(TASKS)
    for record in written.records:
        rows = pq.read_table(tmp_path / "masks" / record.path, partitioning=None)
        assert rows.schema.names == [name for name in table_schema(["task"]).names if name != "task"]
        by_name = {row["image_uri"].rsplit("/", 1)[-1]: row for row in rows.to_pylist()}
        assert by_name["scene-0.jpg"]["status"] == "ok"
        assert len(by_name["scene-0.jpg"]["segments"]) >= 2
        assert by_name["bomb.png"]["segments"] is None
        assert by_name["bomb.png"]["error_code"] == "too_large"


@pytest.mark.slow
def test_strings_that_are_written_with_the_files_are_those_of_the_model(work: Work) -> None:
    segmenter = stages.open_segmenter(work, threads=1)
    loaded = load_all(work)
    plain = stages.segment_rows(work, segmenter, loaded)
    assert segmenter is not None
    segmenter.compact = True
    compact = [stages.segment_rows(work, segmenter, loaded.slice(first, 2)) for first in range(0, 7, 2)]  # two have no segment at all
    assert _segments(compact[1]) != _segments(plain)
    for packets in ([plain], compact):
        written = stages.write_packets(replace(work, table_uri=f"{work.table_uri}-{len(packets)}"), packets)
        assert (written.images, written.failed) == (7, 4)
    rows = [
        sorted(
            (row["image_uri"], row["status"], str(row["segments"]))
            for path in Path(f"{work.table_uri}-{count}").rglob("*.parquet")
            for row in pq.read_table(path, partitioning=None).to_pylist()
        )
        for count in (1, len(compact))
    ]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 14


@pytest.mark.slow
def test_an_answer_is_the_same_whatever_travels_with_the_image(work: Work) -> None:
    segmenter = stages.open_segmenter(work, threads=1)
    loaded = load_all(work)
    together = _segments(stages.segment_rows(work, segmenter, loaded))
    alone = {key: value for row in range(7) for key, value in _segments(stages.segment_rows(work, segmenter, loaded.slice(row, 1))).items()}
    assert together.keys() == alone.keys()
    for key, segments in together.items():
        assert [s["counts"] for s in segments] == [s["counts"] for s in alone[key]]
        assert np.allclose([s["score"] for s in segments], [s["score"] for s in alone[key]], atol=1e-5)


def _segments(packet: bytes) -> dict[tuple[str, str], list[dict[str, Any]]]:
    rows = pa.ipc.open_stream(packet).read_all().to_pylist()
    return {(row["image_uri"], row["task"]): row["segments"] or [] for row in rows}


def test_an_image_that_vanished_after_planning_is_a_row(work: Work, tmp_path: Path) -> None:
    (tmp_path / "images" / "scene-1.jpg").unlink()
    rows = {row["image_uri"].rsplit("/", 1)[-1]: row["error_code"] for row in load_all(work).to_pylist()}
    assert rows["scene-1.jpg"] == "not_found"


def test_a_rotated_photograph_is_measured_upright(work: Work, tmp_path: Path) -> None:
    picture = Image.new("RGB", (40, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "images" / "scene-2.jpg", exif=exif)
    make_plan(discover(Input(str(tmp_path / "images"))), None, work.stamp.fingerprints, work_list=WorkList(work.plan_uri, 4))
    row = next(row for row in load_all(work).to_pylist() if row["image_uri"].endswith("scene-2.jpg"))
    assert (row["height"], row["width"]) == (40, 20)
