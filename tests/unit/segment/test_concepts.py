"""Concepts that are added or taken away: only what the table does not hold is asked, and rows are those of a run for all from the start."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import masklake
from masklake.inference.sam3 import Sam3
from masklake.inference.segments import Segment
from masklake.segment.concepts import Held, joined, read_held
from masklake.upkeep.compact import compact
from masklake.upkeep.upkeep import UpkeepTable
from tests.unit.inference import tiny_sam3

IMAGES = 4
OF_THE_RUN = ("run_id", "run_order", "processed_at", "fingerprint", "image_modified", "image_etag")
ALL = ("dog", "person", "yellow school bus")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sam3.write(tmp_path_factory.mktemp("sam3"))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the parts of every model that is loaded from now on are called."""
    counted: Counter[str] = Counter()
    prepare = Sam3.prepare

    def watched(self: Sam3, module: Any, *arguments: Any) -> None:
        for name in ("text_encoder", "vision_encoder", "detr_decoder"):
            getattr(module, name).register_forward_hook(lambda *_, name=name: counted.update([name]))
        prepare(self, module, *arguments)

    monkeypatch.setattr(Sam3, "prepare", watched)
    return counted


def draw(lake: Path, number: int, seed: int) -> None:
    """An image of noise over a gradient."""
    lake.mkdir(exist_ok=True)
    ramp = np.linspace(0, 200, 60 + number)[None, :, None] * np.ones((50, 1, 3))
    pixels = (ramp + np.random.default_rng(seed).integers(0, 56, (50, 60 + number, 3))).astype(np.uint8)
    Image.fromarray(pixels).save(lake / f"{number}.png")


def look(lake: Path, table: Path, model: Path, concepts: Sequence[str], **more: Any) -> dict[str, Any]:
    """One run on the lake."""
    return masklake.segment(
        input=str(lake),
        output=str(table),
        model=str(model),
        tasks=["instance"],
        concepts=list(concepts),
        score_threshold=0.02,
        batch_size=1,
        local=True,
        gallery_images=0,
        device="cpu",
        **more,
    )


def newest(table: Path) -> dict[str, dict[str, Any]]:
    """The newest row of each image, without what tells one run from another."""
    rows = masklake.open_table(str(table)).newest()
    return {row["image_uri"].rpartition("/")[2]: {key: value for key, value in row.items() if key not in OF_THE_RUN} for row in rows}


def of_some(row: dict[str, Any], concepts: Sequence[str]) -> dict[str, Any]:
    """What a row for all concepts says of some: the others left out, ids counted anew."""
    if row["segments"] is None:
        return row
    ids = {concept: number for number, concept in enumerate(sorted(concepts))}
    kept = [segment for segment in row["segments"] if segment["label"] in ids]
    return {**row, "segments": [{**each, "segment_id": n, "label_id": ids[each["label"]]} for n, each in enumerate(kept, 1)]}


@pytest.mark.slow
def test_an_added_concept_is_asked_alone_and_one_that_is_taken_away_not_at_all(
    folder: Path, tmp_path: Path, calls: Counter[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "masklake")
    lake, table = tmp_path / "lake", tmp_path / "masks"
    for number in range(IMAGES):
        draw(lake, number, number)
    (lake / "broken.png").write_bytes(b"no image")
    look(lake, table, folder, ["person"])
    assert calls == {"text_encoder": 1, "vision_encoder": IMAGES, "detr_decoder": IMAGES}
    draw(lake, 1, 77)  # changed since
    draw(lake, IMAGES, 78)  # and one more

    planned = look(lake, table, folder, ["yellow school bus", "person"], dry_run=True)
    assert (planned["plan"]["todo_images"], planned["plan"]["held"]) == (IMAGES + 2, ((IMAGES - 1, 1),))
    assert any(f"{IMAGES - 1} images: 1 of 2 concepts in the table already" in line for line in caplog.messages)
    assert not any("ATTENTION" in line for line in caplog.messages)

    calls.clear()
    done = look(lake, table, folder, ["yellow school bus", "person"])
    assert (done["images"], done["errors"]) == (IMAGES + 2, 1)
    asked = (IMAGES - 1) + 2 * 2  # those that changed or came are asked both
    assert calls == {"text_encoder": 2, "vision_encoder": IMAGES + 1, "detr_decoder": asked}
    fresh = tmp_path / "fresh"
    look(lake, fresh, folder, ALL)
    expected = newest(fresh)
    assert expected["broken.png"]["error_code"] == "not_an_image"
    assert {label["label"] for label in expected["0.png"]["segments"]} == {*ALL}
    assert newest(table) == {name: of_some(row, ["person", "yellow school bus"]) for name, row in expected.items()}

    (lake / "broken.png").unlink()  # an error is no answer: it would be looked at again
    del expected["broken.png"]
    calls.clear()
    look(lake, table, folder, ["yellow school bus"])
    assert not calls
    assert newest(table) == {"broken.png": newest(table)["broken.png"]} | {
        name: of_some(row, ["yellow school bus"]) for name, row in expected.items()
    }
    assert look(lake, table, folder, ["yellow school bus"])["outcome"] == "nothing to do"

    look(lake, table, folder, ["dog"], limit=2)  # of 0.png and 1.png
    with UpkeepTable.job(str(table), "compact-1") as job:
        compact(job, 1 << 20)
    calls.clear()
    look(lake, table, folder, ALL)  # put together of several rows
    assert calls == {"text_encoder": 3, "vision_encoder": IMAGES - 1, "detr_decoder": IMAGES - 1}
    assert newest(table) == {"broken.png": newest(table)["broken.png"]} | expected


def test_of_several_rows_as_few_as_can_be_are_read() -> None:
    answered = [frozenset("ab"), frozenset("a"), frozenset("bc"), frozenset()]
    held = Held(("a", "b", "c", "d"), ["1", "2", "3", "4"], answered, ["x"], [])
    assert held.shares([0, 1, 2]) == {0: ["a", "b"], 2: ["c"]}
    assert held.shares([1, 2]) == {2: ["b", "c"], 1: ["a"]}
    assert held.shares([3]) == {}


def test_segments_are_put_together_by_score_and_numbered_anew() -> None:
    def one(number: int, label: str, score: float) -> Segment:
        return Segment(number, {"dog": 0, "cow": 0}[label], label, True, score, 4, (0, 0, 2, 2), b"04", score)

    known = [{**asdict(one(1, "cow", 0.9)), "bbox": [0, 0, 2, 2]}, {**asdict(one(2, "cow", 0.5)), "bbox": [0, 0, 2, 2]}]
    found = joined([replace(one(1, "dog", 0.7), label_id=1), replace(one(2, "dog", 0.5), label_id=1)], known, {0: "cow", 1: "dog"})
    assert [(each.segment_id, each.label_id, each.label, each.score) for each in found] == [
        (1, 0, "cow", 0.9),
        (2, 1, "dog", 0.7),
        (3, 0, "cow", 0.5),
        (4, 1, "dog", 0.5),
    ]
    assert all(each.bbox == (0, 0, 2, 2) for each in found)


def test_a_row_whose_file_is_gone_is_no_answer(tmp_path: Path) -> None:
    held = [{"path": "part-gone.parquet", "place": 0, "concepts": ["dog"]}]
    assert read_held(held, ["dog"], str(tmp_path), "run-1") == {}
    assert read_held(None, ["dog"], str(tmp_path), "run-1") == {}
