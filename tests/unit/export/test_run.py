"""Which rows an export takes, what it says and refuses, and what its folder looks like."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from masklake.errors import MasklakeError, Refused
from masklake.export import formats
from tests.answers import stamp
from tests.exports import NAMES, ROOT, answers, commit, export, files

FORMATS = tuple(each.name for each in formats.FORMATS if each.name not in ("cutouts", "overlays"))  # these read the images


def images(folder: Path) -> list[str]:
    return [image["coco_url"].removeprefix(ROOT) for image in json.loads((folder / "instances.json").read_text())["images"]]


def test_the_summary_is_the_mark_of_a_complete_export(table: str, tmp_path: Path) -> None:
    summary = export(table, tmp_path, "coco-instances", min_score=0.25)
    assert json.loads((tmp_path / "_export.json").read_text()) == summary
    assert (summary["rows"], summary["root"], summary["min_score"]) == (5, ROOT, 0.25)
    assert [(each["task"], each["fingerprint"], each["rows"]) for each in summary["answers"]] == [("instance", "f-instance", 5)]


def test_a_condition_leaves_out_rows_and_shortens_names(table: str, tmp_path: Path) -> None:
    summary = export(table, tmp_path, "coco-instances", where="dt = '2026-11-22' AND width > 1")
    assert images(tmp_path) == [*NAMES[3:]]
    assert summary["root"] == f"{ROOT}dt=2026-11-22/"
    names = [image["file_name"] for image in json.loads((tmp_path / "instances.json").read_text())["images"]]
    assert names == ["c.tar.jpg", "d"]


@pytest.mark.slow
def test_rows_of_several_models_are_told_and_can_be_chosen_from(tmp_path: Path) -> None:
    table = str(tmp_path / "masks")
    commit(table, "run-1", {name: answers(name) for name in NAMES[:3]})
    newer = replace(stamp("run-2", 2), model="other", fingerprints={"panoptic": "p", "instance": "it's new", "semantic": "s"})
    commit(table, "run-2", {NAMES[2]: answers("anew")}, origin=newer)
    said: list[str] = []
    export(table, tmp_path / "both", "coco-instances", said)
    assert any(
        "of 2 models or settings, choose by --model or --fingerprint: 2 of model at revision, --fingerprint f-instance; 1 of" in line
        for line in said
    )
    export(table, tmp_path / "first", "coco-instances", model="model")
    assert images(tmp_path / "first") == [*NAMES[:3]]
    said.clear()
    export(table, tmp_path / "second", "coco-instances", said, fingerprint="it's new")
    assert images(tmp_path / "second") == [NAMES[2]]
    assert len(said) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"where": "colour = 'red'"}, "--where colour = 'red': is not a condition on the table's columns: .*colour"),
        ({"where": "dt ="}, "--where dt =: it must be one SQL condition"),
        ({"where": "dt = 'never'"}, "no row with status ok fits --task instance, nor one of another task; see --where"),
        ({"model": "no such"}, "no row with status ok fits"),
        ({"min_score": 1.5}, r"--min-score 1.5 .*: input should be less than or equal to 1"),
        ({"void": 256}, "--void 256: does not fit 8 bits: use 0 to 255"),
        ({"bits": 12}, r"--bits 12 .*: input should be 8 or 16"),
    ],
)
def test_a_wrong_setting_is_refused_and_leaves_nothing(table: str, tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(Refused, match=message):
        export(table, tmp_path, "coco-instances", **settings)
    assert not files(tmp_path)


def test_a_task_that_the_table_lacks_is_told_with_those_it_has(tmp_path: Path) -> None:
    commit(str(tmp_path / "masks"), "run-1", {"a.jpg": {"panoptic": answers("a")["panoptic"]}})
    with pytest.raises(Refused, match="no row with status ok fits --task instance; it has rows of panoptic"):
        export(str(tmp_path / "masks"), tmp_path / "out", "coco-instances", task="instance")


@pytest.mark.slow
def test_without_a_task_the_only_one_that_fits_is_taken_and_said(tmp_path: Path) -> None:
    table, said = str(tmp_path / "masks"), list[str]()
    commit(table, "run-1", {"a.jpg": {"panoptic": answers("a")["panoptic"]}})
    assert export(table, tmp_path / "only", "coco-instances", said)["task"] == "panoptic"
    assert "--task panoptic: the only answers in the table that coco-instances can hold" in said
    said.clear()
    assert export(table, tmp_path / "first", "coco-panoptic", said)["task"] == "panoptic"
    assert not any("--task" in line for line in said)
    commit(table, "run-2", {"a.jpg": {"semantic": answers("a")["semantic"]}}, minute=2)
    with pytest.raises(Refused, match="--task: the table has no rows of instance, but of panoptic and semantic: choose one"):
        export(table, tmp_path / "which", "coco-instances")
    commit(str(tmp_path / "instances"), "run-1", {"a.jpg": {"instance": answers("a")["instance"]}})
    with pytest.raises(Refused, match="no row with status ok fits --task semantic; it has rows of instance"):
        export(str(tmp_path / "instances"), tmp_path / "none", "label-maps")


def test_no_table_is_told(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"--table file://.*/absent: there is no such file or folder"):
        export(str(tmp_path / "absent"), tmp_path / "out", "segments")
    (tmp_path / "empty").mkdir()
    with pytest.raises(Refused, match=r"empty: there is no table: name the folder that segment has as --output"):
        export(str(tmp_path / "empty"), tmp_path / "out", "segments")


@pytest.mark.slow
@pytest.mark.parametrize("wanted", FORMATS)
def test_an_earlier_export_is_replaced_only_if_asked_and_completely(table: str, tmp_path: Path, wanted: str) -> None:
    rest: dict[str, Any] = (
        {"where": "image_uri NOT LIKE '%/b.png'"} if wanted in ("voc", "yolo-seg") else {}
    )  # its name would be one with b.jpg's
    export(table, tmp_path, wanted, **rest)
    (tmp_path / "segments-00007.parquet").write_bytes(b"of a larger export")
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    with pytest.raises(Refused, match="is not empty: give an empty folder, or --overwrite"):
        export(table, tmp_path, wanted)
    with pytest.raises(Refused, match="no row with status ok fits"):
        export(table, tmp_path, wanted, where="dt = 'never'", overwrite=True)
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before
    export(table, tmp_path, wanted, where="dt = '2026-11-22'", overwrite=True)
    assert "segments-00007.parquet" not in files(tmp_path)
    assert len([name for name in files(tmp_path) if name.endswith(".png")]) == {"coco-panoptic": 2, "label-maps": 2, "voc": 4}.get(
        wanted, 0
    )
    assert json.loads((tmp_path / "_export.json").read_text())["rows"] in (2, 6)


def test_files_that_are_no_exports_stay(table: str, tmp_path: Path) -> None:
    (tmp_path / "panoptic").mkdir()
    (tmp_path / "panoptic" / "notes.txt").write_text("mine")
    (tmp_path / "panoptic.json").write_text("perhaps mine")
    with pytest.raises(Refused, match=r"holds file://.*/panoptic/notes\.txt, which no export wrote"):
        export(table, tmp_path, "coco-panoptic", overwrite=True)
    assert files(tmp_path) == {"panoptic/notes.txt", "panoptic.json"}


@pytest.mark.slow
def test_what_breaks_off_does_not_look_complete(tmp_path: Path) -> None:
    table = str(tmp_path / "masks")
    good = {f"{number}.jpg": {"panoptic": answers(str(number))["panoptic"]} for number in range(200)}
    commit(table, "run-1", good)
    export(table, tmp_path / "out", "coco-panoptic")
    commit(table, "run-2", {"150.jpg": {"panoptic": answers("150")["instance"]}}, minute=2)  # overlaps: a damaged row
    with pytest.raises(MasklakeError, match="its row is damaged"):
        export(table, tmp_path / "out", "coco-panoptic", overwrite=True)
    assert not {"_export.json", "panoptic.json"} & files(tmp_path / "out")
    export(table, tmp_path / "out", "coco-panoptic", where="run_id = 'run-1'", overwrite=True)
    assert {"_export.json", "panoptic.json"} <= files(tmp_path / "out")


def test_a_file_that_is_gone_is_one_sentence(tmp_path: Path) -> None:
    commit(str(tmp_path / "masks"), "run-1", {name: answers(name) for name in NAMES})
    next((tmp_path / "masks").glob("task=instance/*22/*.parquet")).unlink()
    with pytest.raises(
        MasklakeError, match=r"\.parquet: this file of the table is gone: run the command again if a vacuum took it meanwhile"
    ):
        export(str(tmp_path / "masks"), tmp_path / "out", "coco-instances")
    assert not files(tmp_path / "out")


@pytest.mark.parametrize("place", ["masks", "masks/coco", "."])
def test_the_tables_folder_is_no_place_for_an_export(tmp_path: Path, place: str) -> None:
    with pytest.raises(Refused, match="overlaps the table's folder"):
        export(str(tmp_path / "masks"), tmp_path / place, "segments")
