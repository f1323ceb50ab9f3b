"""While images are still listed: whether what is listed so far is certain to be work for Ray, which then starts at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from masklake.segment.plan import Plan

MOST_ROWS = 1_000_000
"""Of the table. With more of them, whether an image is new is left to the plan: who remembers so many that are not takes memory."""


def watched(
    pages: Iterable[pa.Table], rows: int, limit: int | None, is_rays: Callable[[Plan], bool], begin: Callable[[], None]
) -> Iterator[pa.Table]:
    """The same pages; calls `begin`, once, as soon as `is_rays` of the least that there is to do.

    Args:
        pages: the listing, of which every image is work unless the table holds it; it may name one twice.
        rows: of the table, that may say of an image that it is done.
        limit: images to do at most.
        is_rays: of a plan whose numbers are at most those that the whole plan will have.
        begin: what is to be begun.
    """
    seen, size, watching = set[str](), 0, rows <= MOST_ROWS
    for page in pages:
        if watching:
            seen.update(page["image_uri"].to_pylist())
            size += 0 if rows or limit is not None or "image_bytes" not in page.column_names else pc.sum(page["image_bytes"]).as_py() or 0
            least = min(len(seen) - rows, len(seen) if limit is None else limit)
            if is_work := least > 0 and is_rays(_plan_of(least, size)):
                begin()
            watching = not is_work and least != limit  # at the limit, what is listed later says no more
            if not watching:
                seen = set()
        yield page


def _plan_of(images: int, size: int) -> Plan:
    return Plan(
        images, size, done_images=0, todo_images=images, todo_rows=images, todo_bytes=size, retried_errors=0, kept_errors=0, groups=0
    )
