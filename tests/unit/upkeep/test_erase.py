"""Erasing images: from the table, from its past, from galleries and reports; beside runs and compactions."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deltalake import DeltaTable

from masklake import storage
from masklake.errors import MasklakeError
from masklake.pages.cards import Card, Painting
from masklake.segment.gallery import GalleryInput, render_gallery
from masklake.segment.report import RunFacts, RunTotals, report_dict
from masklake.table.append import Table
from masklake.table.write import write_rows
from masklake.upkeep import rewrite as module
from masklake.upkeep.compact import compact
from masklake.upkeep.erase import Erasure, check_gone, erase, erase_pictures
from masklake.upkeep.rewrite import rewrite
from masklake.upkeep.upkeep import UpkeepTable
from masklake.upkeep.vacuum import vacuum
from tests.answers import rows
from tests.tables import BY, LAKE, begun


def uri(name: str) -> str:
    return f"{LAKE}{name}.jpg"


def committed(folder: Path, run_id: str, names: str, minute: int = 0) -> Table:
    table = begun(folder, run_id)
    made = rows([uri(name) for name in names], run_id, BY, minute, dt=["1"] * len(names))
    table.commit(write_rows(made, table.uri, BY, run_id))
    return table


def erased(folder: Path, names: str, dry_run: bool = False) -> Erasure:
    with UpkeepTable.job(str(folder), "erase-1", dry_run, beat=False) as table:
        return erase(table, [uri(name) for name in names], dry_run)


def content(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = DeltaTable(str(folder)).to_pyarrow_table().sort_by("image_uri").to_pylist()
    return found


def images_in(folder: Path) -> Counter[str]:
    return Counter(row["image_uri"][-5] for row in content(folder))


def test_every_row_of_the_images_goes_and_all_others_stay_as_they_are(tmp_path: Path) -> None:
    committed(tmp_path, "run-1", "abc", 1).finish_run()
    committed(tmp_path, "run-2", "bd", 2).finish_run()
    committed(tmp_path, "run-3", "b", 3).finish_run()
    committed(tmp_path, "run-4", "ef", 4).finish_run()
    kept = [row for row in content(tmp_path) if row["image_uri"] not in (uri("b"), uri("e"))]
    planned = erased(tmp_path, "bez", dry_run=True)
    assert (len(planned.found), planned.rows, planned.files) == (2, 4, 4)
    assert len(content(tmp_path)) == 8
    done = erased(tmp_path, "bez")
    assert (len(done.found), done.rows, done.files) == (2, 4, 4)
    assert content(tmp_path) == kept
    assert len(DeltaTable(str(tmp_path)).file_uris()) == 3, "a file without rows is not made"
    assert erased(tmp_path, "bez").rows == 0


def test_files_that_cannot_hold_them_are_not_opened(tmp_path: Path) -> None:
    committed(tmp_path, "run-1", "ab").finish_run()
    committed(tmp_path, "run-2", "yz").finish_run()
    for path in tmp_path.rglob("part-run-2-*.parquet"):
        path.write_bytes(b"unreadable" * 100)
    assert erased(tmp_path, "bc").rows == 1


def test_old_versions_hold_them_until_the_vacuum_and_that_is_checked(tmp_path: Path) -> None:
    committed(tmp_path, "run-1", "ab", 1).finish_run()
    committed(tmp_path, "run-2", "a", 2).finish_run()
    with UpkeepTable.job(str(tmp_path), "compact-1", beat=False) as table:
        compact(table, 1_000_000, say=lambda text: None)  # so that three files of the past hold an a
    done = erased(tmp_path, "a")
    with pytest.raises(MasklakeError, match="held erased rows"):
        check_gone(done.replaced)
    with UpkeepTable.job(str(tmp_path), "erase-2", beat=False) as table:
        assert vacuum(table, 0, say=lambda text: None).files == 3
    check_gone(done.replaced)
    present = [Path(path) for path in DeltaTable(str(tmp_path)).file_uris()]
    assert set(tmp_path.rglob("part-*.parquet")) == set(present)
    assert not any(uri("a").encode() in path.read_bytes() for path in present)


def test_a_run_whose_rows_are_erased_while_it_works_still_finds_itself_complete(tmp_path: Path) -> None:
    run = committed(tmp_path, "run-1", "abc")
    erased(tmp_path, "b")
    assert images_in(tmp_path) == Counter("ac")
    assert run.rows_of_run("run-1") == 3


def test_a_compaction_in_between_does_not_bring_them_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    committed(tmp_path, "run-1", "ab").finish_run()
    committed(tmp_path, "run-2", "cd").finish_run()
    real = rewrite

    def overtaken(*arguments: Any) -> Any:
        monkeypatch.undo()
        rewritten = real(*arguments)
        with UpkeepTable.job(str(tmp_path), "compact-1", beat=False) as table:
            compact(table, 1_000_000, say=lambda text: None)
        return rewritten

    monkeypatch.setattr(module, "rewrite", overtaken)
    done = erased(tmp_path, "ad")
    assert (len(done.found), done.rows, done.files) == (2, 2, 1)
    assert images_in(tmp_path) == Counter("bc")


def test_a_compaction_that_had_read_them_already_is_not_committed(tmp_path: Path) -> None:
    committed(tmp_path, "run-1", "ab").finish_run()
    committed(tmp_path, "run-2", "cd").finish_run()
    with UpkeepTable.job(str(tmp_path), "compact-1", beat=False) as table:
        old = table.files()
        new = rewrite(table, old).file
        assert new
        erased(tmp_path, "a")
        assert not table.swap(old, [new])
    assert images_in(tmp_path) == Counter("bcd")


def shown_by(table: Table, run_id: str, picture: str, failed: str = "") -> None:
    """A run's report and gallery, with one picture and the failures of these images."""
    now = datetime(2026, 11, 22, tzinfo=UTC)
    facts = RunFacts(run_id, LAKE, table.uri, "model", "revision", ("panoptic",), now, now)
    examples = tuple((uri(name), "no bytes") for name in failed)
    totals = RunTotals(errors={"empty": 2}, examples={"empty": examples}) if failed else RunTotals()
    card = Card(picture, "panoptic", np.zeros((4, 4, 3), np.uint8), Painting(np.zeros((4, 4, 4), np.uint8), ()))
    gallery = render_gallery(GalleryInput(facts, totals, [card]))
    folder = f"{table.uri}/_masklake/runs/{run_id}"
    storage.write_bytes(f"{folder}/report.json", json.dumps(report_dict(facts, totals, {}, gallery.pictures)).encode())
    storage.write_bytes(f"{folder}/gallery.html", gallery.html.encode())


def test_galleries_that_show_them_go_and_reports_forget_them(tmp_path: Path) -> None:
    table = Table.open_or_create(str(tmp_path), BY)
    odd = "s3://lake/images/" + "deep/" * 80 + "a <b> & \u202ec.jpg"
    shown_by(table, "run-1", odd)
    shown_by(table, "run-2", uri("b"), failed="xy")

    def left() -> list[str]:
        return sorted(f"{path.parent.name}/{path.name}" for path in (tmp_path / "_masklake" / "runs").rglob("*.*"))

    def report(run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((tmp_path / "_masklake" / "runs" / run_id / "report.json").read_text())
        return found

    assert erase_pictures(table.uri, [uri("z")]) == 0
    assert erase_pictures(table.uri, [odd]) == 2
    assert left() == ["run-1/report.json", "run-2/gallery.html", "run-2/report.json"]
    assert report("run-1")["pictures"] == []
    assert erase_pictures(table.uri, [uri("x")]) == 2  # the other gallery names it among the failures, as its report does
    assert left() == ["run-1/report.json", "run-2/report.json"]
    assert report("run-2")["errors"]["empty"] == {"rows": 2, "examples": [{"uri": uri("y"), "message": "no bytes"}]}
    assert report("run-2")["pictures"] == [uri("b")]
    assert erase_pictures(table.uri, [uri("b")]) == 1
    assert report("run-2")["pictures"] == []
    assert erase_pictures(table.uri, [odd, uri("x"), uri("b")]) == 0


def test_a_gallery_of_which_nothing_says_what_it_shows_goes(tmp_path: Path) -> None:
    table = Table.open_or_create(str(tmp_path), BY)
    for run_id in ("run-1", "run-2", "run-3"):
        shown_by(table, run_id, uri("b"))
    runs = tmp_path / "_masklake" / "runs"
    (runs / "run-1" / "report.json").unlink()
    told = json.loads((runs / "run-2" / "report.json").read_text())
    del told["pictures"]
    (runs / "run-2" / "report.json").write_text(json.dumps(told))
    assert erase_pictures(table.uri, [uri("z")]) == 2
    assert sorted(path.parent.name for path in runs.rglob("gallery.html")) == ["run-3"]
