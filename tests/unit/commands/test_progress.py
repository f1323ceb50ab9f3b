"""Lines of a log: which run and table, null for what nobody knows yet."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from masklake.commands.progress import line
from masklake.segment.progress import State

NOW = datetime(2026, 11, 27, 2, 0, 0, 500_000, tzinfo=UTC)
RUN = {"run_id": "20261127T020000-abcdef", "table": "s3://lake/masks"}


def test_a_line_says_when_which_run_and_how_far() -> None:
    told = line(NOW, RUN, State("segmenting", planned=100, images=40, failed=1, seconds=10.0, warm=20))
    assert json.loads(json.dumps(told)) == {
        "ts": "2026-11-27T02:00:00.500+00:00",
        "level": "info",
        "event": "progress",
        **RUN,
        "phase": "segmenting",
        "images": 40,
        "planned": 100,
        "errors": 1,
        "images_per_second": 2.0,
        "eta_seconds": 30,
    }


def test_what_nobody_knows_yet_is_null_and_not_zero() -> None:
    told = line(NOW, RUN, State("starting the model", planned=100))
    assert (told["images_per_second"], told["eta_seconds"]) == (None, None)
    assert line(NOW, RUN, State("listing"))["planned"] is None
