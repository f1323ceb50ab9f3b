"""A function of many things at once, its results in the things' order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_order(function: Callable[[T], R], items: Iterable[T], threads: Executor, ahead: int) -> Iterator[R]:
    """The function of each item, in order, with at most `ahead` of them under way beside the one that is waited for."""
    under_way: deque[Future[R]] = deque()
    for item in items:
        under_way.append(threads.submit(function, item))
        if len(under_way) > ahead:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()
