"""The simulated fleet: its images are in the table, in as many files as were asked for, and what it cost is told."""

from __future__ import annotations

import json

import pytest

from jobs.benchmarks import fleet


def test_a_small_fleet_fills_a_table_that_holds_files_already(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--seconds", "0.2", "--row-bytes", "50", "--rows-per-file", "256", "--files-before", "5"]
    assert fleet.main(small) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["images"], found["files"]) == (768, 3)  # 3 x 256 of 1,000
    assert found["commits"] >= 1
    assert found["cpu_ms_per_1000_images"] > 0
