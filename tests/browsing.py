"""A small table with its pictures, to look at: two days, two models, a failed image, hostile names and labels."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from masklake import storage
from masklake.errors import ErrorCode, ImageFailure
from masklake.table.append import Table
from masklake.table.rows import Answer, build_rows
from masklake.table.write import write_rows
from tests.answers import Segment, images, rectangle, segment, stamp

HEIGHT, WIDTH = 60, 80
HOSTILE = "<img src=x onerror=window.pwned=1>"
LABELS = {0: "person", 1: "dog", 2: "sky", 3: HOSTILE}


def part(number: int, label_id: int, share: float, score: float, left: float = 0.0) -> Segment:
    """A segment as high as the picture that covers this share of it, from a share of its width on."""
    columns = slice(round(left * WIDTH), round((left + share) * WIDTH))
    made = segment(number, rectangle(HEIGHT, WIDTH, slice(0, HEIGHT), columns), label_id)
    return replace(made, label=LABELS[label_id], score=score)


ANSWERS: dict[str, Answer] = {
    "dt=2026-11-21/a.png": [part(1, 0, 0.5, 0.9), part(2, 2, 0.25, 0.5, 0.5)],
    "dt=2026-11-21/b.png": [part(1, 0, 0.2, 0.55), part(2, 1, 0.05, 0.95, 0.3)],
    "dt=2026-11-22/c.png": [part(1, 0, 0.05, 0.4), part(2, 1, 0.5, 0.8, 0.2)],
    f"dt=2026-11-22/{HOSTILE}.png": [part(1, 3, 0.25, 0.7)],
    "dt=2026-11-22/empty.png": [],
    "dt=2026-11-22/broken.png": ImageFailure(ErrorCode.TRUNCATED, "the file ends early"),
}
"""What the later model says."""

EARLIER: dict[str, Answer] = {
    "dt=2026-11-21/a.png": [part(1, 0, 0.5, 0.8), part(2, 2, 0.25, 0.5, 0.5)],
    "dt=2026-11-21/b.png": [part(1, 1, 0.2, 0.8)],
    "dt=2026-11-22/c.png": [part(1, 0, 0.05, 0.9), part(2, 1, 0.25, 0.8, 0.2)],
}


def build(folder: Path | str) -> str:
    """The table and its pictures below a folder, or a URI; the table's URI."""
    random = np.random.default_rng(0)
    for name in ANSWERS:
        small = Image.fromarray(random.integers(0, 255, (HEIGHT // 20, WIDTH // 20, 3), np.uint8))
        file = io.BytesIO()
        small.resize((WIDTH, HEIGHT)).save(file, "PNG")
        storage.write_bytes(uri(folder, name), file.getvalue())
    storage.write_bytes(f"{_root(folder)}/secret.png", file.getvalue())
    _commit(folder, "run-1", EARLIER, "f-old")
    _commit(folder, "run-2", ANSWERS, "f-new")
    return f"{_root(folder)}/masks"


def uri(folder: Path | str, name: str) -> str:
    """What the table calls an image."""
    return f"{_root(folder)}/images/{name}"


def _root(folder: Path | str) -> str:
    return f"file://{folder}" if isinstance(folder, Path) else folder


def _commit(folder: Path | str, run: str, given: Mapping[str, Answer], fingerprint: str) -> None:
    table = Table.open_or_create(f"{_root(folder)}/masks", ("dt",))
    table.begin_run(f"{_root(folder)}/images/", run)
    days = [name.partition("dt=")[2].partition("/")[0] for name in given]
    size = {"height": [HEIGHT] * len(given), "width": [WIDTH] * len(given)}
    named = images([uri(folder, name) for name in given], ["panoptic"], dt=days, **size)
    origin = replace(stamp(run, int(run[-1])), model=f"model {fingerprint}", fingerprints={"panoptic": fingerprint})
    rows = build_rows(named, [{"panoptic": answer} for answer in given.values()], origin, ("dt",))
    table.commit(write_rows(rows, table.uri, ("dt",), run))
    table.finish_run()
