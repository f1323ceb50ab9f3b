"""The arithmetic of a billion images, worked by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.benchmarks import scale

LISTED = {"objects": 1_000_000, "seconds": 36.0, "cpu_seconds": 18.0, "requests_per_1000_objects": 1.0}
COST = {"log_bytes_per_file": 2000, "cpu_ms_per_1000_images": 2.0, "commit_cpu_seconds_median": 0.01, "peak_mb": 500, "files": 20}
MANY = {**COST, "files": 400, "files_before": 200_000, "commit_cpu_seconds_median": 2.002, "peak_mb": 900}
MANY |= {"checkpoint_bytes": 20_000_000, "checkpoint_cpu_seconds": 4.0}


def test_a_billion_images_on_500_gpus(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [{"name": "64 MB", **COST}, {"name": "64 MB, 60,000 files before", **MANY}]
    for name, content in (("listing.json", LISTED), ("fleet.json", {"runs": runs})):
        (tmp_path / name).write_text(json.dumps(content))
    monkeypatch.setattr(scale, "RESULTS", tmp_path)
    assert scale.main(["--row-bytes", "4194.304"]) == 0  # 1/16,000 of 64 MB
    found = json.loads(capsys.readouterr().out)
    assert (found["images_per_second"], found["hours"]) == (5000, 55.6)
    listing, plan, table, driver = (found[name] for name in ("listing", "plan", "table", "driver"))
    assert (listing["requests"], listing["hours"], listing["cpu_hours"], listing["minutes_of_a_part"]) == (1_000_000, 10.0, 5.0, 6.0)
    assert listing["digests_gb"] == 16.0
    assert (plan["files"], plan["images_per_load_task"]) == (488_282, 500_000)  # 32 x 64 images in each file
    assert (table["files"], table["files_of_1024_rows"], table["commits_a_day"]) == (62_500, 976_562, 17_280)
    assert (table["files_a_day"], table["log_mb_a_day"], table["checkpoints_a_day"]) == (27_000, 54, 173)
    assert (table["last_checkpoint_mb"], table["last_checkpoint_cpu_seconds"]) == (6.2, 1.2)  # 100 bytes and 20 us a file
    assert (driver["last_commit_cpu_seconds"], driver["last_commit_cpu_seconds_of_1024_rows"]) == (0.6, 9.8)  # 10 us
    assert (driver["table_mb"], driver["table_mb_of_1024_rows"]) == (125, 1953)  # 2 kB
