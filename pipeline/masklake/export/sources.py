"""The images behind the rows of an export, read again: for what shows them, and for copies beside what refers to them."""

from __future__ import annotations

import threading

from masklake.errors import ImageFailure
from masklake.export.selection import Row
from masklake.images.fetch import fetch_by_uri
from masklake.results import Pixels, Result, Unusable
from masklake.spelling import plural

_NAMED = 3


class Images:
    """Reads images in any thread, and notes which are gone."""

    def __init__(self, copies: bool = False) -> None:
        """`copies`: whether `copied` does anything."""
        self._copies = copies
        self._lock, self._gone, self._examples = threading.Lock(), 0, list[str]()

    def pixels(self, row: Row) -> Pixels | None:
        """The picture, uint8 RGB [height, width, 3]; None, and noted, where it is gone or another."""
        try:
            return Result({**row, "task": ""}).image
        except Unusable as error:
            self._note(str(error))
            return None

    def copied(self, row: Row, folder: str) -> list[tuple[str, bytes]]:
        """The image as a file of its name in `folder`, which ends in a slash; nothing, and noted, where it is gone."""
        if not self._copies:
            return []
        found = fetch_by_uri(row["image_uri"])
        if isinstance(found, ImageFailure):
            self._note(f"{row['image_uri']}: {found.message}")
            return []
        return [(folder + row["file_name"], found)]

    def _note(self, why: str) -> None:
        with self._lock:
            self._gone += 1
            if len(self._examples) < _NAMED:
                self._examples.append(why)

    def remarks(self) -> tuple[str, ...]:
        """What the user should know, a sentence each."""
        if not self._gone:
            return ()
        return (f"no picture in the export of {plural(self._gone, 'image')} that could not be read: {'; '.join(self._examples)}",)
