"""What is done at once comes in order, and no more is begun than may be."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from masklake.ordered import in_order


def test_results_are_in_order_though_later_ones_are_ready_before_and_no_more_is_begun_than_may_be() -> None:
    begun: list[int] = []
    second = threading.Event()

    def function(item: int) -> int:
        begun.append(item)
        if item == 1:
            second.set()
        if item == 0:
            assert second.wait(60)
        return -item

    with ThreadPoolExecutor(8) as threads:
        results = in_order(function, range(100), threads, ahead=2)
        assert next(results) == 0
        assert {0, 1} <= set(begun) <= {0, 1, 2}  # a thread may be late to take what it was given
        assert list(results) == [-item for item in range(1, 100)]
