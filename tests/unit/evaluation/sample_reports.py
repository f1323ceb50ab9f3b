"""Reports of evaluations as pages show them, with something in every part."""

from __future__ import annotations

import numpy as np

from masklake.evaluation.pictures import Shown
from masklake.evaluation.report import BY_CLASS, UNITS, Report
from masklake.evaluation.scoring import Judged
from masklake.pages.cards import LegendEntry, Painting
from masklake.pages.names import Name
from masklake.schema import Task

SCORES = {
    "panoptic": {"pq": 0.5, "sq": 0.75, "rq": 2 / 3, "things": {"pq": 0.25}, "stuff": {"pq": 0.75}},
    "semantic": {"miou": 0.5, "pixel_accuracy": 0.75},
    "instance": {"ap": 0.5, "ap50": 0.75},
}


def report_of(task: str, classes: int = 40) -> Report:
    """What an evaluation of `task` may say: classes that are confused and one that never occurred, names that do not match, misses."""
    names = BY_CLASS[Task(task)]
    unit = UNITS[Task(task)]
    matrix = np.eye(classes, classes + 1, dtype=int) * 300 + 1
    matrix[1] = 0
    judged = [
        {"label": f"class {index}", "truth": [f"class {index}"], "true": 9, "predicted": 8, **dict.fromkeys(names, index / classes)}
        for index in range(classes - 1)
    ]
    return {
        "task": Task(task),
        "scores": SCORES[task],
        "images": {"truth": 204, "scored": 3, "missed": 201, "table_only": 1, "matched_by_file_name_alone": 0},
        "table": "s3://lake/masks",
        "table_version": 7,
        "truth": "s3://lake/truth",
        "truth_format": "label-maps",
        "where": "dt = '2026-11-22'",
        "answers": [{"model": "demo", "model_revision": "abc"}],
        "unit": unit,
        "classes": [*judged, {"label": "never", "truth": ["never"], "true": 0, "predicted": 0}],
        "unmatched": {
            "truth": [{"label": "auto", "truth": ["car"], "true": 3}],
            "table": [{"label": f"label {number}", "segments": number} for number in range(201)],
            "not_judged": ["void"],
        },
        "missed": [{"image": f"{number}.jpg", "reason": "the table has no row of it"} for number in range(201)],
        "confusion": {"unit": unit, "matrix": matrix.tolist()},
    }


def shown(readable: bool = True) -> Shown:
    """An image with what is true and what was predicted."""
    image, layer = np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6, 4), np.uint8)
    truth = Painting(
        layer, (LegendEntry("cat", (255, 0, 16), 1.0, 2), LegendEntry("background", None, 1.0, 1)), (Name("cat", (255, 0, 16)),)
    )
    prediction = Painting(layer, (), ())
    difference = Painting(layer, (), (Name("cat missed", (0, 0, 255), small=False),))
    return Shown(Judged(0.25, 0, "a", "s3://lake/images/a.jpg"), image, truth, prediction, difference, 0.25, 0.0, readable)
