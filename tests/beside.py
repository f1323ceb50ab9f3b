"""Something done from beside, in a thread, at the moment at which something else has happened."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def when(happened: Callable[[], object], act: Callable[[], object]) -> Iterator[None]:
    """Within, look again and again whether it has happened, and then act, once."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            if happened():
                act()
                return

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()
