"""When Ray begins to start: with the first image that is certain to be work, and never where nothing is certain."""

from __future__ import annotations

import pyarrow as pa
import pytest

from masklake.segment import ahead
from masklake.segment.plan import Plan


def listing(*pages: list[str]) -> list[pa.Table]:
    return [pa.table({"image_uri": pa.array(uris, pa.string()), "image_bytes": pa.array([10] * len(uris), pa.int64())}) for uris in pages]


def begun_at(pages: list[pa.Table], rows: int = 0, limit: int | None = None, images: int = 1) -> list[int]:
    """At which pages Ray was begun, where work for it is so many images."""
    begun: list[int] = []
    number = -1
    watched = ahead.watched(pages, rows, limit, lambda least: least.todo_images >= images, lambda: begun.append(number + 1))
    for number, page in enumerate(watched):
        assert page is pages[number], "the listing itself is as it was"
    return begun


def looked_at(pages: list[pa.Table], rows: int, limit: int | None) -> list[Plan]:
    """What was asked about, where none of it is work for Ray."""
    plans: list[Plan] = []

    def keep(least: Plan) -> bool:
        plans.append(least)
        return False

    list(ahead.watched(pages, rows, limit, keep, lambda: None))
    return plans


THREE = listing(["a", "b"], ["c", "d"], ["e"])


@pytest.mark.parametrize(
    ("rows", "limit", "images", "page"),
    [
        (0, None, 1, [0]),  # no table yet: whatever is listed is work
        (0, None, 3, [1]),  # so little would be done without Ray
        (0, None, 6, []),
        (0, 2, 3, []),
        (1, None, 1, [0]),  # two images, and one row that may be of one of them
        (2, None, 1, [1]),
        (4, None, 1, [2]),
        (5, None, 1, []),  # as in a run that finds nothing to do
        (3, None, 2, [2]),
    ],
)
def test_ray_begins_with_the_page_that_makes_work_for_it_certain(rows: int, limit: int | None, images: int, page: list[int]) -> None:
    assert begun_at(THREE, rows, limit, images) == page


def test_an_image_that_a_list_names_twice_is_one() -> None:
    assert begun_at(listing(["a", "a"], ["a", "b"], ["b"]), rows=2) == []
    assert begun_at(listing(["a", "a"], ["a", "b"], ["c"]), rows=2) == [2]


def test_of_a_large_table_the_plan_alone_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "MOST_ROWS", 2)
    assert begun_at(THREE, rows=2) == [1]
    assert begun_at(THREE, rows=3) == []


def test_at_the_limit_nothing_more_is_looked_at() -> None:
    """What is listed after it would be remembered in vain, ten million images as well."""
    assert [plan.todo_images for plan in looked_at(THREE, 0, 2)] == [2]


@pytest.mark.parametrize(("rows", "limit", "size"), [(0, None, 20), (1, None, 0), (0, 1, 0)])
def test_bytes_count_only_where_all_of_them_are_work(rows: int, limit: int | None, size: int) -> None:
    plans = looked_at(listing(["a", "b"]), rows, limit)
    assert [plan.todo_bytes for plan in plans] == [size]
    assert all(plan.todo_images == 2 - max(rows, limit or 0) for plan in plans)
