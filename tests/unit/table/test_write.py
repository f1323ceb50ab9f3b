from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from masklake.table.write import SAMPLES, FileRecord, merge_samples, read_rows, write_rows
from tests.answers import rows


def read(folder: Path, record: FileRecord) -> pa.Table:
    return pq.ParquetFile(folder / record.path).read()


def test_one_file_per_partition_value_without_the_partition_columns(tmp_path: Path) -> None:
    table = rows(["a", "b", "c"], partition_by=["task", "dt"], dt=["1", "2", "1"])
    records = write_rows(table, str(tmp_path), ["task", "dt"], "run-1")
    found = {record.partition_values["dt"]: record for record in records}
    assert found["1"].path.startswith("task=panoptic/dt=1/part-run-1-")
    assert read(tmp_path, found["1"])["image_uri"].to_pylist() == ["a", "c"]
    assert read(tmp_path, found["2"])["image_uri"].to_pylist() == ["b"]
    assert {"task", "dt"}.isdisjoint(read(tmp_path, found["1"]).column_names)
    assert read(tmp_path, found["2"]).equals(table.slice(1, 1).drop_columns(["task", "dt"]))
    assert len(list(tmp_path.rglob("*.parquet"))) == 2


def test_partition_values_are_percent_encoded_and_nothing_is_null(tmp_path: Path) -> None:
    values = ["a/b c", "ü=%", None, ""]
    records = write_rows(rows(["a", "b", "c", "d"], partition_by=["dt"], dt=values), str(tmp_path), ["dt"], "run-1")
    assert {record.path.split("/")[0]: record.partition_values["dt"] for record in records} == {
        "dt=a%2Fb%20c": "a/b c",
        "dt=%C3%BC%3D%25": "ü=%",
        "dt=__HIVE_DEFAULT_PARTITION__": None,
    }
    assert sum(record.rows for record in records) == 4
    assert all((tmp_path / record.path).is_file() for record in records)


def test_no_partition_columns_is_one_file_at_the_top(tmp_path: Path) -> None:
    (record,) = write_rows(rows(["a"], partition_by=[]), str(tmp_path), [], "run-1")
    assert "/" not in record.path
    assert record.partition_values == {}


def test_a_repeated_write_never_touches_the_first_ones_file(tmp_path: Path) -> None:
    table = rows(["a"])
    (first,), (second,) = (write_rows(table, str(tmp_path), ["task"], "run-1") for _ in range(2))
    assert first.path != second.path
    assert len(list(tmp_path.rglob("*.parquet"))) == 2


def test_statistics_bound_the_values_and_long_text_is_cut_safely(tmp_path: Path) -> None:
    long = "s3://lake/" + "x" * 600
    (record,) = write_rows(rows([long, long + "y", "s3://a"], failed=["s3://a"]), str(tmp_path), ["task"], "run-1")
    stats = json.loads(record.stats)
    assert stats["numRecords"] == 3
    assert stats["minValues"]["image_uri"] == "s3://a"
    assert len(stats["maxValues"]["image_uri"]) < 520
    assert stats["maxValues"]["image_uri"] > long + "y"
    assert stats["minValues"]["processed_at"] == "2026-11-22T12:00:00.123Z"
    assert stats["maxValues"]["processed_at"] == "2026-11-22T12:00:00.124Z"
    assert (stats["minValues"]["status"], stats["maxValues"]["status"]) == ("error", "ok")
    assert (stats["nullCount"]["error_code"], stats["nullCount"]["run_id"]) == (2, 0)


def test_records_say_what_a_report_needs_in_little_space(tmp_path: Path) -> None:
    uris = [f"s3://lake/{number:04d}.jpg" for number in range(500)]
    (record,) = write_rows(rows(uris, failed=uris[:5]), str(tmp_path), ["task"], "run-1", {"fetch": 1.5})
    assert (record.rows, record.ok, record.errors) == (500, 495, {"model_failed": 5})
    assert record.examples == {"model_failed": tuple((uri, "no") for uri in uris[:3])}
    assert record.label_counts == {"label 3": 495}
    assert record.seconds["fetch"] == 1.5
    assert record.seconds["write"] > 0
    assert record.size == (tmp_path / record.path).stat().st_size
    assert abs((datetime.now(UTC) - record.modified).total_seconds()) < 60
    assert len(pickle.dumps(record)) < 16_000


def test_earlier_seconds_are_counted_once_however_many_files_there_are(tmp_path: Path) -> None:
    records = write_rows(rows(["a", "b"], partition_by=["dt"], dt=["1", "2"]), str(tmp_path), ["dt"], "run-1", {"fetch": 1.5})
    assert sum(record.seconds.get("fetch", 0) for record in records) == 1.5


def test_samples_are_the_same_images_however_the_rows_were_cut_into_files(tmp_path: Path) -> None:
    uris = [f"s3://lake/{number:04d}.jpg" for number in range(400)]
    (whole,) = write_rows(rows(uris, failed=uris[:50]), str(tmp_path), ["task"], "run-1")
    (one,), (other,) = (write_rows(rows(part, failed=uris[:50]), str(tmp_path), ["task"], "run-1") for part in (uris[300:], uris[:300]))
    merged = merge_samples(one.samples, other.samples, SAMPLES)
    assert [sample.image_uri for sample in merged] == [sample.image_uri for sample in whole.samples]
    assert len(merged) == SAMPLES
    assert {sample.image_uri for sample in merged}.isdisjoint(uris[:50])
    assert all(sample.path in (one.path, other.path) for sample in merged)


def test_the_rows_of_a_sampled_image_are_found_again(tmp_path: Path) -> None:
    table = rows(["a", "b"], partition_by=["task", "dt", "camera"], dt=["ü/1", "ü/1"])
    (record,) = write_rows(table, str(tmp_path), ["task", "dt", "camera"], "run-1")
    (row,) = read_rows(str(tmp_path), next(sample for sample in record.samples if sample.image_uri == "b"))
    assert row == table.slice(1).to_pylist()[0]


def test_an_image_with_two_tasks_is_sampled_once(tmp_path: Path) -> None:
    (left,), (right,) = (write_rows(rows(["a", "b"]), str(tmp_path), ["task"], "run-1") for _ in range(2))
    assert sorted(sample.image_uri for sample in merge_samples(left.samples, right.samples, 8)) == ["a", "b"]


def test_masks_are_cut_into_row_groups_for_reading(tmp_path: Path) -> None:
    table = pa.concat_tables([rows([f"{number}" for number in range(64)])] * 2)
    heavy = pa.array([[{**table["segments"][0].as_py()[0], "counts": bytes(200_000)}]] * 128, table.schema.field("segments").type)
    table = table.set_column(table.schema.get_field_index("segments"), table.schema.field("segments"), heavy)
    (record,) = write_rows(table, str(tmp_path), ["task"], "run-1")
    metadata = pq.ParquetFile(tmp_path / record.path).metadata
    assert metadata.num_row_groups == 3  # 25.6 MB of masks, about 8 MB each
    assert metadata.row_group(0).column(0).compression == "ZSTD"
