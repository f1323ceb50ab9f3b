from __future__ import annotations

import json
import socket
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from masklake.segment.machine import machine
from masklake.segment.report import RunFacts, RunTotals, in_words, report_dict, summary
from masklake.table.write import FileRecord, Sample

FACTS = RunFacts(
    run_id="r1",
    input_uri="s3://lake/images/",
    table_uri="s3://lake/masks",
    model="demo",
    model_revision="abc",
    tasks=("panoptic", "semantic"),
    started_at=datetime(2026, 11, 22, 17, 43, tzinfo=UTC),
    finished_at=datetime(2026, 11, 22, 17, 44, tzinfo=UTC),
)


def file_record(**given: Any) -> FileRecord:
    facts: dict[str, Any] = {"path": "p.parquet", "size": 100, "modified": FACTS.started_at, "partition_values": {}, "stats": "{}"}
    return FileRecord(**{**facts, "rows": 1, "ok": 1, **given})


def failing(code: str, *uris: str, count: int | None = None) -> FileRecord:
    count = count or len(uris)
    return file_record(rows=count, ok=0, errors={code: count}, examples={code: tuple((uri, f"{code}: {uri}") for uri in uris)})


def merged(*records: FileRecord) -> RunTotals:
    totals = RunTotals()
    for record in records:
        totals = totals.merge(record)
    return totals


class TestTotals:
    def test_files_add_up(self) -> None:
        totals = merged(
            file_record(size=100, rows=3, ok=3, label_counts={"cat": 2, "sky": 3}, seconds={"segment": 1.5, "write": 0.25}),
            file_record(size=50, rows=2, ok=2, label_counts={"cat": 1}, seconds={"segment": 0.5}),
            failing("truncated", "a", "b"),
        )
        assert (totals.files, totals.written_bytes, totals.rows, totals.ok, totals.failed_rows) == (3, 250, 7, 5, 2)
        assert totals.label_counts == {"cat": 3, "sky": 3}
        assert totals.segments == 6
        assert totals.seconds == {"segment": 2.0, "write": 0.25}
        assert totals.errors == {"truncated": 2}

    def test_three_examples_of_each_code_are_kept_and_all_are_counted(self) -> None:
        totals = merged(failing("truncated", "a", "b", "c", count=70), failing("truncated", "d"), failing("broken", "e"))
        assert totals.errors == {"truncated": 71, "broken": 1}
        assert [uri for uri, _ in totals.examples["truncated"]] == ["a", "b", "c"]
        assert totals.examples["broken"] == (("e", "broken: e"),)

    def test_an_image_that_failed_in_two_tasks_is_one_example(self) -> None:
        totals = merged(failing("broken", "a"), failing("broken", "a"))
        assert totals.errors == {"broken": 2}
        assert totals.examples == {"broken": (("a", "broken: a"),)}

    def test_samples_are_the_lowest_hashes_in_whatever_order_files_come(self) -> None:
        records = [
            file_record(samples=tuple(Sample(hash=n * 37 % 101, image_uri=f"u{n}", path="p") for n in part)) for part in _thirds(100)
        ]
        forwards, backwards = merged(*records), merged(*reversed(records))
        assert forwards.samples == backwards.samples
        assert [sample.hash for sample in forwards.samples] == sorted(n * 37 % 101 for n in range(100))[: len(forwards.samples)]
        assert 0 < len(forwards.samples) < 100

    def test_images_are_counted_apart_from_rows(self) -> None:
        # Two images with two tasks each; one image failed in one task.
        totals = merged(file_record(rows=3, ok=3), failing("model_failed", "a")).count_images(2, failed=1).lasting(4.0)
        assert (totals.images, totals.failed_images, totals.rows, totals.failed_rows) == (2, 1, 4, 1)
        assert totals.error_rate == 0.5
        assert totals.images_per_second == 0.5

    def test_rows_that_were_planned_and_never_came_show(self) -> None:
        assert RunTotals(planned_rows=5).merge(file_record(rows=3, ok=3)).missing_rows == 2

    def test_rates_of_an_empty_run_are_zero(self) -> None:
        assert (RunTotals().images_per_second, RunTotals().error_rate) == (0.0, 0.0)

    def test_stages_come_in_the_order_of_the_flow(self) -> None:
        totals = (
            merged(file_record(seconds={"write": 1.0, "fetch": 2.0, "zoom": 0.5}))
            .spend("commit", 0.5)
            .spend("plan", 1.0)
            .spend("plan", 1.0)
        )
        assert list(totals.stage_seconds.items()) == [("plan", 2.0), ("fetch", 2.0), ("write", 1.0), ("commit", 0.5), ("zoom", 0.5)]


class TestReport:
    TOTALS = (
        RunTotals(planned_images=3, planned_rows=6, planned_bytes=999)
        .merge(file_record(rows=4, ok=4, label_counts={"cat": 1, "sky": 4}, seconds={"segment": 1.5}))
        .merge(failing("broken", "s3://lake/images/x.jpg", count=2))
        .count_images(3, failed=1)
        .lasting(2.0)
    )

    def test_says_what_ran_on_what_and_what_came_of_it(self) -> None:
        report = report_dict(FACTS, self.TOTALS, {"batch_size": 8})
        assert report["run_id"] == "r1"
        assert report["table"] == "s3://lake/masks"
        assert report["model"] == {"name": "demo", "revision": "abc"}
        assert report["images"] == {"planned": 3, "done": 3, "ok": 2, "failed": 1}
        assert report["rows"] == {"planned": 6, "ok": 4, "error": 2, "missing": 0}
        assert report["bytes"] == {"planned": 999, "written": 200}
        example = {"uri": "s3://lake/images/x.jpg", "message": "broken: s3://lake/images/x.jpg"}
        assert report["errors"] == {"broken": {"rows": 2, "examples": [example]}}
        assert list(report["segments"].items()) == [("sky", 4), ("cat", 1)]
        assert report["images_per_second"] == 1.5
        assert report["stages"] == {"segment": {"seconds": 1.5, "images_per_second": 2.0}}
        assert report["configuration"] == {"batch_size": 8}

    def test_a_sentence_for_people(self) -> None:
        assert in_words(self.TOTALS) == "done: 3 images in 2 s (1.5/s), 5 segments; 1 of the images failed (rows: broken 2)"
        well = RunTotals().merge(file_record(label_counts={"cat": 1200})).count_images(1500, failed=0).lasting(1000.0)
        assert in_words(well) == "done: 1,500 images in 1,000 s (1.5/s), 1,200 segments"

    def test_says_where_it_ran_with_what_and_when_the_first_rows_were_there(self) -> None:
        cluster = {"CPU": 32.0, "GPU": 2.0, "accelerator_type:H100": 2.0, "memory": 1e9}
        facts = replace(FACTS, machine=machine(cluster, "cuda", actors=2, cpus_per_actor=4, gpus_per_actor=1))
        report = report_dict(facts, self.TOTALS.committed(1.25).committed(1.75), {})
        assert report["seconds_to_first_commit"] == 1.25
        assert report["host"]["name"] == socket.gethostname()
        assert report["cluster"] == {"cpus": 32.0, "gpus": 2.0, "accelerators": ["H100"]}
        assert (report["device"], report["actors"]) == ("cuda", {"count": 2, "cpus": 4, "gpus": 1})
        assert report["versions"]["pyarrow"] == pa.__version__
        assert {"python", "ray", "torch", "transformers", "deltalake"} <= set(report["versions"])
        assert json.loads(json.dumps(report, allow_nan=False)) == report

    def test_is_json_whatever_the_configuration_holds(self) -> None:
        configuration = {"folder": Path("x"), "tasks": ("panoptic",), "since": FACTS.started_at, "limit": None}
        report = report_dict(FACTS, self.TOTALS, configuration)
        assert json.loads(json.dumps(report, allow_nan=False)) == report
        assert report["configuration"]["folder"] == "x"

    def test_of_a_run_with_nothing_to_do(self) -> None:
        report = report_dict(FACTS, RunTotals(), {})
        json.dumps(report, allow_nan=False)
        assert (report["errors"], report["segments"], report["stages"], report["images_per_second"]) == ({}, {}, {}, 0.0)


class TestSummary:
    def test_is_flat_and_takes_more(self) -> None:
        found = summary(FACTS, TestReport.TOTALS, status="done", gallery="s3://lake/masks/g.html")
        assert found["planned"] == found["ok"] + found["errors"] == 3
        assert (found["errors_by_code"], found["rows"], found["segments"]) == ({"broken": 2}, 6, 5)
        assert (found["status"], found["gallery"]) == ("done", "s3://lake/masks/g.html")


def _thirds(count: int) -> list[range]:
    return [range(start, count, 3) for start in range(3)]
