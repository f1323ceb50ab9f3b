"""How many images are read at once: as many as fit into a bound on their bytes, or one."""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from masklake import storage
from masklake.errors import ImageFailure
from masklake.images.pages import Place

READ_AHEAD_BYTES = 64 * 1024 * 1024
_M_MMAP_THRESHOLD = -3  # of malloc.h
_MAPPED_BYTES = 1024 * 1024

Contents = Sequence[bytes | ImageFailure]


def read_ahead(
    places: Sequence[Place], max_bytes: int | None, read: Callable[[Sequence[Place]], Contents]
) -> Iterator[bytes | ImageFailure]:
    """The bytes of places whose lengths are known, in order: a portion of at most `READ_AHEAD_BYTES`, or one image, is held at a time.

    Args:
        places: where images lie; a larger one than `max_bytes` takes no room, since nothing of it is read.
        read: gives the bytes of a portion.
    """
    _give_back_what_is_freed()
    portion: list[Place] = []
    size = 0
    for place in places:
        length = place.length or 0
        length = 0 if max_bytes is not None and length > max_bytes else length
        if portion and size + length > READ_AHEAD_BYTES:
            yield from _let_go(list(read(portion)))
            portion, size = [], 0
        portion.append(place)
        size += length
    if portion:
        yield from _let_go(list(read(portion)))


def with_lengths(places: Sequence[Place]) -> list[Place]:
    """The places of objects, of which the store was asked for the lengths that nobody told; where it fails, it will on reading as well."""
    unknown = [place.uri for place in places if place.length is None]
    told = dict(zip(unknown, storage.stat_many(unknown), strict=True))
    lengths = {uri: 0 if isinstance(found, ImageFailure) else found.size for uri, found in told.items()}
    return [replace(place, length=lengths[place.uri]) if place.length is None else place for place in places]


@functools.cache
def _give_back_what_is_freed() -> None:
    """Let glibc map blocks of images by themselves: else it keeps, for each thread that has read one, up to 32 MB that nobody uses."""
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):  # another C library
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)


def _let_go(contents: list[bytes | ImageFailure]) -> Iterator[bytes | ImageFailure]:
    """Each of the contents, which is not held when the next one is asked for."""
    contents.reverse()
    while contents:
        yield contents.pop()
