"""The arithmetic of the benchmark over sizes, and its images."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from jobs.benchmarks.flat import Commits, _memory, _steady_cpu, _store_images
from jobs.benchmarks.process_tree import Sample, Watch


def test_the_cost_of_an_image_in_a_share_of_a_run() -> None:
    """100 images at the first commit, then 100 in 10 s, 200 in 10 s, 100 in 20 s."""
    commits = Commits([1000.0, 1010.0, 1020.0, 1040.0], [100, 200, 400, 500])
    assert commits.seconds_per_image(0, 0.25) == pytest.approx(0.1)
    assert commits.seconds_per_image(0.25, 0.75) == pytest.approx(0.05)
    assert commits.seconds_per_image(0.75, 1) == pytest.approx(0.2)
    assert commits.seconds_per_image(0, 1) == pytest.approx(0.1)


def test_growth_is_that_of_the_largest_process_between_the_quarters_after_the_first_commit() -> None:
    megabyte = 2**20
    small = [Sample(at, 1, "load", 10 * megabyte) for at in (900.0, 1001.0, 1039.0)]
    large = [Sample(at, 2, "load", size * megabyte) for at, size in ((900.0, 99), (1001.0, 50), (1005.0, 52), (1031.0, 70), (1039.0, 74))]
    other = [Sample(1001.0, 3, "actor", 500 * megabyte)]
    found = _memory(Watch([*small, *large, *other]), "load", Commits([1000.0, 1040.0], [1, 2]))
    assert found == {"peak_mb": 99, "growth_mb": 72 - 51, "processes": 2}
    assert _memory(Watch(), "write", Commits([1000.0, 1040.0], [1, 2])) is None


def test_the_cpu_time_of_an_image_leaves_the_start_out() -> None:
    watch = Watch(used=[(990.0, 0.0), (1000.0, 50.0), (1030.0, 80.0), (1050.0, 120.0)])
    assert _steady_cpu(watch, Commits([1000.0, 1040.0], [100, 600])) == pytest.approx((100 - 50) / 500)


def test_every_image_of_the_lake_is_another_and_can_be_read(tmp_path: Path) -> None:
    _store_images(f"{tmp_path}/", 16, range(95, 215))
    files = list(tmp_path.glob("dt=*/*.jpg"))
    assert len({file.read_bytes() for file in files}) == 120
    with Image.open(files[0]) as image:
        assert image.size == (16, 16)
