"""The loop with people in it: segment, evaluate, export what is worth correcting, learn from that, and segment again into the same
table, where the new answers are better than the old.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from masklake import reading
from masklake.commands import cli
from masklake.demo.scene_data import write_coco_panoptic
from masklake.demo.scenes import FIRST_TRAINING_SEED, HELD_OUT
from masklake.training.settings import FinetuneConfig
from tests import trainings
from tests.lakes import MODEL, rows_by_image

SCENES, POOL, CORRECTED, JUDGED = 24, 64, 48, 4
STEPS = 32


def swapped(folder: Path, seeds: range) -> Path:
    """Scenes that a program has saved as blue, green, red, in COCO's panoptic format: shapes are as they were, and so is truth, but what
    the demo model knows of colours misleads it.
    """
    write_coco_panoptic(str(folder), seeds, side=160)
    for path in (folder / "images").iterdir():
        pixels = np.asarray(Image.open(path))
        Image.fromarray(np.ascontiguousarray(pixels[..., ::-1])).save(path, quality=90)
    return folder


def corrected(pool: Path, exported: Path) -> tuple[Path, Path]:
    """The images of an export to CVAT as people correct them, in the JSON that CVAT exports as "COCO 1.0": exact masks; and a few of them
    apart, to be held out. A share would be, by a hash of the folder's path, which is another one each time.
    """
    truth = json.loads((pool / "panoptic.json").read_text())
    segments = {each["image_id"]: each for each in truth["annotations"]}
    tasks = {image.attrib["name"] for image in ElementTree.parse(exported / "annotations.xml").iter("image")}
    images = [image for image in truth["images"] if image["file_name"] in tasks]
    assert len(images) == len(tasks) == CORRECTED
    annotations: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in images}
    for image in images:
        ids = np.asarray(Image.open(pool / "panoptic" / segments[image["id"]]["file_name"]))[..., 0]
        for segment in segments[image["id"]]["segments_info"]:
            run_lengths = coco_mask.encode(np.asfortranarray(ids == segment["id"]))
            counts = {"size": run_lengths["size"], "counts": run_lengths["counts"].decode()}
            place = {"id": segment["id"] + 1000 * image["id"], "image_id": image["id"], "bbox": coco_mask.toBbox(run_lengths).tolist()}
            more = {"category_id": segment["category_id"], "area": int(coco_mask.area(run_lengths)), "iscrowd": 0, "segmentation": counts}
            annotations[image["id"]].append({**place, **more})
    learned, judged = exported / "instances_default.json", exported / "instances_judged.json"
    for path, some in ((learned, images[JUDGED:]), (judged, images[:JUDGED])):
        of_them = [each for image in some for each in annotations[image["id"]]]
        path.write_text(json.dumps({"images": some, "annotations": of_them, "categories": truth["categories"]}))
    return learned, judged


@pytest.mark.timeout(900)
def test_what_people_correct_of_a_table_makes_the_next_table_better(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lake = swapped(tmp_path / "lake" / "judged", HELD_OUT[:SCENES])
    pool = swapped(tmp_path / "lake" / "pool", range(FIRST_TRAINING_SEED, FIRST_TRAINING_SEED + POOL))
    table, exported, mine = str(tmp_path / "masks"), tmp_path / "to-correct", str(tmp_path / "mine")

    def run(*arguments: str) -> dict[str, Any]:
        code = cli.main([*arguments])
        said = capsys.readouterr()
        assert code == 0, said.err
        found: dict[str, Any] = json.loads(said.out.splitlines()[-1])
        return found

    def segmented(model: str) -> dict[str, Any]:
        places = ["--input", str(tmp_path / "lake" / "*" / "images") + "/", "--output", table]
        return run("segment", "--model", model, *places, "--tasks", "panoptic")

    def evaluated(*arguments: str) -> dict[str, Any]:
        found = run("evaluate", "--table", table, "--truth", str(lake / "panoptic.json"), *arguments)
        assert found["images"]["scored"] == SCENES
        assert not found["missed"]
        scores: dict[str, Any] = found["scores"]
        return scores

    assert segmented(str(MODEL))["images"] == SCENES + POOL
    before = evaluated()
    choice = ["--where", "image_uri LIKE '%/pool/images/%'", "--least-certain", str(CORRECTED)]
    run("export", "--table", table, "--format", "cvat", "--copy-images", *choice, "--output", str(exported))
    learned, judged = corrected(pool, exported)
    told = trainings.train(
        FinetuneConfig(
            truth=str(learned),
            validation_truth=str(judged),
            images=str(exported / "images"),
            model=str(MODEL),
            output=mine,
            steps=STEPS,
            validate_every=STEPS,
            rate=5e-4,
            backbone_rate=1.0,
            schedule="one-cycle",
            scale_min=1.0,
            scale_max=1.0,
            clip=5.0,
        )
    )
    assert segmented(mine)["images"] == SCENES + POOL
    after = evaluated()

    # Both answers of each image stay, and are told apart; readers get the newer one.
    assert set(rows_by_image(table).values()) == {2}
    assert evaluated("--model", str(MODEL)) == before
    assert evaluated("--model", mine) == after
    newest = list(reading.open_table(table).newest(task="panoptic", columns=["model", "fingerprint", "status"]))
    assert [(row["model"], row["status"]) for row in newest] == [(mine, "ok")] * (SCENES + POOL)
    assert len({row["fingerprint"] for row in newest}) == 1

    assert segmented(mine)["outcome"] == "nothing to do"
    assert set(rows_by_image(table).values()) == {2}

    # A loop that took the old weights, or scored the old rows, would give the same figures twice.
    print(before["pq"], after["pq"], told[-1])
    assert before["pq"] < 0.55
    assert after["pq"] > before["pq"] + 0.15
