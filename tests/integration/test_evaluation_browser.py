"""The page of an evaluation as headless Chromium lays it out: at desktop and phone width, with hostile text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from masklake.demo.scenes import LABELS, THING_LABEL_IDS, render, sample_scene
from masklake.evaluation.run import PAGE
from masklake.table.rows import Answer
from tests.evaluations import commit, evaluate, named
from tests.exports import export
from tests.integration.test_gallery_browser import CHROMIUM, look

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on PATH (Debian: apt-get install chromium)")

HOSTILE = "\"><script>parent.pwned = 1</script><img src=x onerror='parent.pwned = 1'>"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Scenes against answers that are moved; one image is missed, and one label is hostile and endless."""
    folder = tmp_path_factory.mktemp("evaluation")
    names = {
        label_id: f"{label}{HOSTILE if label == 'sky' else ''}{'y' * 300 if label == 'ball' else ''}" for label_id, label in LABELS.items()
    }
    right: dict[str, tuple[Answer, tuple[int, int]]] = {}
    moved: dict[str, tuple[Answer, tuple[int, int]]] = {}
    for seed in range(5):
        scene = render(sample_scene(seed), 120, 160)
        path = folder / f"{'long-' * 20 if seed == 1 else ''}{seed}.png"
        Image.fromarray(scene.image).save(path)
        for answers, ids in ((right, scene.ids), (moved, np.roll(scene.ids, 4, axis=1))):
            segments = [
                named(number, ids == number, names[label_id], label_id in THING_LABEL_IDS)
                for number, label_id in enumerate(scene.label_ids, 1)
            ]
            answers[f"file://{path}"] = (segments, (120, 160))
    moved.popitem()
    commit(folder / "truth", "panoptic", right)
    commit(folder / "masks", "panoptic", moved)
    export(str(folder / "truth"), folder / "export", "coco-panoptic")
    mapping = folder / "map.yaml"
    mapping.write_text(f"cone: '{'z' * 400}'\nwater: null\n")
    evaluate(folder / "masks", folder / "export", categories=str(mapping), output=str(folder / "out"))
    return (folder / "out" / PAGE).read_text()


def test_fits_every_width_and_shows_all_pictures(page: str, tmp_path: Path) -> None:
    widths = [1440, 800, 390, 320]
    found = look(page, tmp_path, *widths)
    assert [one["scroll"] for one in found] == widths
    assert [one["pictures"] for one in found] == [12] * 4
    assert [one["background"] for one in found] == ["rgb(244, 245, 247)"] * 4


def test_the_worst_images_can_be_chosen_by_class(page: str, tmp_path: Path) -> None:
    """Each choice says how many of the four pictures it leaves, and some leave fewer."""
    (found,) = look(page, tmp_path, 1440)
    told = [(int(name.rpartition(" ")[2]), visible) for name, visible in found["ofKinds"]]
    assert told[0] == (4, 4)
    assert all(said == visible for said, visible in told)
    assert len(told) > 3
    assert min(visible for _, visible in told) < 4
    assert found["large"][0][0] > found["small"][0][0] == found["smallAgain"][0][0]


def test_hostile_names_are_text(page: str, tmp_path: Path) -> None:
    (found,) = look(page, tmp_path, 1440)
    assert (found["pwned"], found["scripts"]) == (False, 0)
    assert "&lt;script&gt;" in page
    assert "1 of 5 images" not in page
    assert "the table has no row of it" in page
