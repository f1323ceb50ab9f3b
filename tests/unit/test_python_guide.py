"""The programs under "From Python" in jobs/README.md, run as they are printed on a small lake."""

from __future__ import annotations

import doctest
import importlib
import inspect
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import masklake
from masklake import datasets
from masklake.segment import segment as job
from masklake.storage import normalise
from masklake.table.append import Table
from masklake.table.read import Newest
from masklake.table.rows import build_rows
from masklake.table.write import write_rows
from tests.answers import images, rectangle, segment, stamp
from tests.lakes import MODEL, scene
from tests.lakes import ROOT as REPOSITORY

SECTION = (REPOSITORY / "jobs" / "README.md").read_text(encoding="utf-8").split("\n## From Python\n")[1]
PROGRAMS = re.findall(r"^```python\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A photograph, and a table of ten with a segment each."""
    monkeypatch.chdir(tmp_path)
    names = ["photo.jpg", *(f"{number}.jpg" for number in range(9))]
    for name in names:
        (tmp_path / name).write_bytes(scene(0))
    mask = rectangle(512, 512, slice(0, 100), slice(0, 50))
    asked = images([normalise(name) for name in names], width=[512] * 10, height=[512] * 10)
    made = Table.open_or_create(str(tmp_path / "masks"), ["task"])
    made.begin_run(normalise(str(tmp_path)), "run-1")
    rows = build_rows(asked, [{"panoptic": [segment(1, mask)]}] * 10, stamp("run-1"), ["task"])
    made.commit(write_rows(rows, made.uri, ["task"], "run-1"))
    made.finish_run()
    return tmp_path


@pytest.mark.slow
def test_the_programs_run_and_give_what_their_comments_say(lake: Path) -> None:
    names: dict[str, Any] = {}
    for program in PROGRAMS:
        text = program.replace("facebook/mask2former-swin-tiny-coco-panoptic", str(MODEL)).replace("s3://lake/masks", str(lake / "masks"))
        exec(compile(text, "README.md", "exec"), names)
        if "coco" in names:
            assert names["page"].count("<img") == 2
            assert names["coco"]["annotations"]
            assert names.pop("picture").shape == (512, 512, 3)
            assert all(piece.shape[2] == 4 for piece in names.pop("pieces"))
            del names["coco"]
    assert names["frame"].shape == (10, 3)
    assert (names["masks"].shape, names["picture"].shape, names["pieces"][0].shape) == ((1, 512, 512), (512, 512, 3), (100, 50, 4))
    assert names["labels"] == ["label 3"]
    assert set(names["sample"]) == {"image", "masks", "labels", "boxes", "scores", "isthing", "label_map", "image_uri"}
    assert len(names["dataset"]) == 10
    assert {sample["image_uri"] for sample in names["samples"]} < {result.name for result in masklake.open_table("masks").results()}


@pytest.mark.parametrize("module", ["results"])
def test_examples_in_docstrings_hold(module: str) -> None:
    found = doctest.testmod(importlib.import_module(f"masklake.{module}"))
    assert found.attempted
    assert not found.failed


PUBLIC: list[Any] = [
    *(masklake.load, masklake.open_table, job, masklake.masks, masklake.id_map, masklake.overlay, masklake.cutouts),
    *(masklake.Model, masklake.Model.__call__, masklake.Model.stream, masklake.Result),
    *(vars(masklake.Result)["masks"].fget, masklake.Result.overlay, masklake.Result.cutouts, masklake.Result.to_coco),
    *(masklake.Table.newest, masklake.Table.newest_arrow, masklake.Table.rows, masklake.Table.tasks, masklake.Table.results),
    *(masklake.Table.dataset, masklake.Table.stream, Newest.to_arrow, Newest.to_polars, Newest.to_pandas),
    *(datasets.MaskDataset, datasets.MaskStream, datasets.MaskStream.shard),
]


@pytest.mark.slow
def test_every_function_has_an_example_and_it_runs(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after another, as somebody would who reads them, with what the words around them stand for."""
    (lake / "photos").mkdir()
    (lake / "photos" / "a.jpg").write_bytes(scene(1))
    table, model = masklake.open_table("masks"), masklake.load(MODEL)
    row, result = next(iter(table.newest(task="panoptic"))), model("photo.jpg")
    stream = table.stream("panoptic")
    given = {
        "masklake": masklake,
        "table": table,
        "model": model,
        "row": row,
        "result": result,
        "stream": stream,
        "rank": 0,
        "world_size": 2,
    }
    given |= {"torch": torch, "Path": Path, "Image": Image, "np": np, "json": json}
    given |= {"MaskDataset": datasets.MaskDataset, "MaskStream": datasets.MaskStream}
    meant = {"facebook/mask2former-swin-tiny-coco-panoptic": str(MODEL), "s3://lake/images/": str(lake / "photos")}
    meant |= {"dt = '2026-11-22'": "height = 512", '"instance"': '"panoptic"', '"semantic"': '"panoptic"'}  # what the table has
    for each in PUBLIC:
        text = example(each)
        assert text, f"{each.__qualname__} has no example"
        if text.startswith(">>>"):
            continue  # the test above runs it
        output = str(lake / "new") if each is job else "masks"
        for name, place in {**meant, "s3://lake/masks": output}.items():
            text = text.replace(name, place)
        exec(compile(text, each.__qualname__, "exec"), dict(given))
    assert masklake.open_table(str(lake / "new")).tasks() == ["panoptic"]


def example(function: Any) -> str:
    """What stands under "Example:" in a docstring."""
    found = re.search(r"^Example:\n((?:    .*\n?|\n)+)", inspect.cleandoc(function.__doc__ or ""), re.MULTILINE)
    return inspect.cleandoc("\n" + found[1]) if found else ""
