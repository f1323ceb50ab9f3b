"""Which images a preview looks at: spread over folders and names, the same for the same seed."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from masklake.segment.picks import Some, in_turn
from masklake.segment.plan import WorkList, make_plan, read_group
from tests.unit.segment.test_plan import WANTED, page, row


def picked(folder: Path, some: Some, *pages: pa.Table, done: list[pa.RecordBatch] | None = None) -> list[str]:
    plan = make_plan(pages, done, WANTED, work_list=WorkList(str(folder), some=some))
    rows = [each for index in range(plan.groups) for each in read_group(str(folder), index).to_pylist()]
    assert all(each["tasks"] == list(WANTED) for each in rows)
    return [each["image_uri"].removeprefix("s3://lake/") for each in rows]


def test_folders_get_images_in_turn(tmp_path: Path) -> None:
    assert in_turn([1, 9, 3], 8) == [1, 4, 3]
    assert in_turn([1, 2], 12) == [1, 2]
    names = ["few/a", *(f"many/{number:03d}" for number in range(500)), "two/a", "two/b"]
    found = picked(tmp_path, Some(12), page(*names))
    assert Counter(name.split("/")[0] for name in found) == {"few": 1, "many": 9, "two": 2}
    ninths = [int(name.split("/")[1]) * 9 // 500 for name in found if name.startswith("many/")]
    assert ninths == list(range(9))


def test_of_more_folders_than_images_every_so_many_th_gets_one(tmp_path: Path) -> None:
    names = [f"dt={day:03d}/{number}" for day in range(360) for number in range(3)]
    found = picked(tmp_path, Some(12), page(*names))
    assert [int(name[3:6]) // 30 for name in found] in ([*range(12)], [*range(1, 12), 11], [0, *range(11)])
    days = [int(name[3:6]) for name in found]
    assert {later - earlier for earlier, later in itertools.pairwise(days)} == {30}


def test_the_same_seed_picks_the_same_whatever_the_order_of_the_listing(tmp_path: Path) -> None:
    names = [f"day-{number % 7}/{number:04d}" for number in range(700)]
    first = picked(tmp_path / "1", Some(12, 3), page(*names))
    assert picked(tmp_path / "2", Some(12, 3), page(*names[350:]), page(*names[:350])) == first
    assert picked(tmp_path / "3", Some(12, 4), page(*names)) != first


def test_images_that_are_done_are_picked_as_others_and_one_that_is_listed_twice_once(tmp_path: Path) -> None:
    done = [row("a"), row("a", "semantic", "s1")]
    assert picked(tmp_path, Some(5), page("a", "b", "a"), done=done) == ["a", "b"]


def test_a_file_that_holds_images_is_a_folder(tmp_path: Path) -> None:
    names = [*(f"one.tar/{number}" for number in range(5)), *(f"two.tar#row={number}" for number in range(5))]
    listing = page(*names, image_container=pa.array([len("s3://lake/one.tar")] * 10, pa.int32()))
    found = picked(tmp_path, Some(4), listing)
    assert Counter(name[:7] for name in found) == {"one.tar": 2, "two.tar": 2}


@pytest.mark.parametrize("count", [1, 100])
def test_no_more_than_there_are(tmp_path: Path, count: int) -> None:
    assert len(picked(tmp_path, Some(count), page("a", "b/c", "b/d"))) == min(count, 3)
