"""The verifier itself: what a product would leave that loses, doubles, shifts or keeps something is noticed, each time.

The table is made by the product's own writing, from what the scenes are known to show; then it is changed as a faulty product would have.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from pycocotools import mask as coco

from masklake.demo.scenes import LABELS
from masklake.table.append import Table
from masklake.table.rows import RunStamp, build_rows
from masklake.table.write import write_rows
from tests import answers
from tests.faults.log import Added, Commit, commit
from tests.faults.pictures import Picture, truth
from tests.faults.stored import Expected, Stored
from tests.faults.verify import TASKS, Answers, verify
from tests.tables import compacted, vacuumed

ROOT = "s3://lake/images/"
NAMES = ("a", "b", "c", "d")
SCENES = (0, 7, 0, 7)  # of one size, so that a mask of one would fit the other
OTHERS = {"notes.txt": "etag of the notes"}
Rows = list[dict[str, Any]]
Change = Callable[[Rows], None]
Mutant = Callable[[Stored], Stored]


@dataclass
class Made:
    """A sound table; after a compaction, before and after its vacuum."""

    expected: Expected
    sound: Stored
    unvacuumed: Stored
    vacuumed: Stored
    known: Answers
    """What sound trials before have shown."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("lake") / "masks"
    pictures = [Picture(name, scene) for name, scene in zip(NAMES, SCENES, strict=True)]
    expected = Expected({f"{ROOT}{picture.name}": [picture] for picture in pictures}, set(), dict(OTHERS))
    table = Table.open_or_create(str(folder), ("task",))
    table.begin_run(ROOT, "run-1", beat=False)
    for some in (pictures[:2], pictures[2:]):
        table.commit(write_rows(_rows(some, table.run_order), table.uri, ("task",), "run-1"))
    table.finish_run()
    sound = _stored(folder)
    compacted(folder)
    unvacuumed = _stored(folder)
    vacuumed(folder)
    known = Answers()
    assert verify(sound, expected, known, vacuumed=False).problems == []
    return Made(expected, sound, unvacuumed, _stored(folder), known)


def _rows(pictures: list[Picture], order: int) -> Any:
    uris = [f"{ROOT}{picture.name}" for picture in pictures]
    etags, sizes = [picture.etag for picture in pictures], [len(picture.content) for picture in pictures]
    heights, widths = zip(*(picture.size for picture in pictures), strict=True)
    images = answers.images(uris, TASKS, image_etag=etags, image_bytes=sizes, height=heights, width=widths)
    found = [dict.fromkeys(TASKS, _answer(picture.scene)) for picture in pictures]
    stamp = RunStamp("m", "r", {task: f"f-{task}" for task in TASKS}, "run-1", order, datetime(2026, 11, 22, tzinfo=UTC))
    return build_rows(images, found, stamp, ("task",))


def _answer(scene: int) -> list[answers.Segment]:
    """What the scene was drawn with."""
    labels = truth(scene)
    present = [int(label) for label in np.unique(labels)]
    return [replace(answers.segment(number, labels == label, label), label=LABELS[label]) for number, label in enumerate(present, 1)]


def _stored(folder: Path) -> Stored:
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    log = [commit(int(Path(path).stem), text.decode()) for path, text in sorted(files.items()) if path.startswith("_delta_log/")]
    data = {path: content for path, content in files.items() if not path.startswith("_")}
    by_delta = frozenset(DeltaTable(str(folder)).get_add_actions(flatten=True)["path"].to_pylist())
    return Stored(log, {path: len(content) for path, content in files.items()}, data, {}, by_delta, dict(OTHERS))


def problems(made: Made, stored: Stored, vacuumed: bool = False) -> str:
    return "; ".join(verify(stored, made.expected, made.known, vacuumed).problems)


def test_a_sound_table_passes(made: Made) -> None:
    assert problems(made, made.sound) == ""
    assert problems(made, made.unvacuumed) == "", "old versions may stay until a vacuum"
    assert problems(made, made.vacuumed, vacuumed=True) == ""


def _without_commit(stored: Stored) -> Stored:
    dropped = next(each for each in stored.log if each.event == "data")
    log = [replace(each, adds=()) if each is dropped else each for each in stored.log]
    return replace(stored, log=log, by_delta=stored.by_delta - {added.path for added in dropped.adds})


def _forgotten_altogether(stored: Stored) -> Stored:
    """The files went as well: nothing but the missing answers tells."""
    without = _without_commit(stored)
    known = {added.path for each in without.log for added in each.adds}
    keep = {path for path in stored.sizes if path in known or path.startswith("_")}
    return replace(
        without, sizes={path: stored.sizes[path] for path in keep}, data={path: stored.data[path] for path in keep & set(stored.data)}
    )


def _committed_twice(stored: Stored) -> Stored:
    again = next(each for each in stored.log if each.event == "data")
    copies = {added.path: added.path.replace(".parquet", "0.parquet") for added in again.adds}
    adds = tuple(replace(added, path=copies[added.path]) for added in again.adds)
    log = [*stored.log, replace(again, version=len(stored.log), adds=adds)]
    new = {copy: stored.data[path] for path, copy in copies.items()}
    sizes = {**stored.sizes, **{path: len(content) for path, content in new.items()}}
    return replace(stored, log=log, sizes=sizes, data={**stored.data, **new}, by_delta=stored.by_delta | set(new))


def _done_again_and_dropped(stored: Stored) -> Stored:
    """Of images that were done twice, one row each was taken out again: the work was for nothing."""
    doubled = _committed_twice(stored)
    paths = tuple(added.path for added in doubled.log[-1].adds)
    taken_out = Commit(len(doubled.log), "compact", "compact-1", "", (), paths)
    gone = {path: size for path, size in doubled.sizes.items() if path not in paths}
    return replace(doubled, log=[*doubled.log, taken_out], sizes=gone, by_delta=stored.by_delta, data=stored.data)


def _one_file_less(stored: Stored) -> Stored:
    path = sorted(stored.data)[0]
    return replace(
        stored,
        sizes={name: size for name, size in stored.sizes.items() if name != path},
        data={name: content for name, content in stored.data.items() if name != path},
    )


def _half_a_file(stored: Stored) -> Stored:
    path = sorted(stored.data)[0]
    return replace(stored, sizes={**stored.sizes, path: stored.sizes[path] // 2})


def _after_the_fence(stored: Stored) -> Stored:
    newer = Commit(2, "begin", "run-2", ROOT, (), ())
    return replace(stored, log=[*stored.log[:2], newer, *stored.log[2:]])


def _leaving(path: str) -> Mutant:
    return lambda stored: replace(stored, sizes={**stored.sizes, path: 10})


def _fewer_rows_than_said(stored: Stored) -> Stored:
    def more(each: Commit) -> Commit:
        return replace(each, adds=tuple(replace(added, rows=added.rows + 1) for added in each.adds))

    return replace(stored, log=[more(each) for each in stored.log])


def _others(etags: dict[str, str]) -> Mutant:
    return lambda stored: replace(stored, etags=etags)


@pytest.mark.parametrize(
    ("mutant", "noticed"),
    [
        (_without_commit, "images without an answer"),
        (_forgotten_altogether, "images without an answer"),
        (_committed_twice, "images with more than one row"),
        (_done_again_and_dropped, "rows of images that were done already were committed"),
        (_one_file_less, "committed files that are not there"),
        (_half_a_file, "files of another size"),
        (_after_the_fence, "commits of a fenced run"),
        (_leaving("_masklake/live/run-1.json"), "markers and work lists"),
        (_leaving("_masklake/runs/run-1/plan-00000.parquet"), "markers and work lists"),
        (_leaving("task=panoptic/part-run-1-00000000-0000-0000-0000-000000000000.parquet"), "orphan files"),
        (_fewer_rows_than_said, "another number of rows"),
        (_others({}), "not the table's"),
        (_others({"notes.txt": "another"}), "not the table's"),
    ],
)
def test_a_faulty_product_is_noticed_by_its_files_and_log(made: Made, mutant: Mutant, noticed: str) -> None:
    assert noticed in problems(made, mutant(made.sound))


def test_a_vacuum_that_deletes_nothing_is_noticed(made: Made) -> None:
    assert "orphan files" in problems(made, made.unvacuumed, vacuumed=True)


def _rewritten(stored: Stored, change: Change) -> Stored:
    """The table as a product writes it that gives other rows; sizes and counts are those of the new files."""
    data, log = dict(stored.data), []
    for each in stored.log:
        adds = []
        for added in each.adds:
            table = pq.read_table(io.BytesIO(stored.data[added.path]), partitioning=None)
            rows = table.to_pylist()
            change(rows)
            sink = io.BytesIO()
            pq.write_table(type(table).from_pylist(rows, table.schema), sink)
            data[added.path] = sink.getvalue()
            adds.append(Added(added.path, len(data[added.path]), len(rows)))
        log.append(replace(each, adds=tuple(adds)))
    return replace(stored, log=log, data=data, sizes={**stored.sizes, **{path: len(content) for path, content in data.items()}})


def _shift_masks(rows: Rows) -> None:
    for row in rows:
        masks = [_mask(row, segment) for segment in row["segments"]]
        _set_masks(row, [np.roll(mask, 8, 1) for mask in masks])


def _mirror_masks(rows: Rows) -> None:
    for row in rows:
        _set_masks(row, [_mask(row, segment)[:, ::-1] for segment in row["segments"]])


def _give_to_neighbours(rows: Rows) -> None:
    """As a batch does whose answers come in another order."""
    given = [row["segments"] for row in rows]
    for row, segments in zip(rows, [*given[1:], given[0]], strict=True):
        row["segments"] = segments


def _find_nothing(rows: Rows) -> None:
    for row in rows:
        row["segments"] = []


def _find_less(rows: Rows) -> None:
    for row in rows:
        row["segments"] = row["segments"][:-1]


def _miscount(rows: Rows) -> None:
    rows[0]["segments"][0]["area"] += 1


def _misplace(rows: Rows) -> None:
    rows[0]["segments"][0]["bbox"][2] += 1


def _fail(rows: Rows) -> None:
    rows[0].update(status="error", error_code="unreachable", error_message="no answer", segments=None)


def _call_it_changed(rows: Rows) -> None:
    rows[0].update(status="error", error_code="changed", error_message="it has changed", segments=None, image_etag=None)


def _swap_etags(rows: Rows) -> None:
    rows[0]["image_etag"], rows[1]["image_etag"] = rows[1]["image_etag"], rows[0]["image_etag"]


def _set(**values: Any) -> Change:
    def change(rows: Rows) -> None:
        for row in rows:
            row.update(values)

    return change


def _mask(row: dict[str, Any], segment: dict[str, Any]) -> Any:
    return coco.decode({"size": [row["height"], row["width"]], "counts": segment["counts"]})


def _set_masks(row: dict[str, Any], masks: list[Any]) -> None:
    for segment, mask in zip(row["segments"], masks, strict=True):
        encoded = coco.encode(np.asfortranarray(mask))
        segment.update(counts=encoded["counts"], bbox=[int(edge) for edge in coco.toBbox(encoded)], area=int(coco.area(encoded)))


@pytest.mark.parametrize("fresh", [True, False], ids=["in all trials", "in one trial"])
@pytest.mark.parametrize(
    ("change", "noticed"),
    [
        (_shift_masks, "its masks lie beside what they show"),
        (_mirror_masks, "its masks are those of another picture"),
        (_give_to_neighbours, "its masks are those of another picture"),
        (_find_nothing, "nothing was found in it"),
        (_miscount, "another size or area"),
        (_misplace, "another box"),
        (_fail, "images with an error row"),
        (_call_it_changed, "images with an error row"),
        (_swap_etags, "rows of no image that ever was there"),
        (_set(image_etag="0" * 32), "rows of no image that ever was there"),
        (_set(image_etag=None), "rows of no image that ever was there"),
        (_set(image_bytes=1000), "its row says"),
        (_set(width=640), "its row says"),
        (_set(fingerprint="f-panoptic"), "fingerprint"),
    ],
)
def test_a_faulty_product_is_noticed_by_its_rows(made: Made, change: Change, noticed: str, fresh: bool) -> None:
    stored = _rewritten(made.sound, change)
    found = "; ".join(verify(stored, made.expected, Answers() if fresh else made.known, vacuumed=False).problems)
    assert noticed in found, found


def test_an_answer_that_differs_between_trials_is_noticed(made: Made) -> None:
    assert "another answer than a copy of it has" in problems(made, _rewritten(made.sound, _find_less))


def test_the_picture_that_came_later_under_the_etag_of_the_listing_is_noticed(made: Made) -> None:
    later = Picture("a", 5)
    history = {**made.expected.history, f"{ROOT}a": [*made.expected.history[f"{ROOT}a"], later]}

    def change(rows: Rows) -> None:
        """What a run leaves that lists, then reads, and does not look whether it is the same."""
        for row in (row for row in rows if row["image_uri"] == f"{ROOT}a"):
            answer = [{**vars(segment), "bbox": list(segment.bbox)} for segment in _answer(later.scene)]
            row.update(segments=answer, height=later.size[0], width=later.size[1])

    findings = verify(_rewritten(made.sound, change), replace(made.expected, history=history), Answers(), vacuumed=False)
    assert findings.lost == len(TASKS), "the present version has no answer"
    assert any("its row says" in problem for problem in findings.problems)


def test_what_is_kept_of_erased_images_is_noticed(made: Made) -> None:
    erased = f"{ROOT}a"
    gone = {key for key in made.expected.keys(TASKS) if key[0] == erased}
    expected = replace(made.expected, gone=gone)

    def without(rows: Rows) -> None:
        rows[:] = [row for row in rows if row["image_uri"] != erased]

    clean = _rewritten(made.sound, without)
    assert verify(clean, expected, Answers(), vacuumed=True).kept == 0
    assert verify(made.sound, expected, Answers(), vacuumed=True).kept == len(TASKS), "still in the table"
    named = replace(clean, pages={"_masklake/runs/run-1/report.json": f'"{erased}"'.encode()})
    assert verify(named, expected, Answers(), vacuumed=True).kept == 1, "named in a report"
    old = replace(clean, data={**clean.data, **{f"{path}.old.parquet": content for path, content in made.sound.data.items()}})
    assert verify(old, expected, Answers(), vacuumed=True).kept == len(TASKS), "still in a file of an old version"
