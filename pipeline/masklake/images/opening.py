"""Objects that hold images, opened a few at a time; their pages come in the order in which the objects were listed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa

from masklake.images.source import Container

_AT_ONCE = 16


@dataclass(frozen=True)
class Opening:
    """An object to open, and what its entry in a list tells of all its images."""

    call: Callable[[], Container]
    keys: str | None = None


def opened(things: Iterable[pa.Table | Opening]) -> Iterator[pa.Table]:
    """Pages as they are, and those of containers, a few of which are opened at a time."""
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="open") as pool:
        waiting: deque[tuple[Future[Container], Opening]] = deque()
        for thing in things:
            if isinstance(thing, Opening):
                waiting.append((pool.submit(thing.call), thing))
            elif thing.num_rows:
                yield thing
            if len(waiting) == 2 * _AT_ONCE:
                yield from _contained(*waiting.popleft())
        while waiting:
            yield from _contained(*waiting.popleft())


def _contained(container: Future[Container], opening: Opening) -> Iterator[pa.Table]:
    for page in container.result().pages():
        if opening.keys is None:
            yield page
            continue
        place = page.schema.get_field_index("image_keys")
        keys = pa.repeat(pa.scalar(opening.keys, pa.string()), page.num_rows)
        yield page.set_column(place, page.schema.field(place), keys)
