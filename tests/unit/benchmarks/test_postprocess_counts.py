"""How often a batch's post-processing makes the host wait for a GPU does not depend on how many images there are."""

from __future__ import annotations

import pytest

from jobs.benchmarks import postprocess_counts


@pytest.mark.parametrize(("task", "waits"), [("panoptic", 3), ("instance", 4)])
def test_a_batch_waits_as_often_as_an_image(task: str, waits: int) -> None:
    counts = [postprocess_counts.count(task, (61, 83), images) for images in (1, 4)]
    assert [each["together"]["waits_a_batch"] for each in counts] == [waits, waits]
    assert counts[1]["one_by_one"]["waits_a_batch"] == 4 * counts[0]["one_by_one"]["waits_a_batch"] > 2 * waits
    assert counts[1]["together"]["operations"] < counts[1]["one_by_one"]["operations"] / 2
    assert counts[1]["together"]["megabytes"] < counts[1]["one_by_one"]["megabytes"] / 2
