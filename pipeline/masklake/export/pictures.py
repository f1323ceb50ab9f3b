"""Files named after images, several at once, within a bound on memory."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from masklake import storage
from masklake.export.selection import Row

_AT_ONCE = 8
_MOST_PIXELS = 32_000_000  # of all pictures that are drawn at once, at 10 to 15 bytes each; a larger one is drawn alone


def store_each(rows: Iterable[Row], folder: str, draw: Callable[[Row], Image.Image]) -> Iterator[Row]:
    """Draw each row, store it as `<folder><png>`, and give the row on: it comes out after its picture is stored.

    Args:
        rows: with `png, width, height` and what `draw` needs.
        folder: ends in a slash.
        draw: the picture of a row.
    """
    return store_files(rows, lambda row: [(folder + row["png"], as_png(draw(row)))])


def store_files(rows: Iterable[Row], make: Callable[[Row], Iterable[tuple[str, bytes]]]) -> Iterator[Row]:
    """Make each row's files, names and contents, and store them; gives the row on after that.

    Args:
        rows: with `width, height` and what `make` needs.
        make: URIs and contents; called in several threads.
    """

    def store(row: Row) -> Row:
        for uri, content in make(row):
            storage.write_bytes(uri, content)
        return row

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="pictures") as pool:
        for group in _groups(rows):
            yield from pool.map(store, group)


def as_png(picture: Image.Image) -> bytes:
    """A picture as a PNG file."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    group: list[Row] = []
    pixels = 0
    for row in rows:
        size = row["width"] * row["height"]
        if group and (len(group) == 4 * _AT_ONCE or pixels + size > _MOST_PIXELS):
            yield group
            group, pixels = [], 0
        group.append(row)
        pixels += size
    if group:
        yield group
