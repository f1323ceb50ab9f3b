from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from masklake import reading
from masklake.errors import Refused
from masklake.table.masks import palette
from tests.answers import rectangle
from tests.exports import HEIGHT, LABELS, WIDTH, answers, commit, export, files, labelled, newest

HALF = rectangle(HEIGHT, WIDTH, slice(0, 15), slice(0, WIDTH))


@pytest.mark.parametrize(("task", "void"), [("semantic", None), ("panoptic", 254)])
def test_a_pixel_holds_its_label_id(table: str, tmp_path: Path, task: str, void: int | None) -> None:
    export(table, tmp_path, "label-maps", task=task, void=void)
    for name, row in newest(table, task).items():
        if name.startswith("dt=2026-11-21/b."):
            continue  # b.jpg and b.png: named in full
        picture = Image.open((tmp_path / "label-maps" / name).with_suffix(".png"))
        ids, labels = reading.id_map(row)
        expected = np.full(ids.shape, void or 255)
        for segment_id, label_id in labels.items():
            expected[ids == segment_id] = label_id
        assert picture.mode == "P"
        assert np.array_equal(np.asarray(picture), expected)
    told = json.loads((tmp_path / "labels.json").read_text())
    assert told == {"void": void or 255, "bits": 8, "labels": {str(label_id): label for label_id, (label, _) in LABELS.items()}}


def test_people_see_the_colours_of_the_gallery(table: str, tmp_path: Path) -> None:
    background = replace(labelled(2, ~HALF, 9), label="background")
    commit(str(tmp_path / "masks"), "run-1", {"a.jpg": {"semantic": [labelled(1, HALF, 3), background]}, "b.jpg": {"semantic": []}})
    export(str(tmp_path / "masks"), tmp_path / "out", "label-maps")
    seen = np.asarray(Image.open(tmp_path / "out" / "label-maps" / "a.png").convert("RGB"))
    assert (seen[HALF] == palette(3)).all()
    assert (seen[~HALF] == 0).all()
    void = Image.open(tmp_path / "out" / "label-maps" / "b.png")
    assert (np.asarray(void) == 255).all()
    assert np.asarray(void.convert("RGB")).std(axis=2).max() < 20  # light, and of no label's colour
    assert np.asarray(void.convert("RGB")).min() > 180


def test_what_a_filter_leaves_out_is_void(table: str, tmp_path: Path) -> None:
    export(table, tmp_path, "label-maps", label=("sky",), where="dt = '2026-11-22'")
    assert files(tmp_path) == {"_export.json", "labels.json", "label-maps/c.tar.png", "label-maps/d.png"}
    row = newest(table, "semantic")["dt=2026-11-22/d"]
    sky = next(mask for mask, segment in zip(reading.masks(row), row["segments"], strict=True) if segment["label"] == "sky")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "label-maps" / "d.png")), np.where(sky, 2, 255))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("label_id", "settings", "message"),
    [
        (300, {}, r"--bits 8: label id 300 \('label 300'\) does not fit: use --bits 16"),
        (255, {}, r"--void 255: is the label id of 'label 255': use --bits 16, or another --void"),
        (7, {"void": 7, "bits": 16}, r"--void 7: is the label id of 'road': use another --void"),
    ],
)
def test_a_label_id_that_has_no_place_is_refused(tmp_path: Path, label_id: int, settings: dict[str, Any], message: str) -> None:
    commit(str(tmp_path / "masks"), "run-1", {"a.jpg": {"semantic": [labelled(1, HALF, label_id)]}})
    with pytest.raises(Refused, match=message):
        export(str(tmp_path / "masks"), tmp_path / "out", "label-maps", **settings)
    assert not files(tmp_path / "out")


def test_sixteen_bits_hold_more_labels(tmp_path: Path) -> None:
    commit(str(tmp_path / "masks"), "run-1", {"a.jpg": {"semantic": [labelled(1, HALF, 300)]}})
    export(str(tmp_path / "masks"), tmp_path / "out", "label-maps", bits=16)
    picture = Image.open(tmp_path / "out" / "label-maps" / "a.png")
    assert picture.mode == "I;16"
    assert np.array_equal(np.asarray(picture), np.where(HALF, 300, 65_535))


def test_instances_overlap_and_are_refused(table: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="--task instance: masks of such an answer may overlap"):
        export(table, tmp_path, "label-maps", task="instance")


def test_labels_of_two_models_that_do_not_agree_are_refused(tmp_path: Path) -> None:
    other = replace(labelled(1, HALF, 0), label="nobody")
    commit(str(tmp_path / "masks"), "run-1", {"a.jpg": answers("a"), "b.jpg": {**answers("b"), "semantic": [other]}})
    with pytest.raises(Refused, match=r"label id 0 is .* here and .* in another row: .* choose one by --model or --fingerprint"):
        export(str(tmp_path / "masks"), tmp_path / "out", "label-maps")
    assert not {"_export.json", "labels.json"} & files(tmp_path / "out")
