"""`--least-certain`: by the scores, by what other models said, and not all of one kind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from masklake import storage
from masklake.table.asked import FACTS, unasked
from tests.answers import FINGERPRINTS, rectangle, stamp
from tests.exports import HEIGHT, ROOT, WIDTH, commit, export, labelled

HALF = rectangle(HEIGHT, WIDTH, slice(0, 15), slice(0, WIDTH))
REST = rectangle(HEIGHT, WIDTH, slice(15, 30), slice(0, WIDTH))


def answers(scores: Mapping[str, tuple[float, float]], labels: tuple[int, int] = (0, 2)) -> dict[str, dict[str, list[object]]]:
    """Two segments of equal areas, with these scores."""
    return {
        name: {"panoptic": [labelled(1, HALF, labels[0], first), labelled(2, REST, labels[1], second)]}
        for name, (first, second) in scores.items()
    }


def picked(table: str, folder: Path, wanted: int, form: str = "coco-instances", **settings: Any) -> set[str]:
    summary = export(table, folder / f"{form}-{wanted}", form, least_certain=wanted, task="panoptic", **settings)
    assert summary["rows"] == wanted
    images = json.loads((folder / f"{form}-{wanted}" / "instances.json").read_text())["images"]
    return {image["coco_url"].removeprefix(ROOT) for image in images}


@pytest.mark.slow
def test_the_least_certain_by_area_come_first(tmp_path: Path) -> None:
    table = str(tmp_path / "masks")
    scores = {"sure.jpg": (0.99, 0.99), "undecided.jpg": (0.5, 0.99), "weak.jpg": (0.7, 0.9), "absent.jpg": (0.02, 0.99)}
    given = answers(scores)
    given["empty.jpg"] = {"panoptic": []}
    commit(table, "run-1", given)  # type: ignore[arg-type]
    # 1 - |2s - 1|, mean of both halves: 0.02, 0.51, 0.4, 0.03; none at all counts 0.5
    assert picked(table, tmp_path, 1) == {"undecided.jpg"}
    assert picked(table, tmp_path, 3) == {"undecided.jpg", "empty.jpg", "weak.jpg"}


@pytest.mark.slow
def test_images_on_which_models_disagree_count(tmp_path: Path) -> None:
    table = str(tmp_path / "masks")
    sure = dict.fromkeys(("agreed.jpg", "disputed.jpg", "weak.jpg"), (0.99, 0.99)) | {"weak.jpg": (0.9, 0.9)}
    other = replace(stamp("run-0", 1), fingerprints={"panoptic": "another"})
    before = answers(sure)
    before["disputed.jpg"]["panoptic"] = [labelled(1, HALF, 1, 0.99), labelled(2, REST, 2, 0.99)]  # a dog, where it is a person now
    commit(table, "run-0", before, origin=other)  # type: ignore[arg-type]
    commit(table, "run-1", answers(sure), minute=2)  # type: ignore[arg-type]
    # they agree on the sky, 615 of 615 + 2 * 615 pixels: doubt 2/3; the weak one has 0.2
    assert picked(table, tmp_path, 1) == {"disputed.jpg"}
    assert picked(table, tmp_path, 2) == {"disputed.jpg", "weak.jpg"}


@pytest.mark.slow
def test_on_what_a_model_was_not_asked_it_does_not_disagree(tmp_path: Path) -> None:
    table = str(tmp_path / "masks")
    names = dict.fromkeys(("grown.jpg", "weak.jpg"), (0.99, 0.99)) | {"weak.jpg": (0.9, 0.9)}
    before = {name: {"panoptic": [labelled(1, HALF, 0, 0.99)]} for name in names}
    other = replace(stamp("run-0", 1), fingerprints={"panoptic": "another"})
    commit(table, "run-0", before, origin=other)
    commit(table, "run-1", answers(names), minute=2)  # type: ignore[arg-type]
    assert picked(table, tmp_path / "unsaid", 1) == {"grown.jpg"}  # half of it, the sky, is new: doubt 0.5; the weak one has 0.2
    for fingerprint, concepts in (("another", ["person"]), (FINGERPRINTS["panoptic"], ["person", "sky"])):
        facts = {"task": "panoptic", "facts": {"answer": {"concepts": concepts}}}
        storage.write_bytes(f"{table}/{FACTS}{fingerprint}.json", json.dumps(facts).encode())
    (tmp_path / "masks" / FACTS / "torn.json").write_text("{")
    assert unasked(storage.normalise(table)).to_pylist() == [
        {"mine": one, "theirs": two, "label": "sky"} for one, two in permutations(sorted(["another", FINGERPRINTS["panoptic"]]))
    ]
    assert picked(table, tmp_path / "said", 1) == {"weak.jpg"}


def test_they_are_spread_over_classes_and_days(tmp_path: Path) -> None:
    table = str(tmp_path / "masks")
    many = answers({f"dt=2026-11-21/person-{number}.jpg": (0.5, 0.99) for number in range(3)})
    many |= answers({"dt=2026-11-21/dog.jpg": (0.6, 0.99)}, labels=(1, 2))
    many |= answers({"dt=2026-11-22/person.jpg": (0.65, 0.99)})
    commit(table, "run-1", many)  # type: ignore[arg-type]
    found = picked(table, tmp_path, 3)
    assert {"dt=2026-11-21/dog.jpg", "dt=2026-11-22/person.jpg"} < found
    assert export(table, tmp_path / "flat", "segments", least_certain=2, task="panoptic")["segments"] == 4
