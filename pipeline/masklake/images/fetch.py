"""Images to bytes, wherever they lie: each kind reads its own. Many at once; each failure is a value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

import pyarrow as pa

from masklake import storage
from masklake.errors import ErrorCode, ImageFailure
from masklake.images.indexes import Indexes
from masklake.images.pages import place_of
from masklake.images.sources import SOURCES, source_named

_FAILED = "failed before"


def fetch(images: pa.Table, max_bytes: int) -> Iterator[bytes | ImageFailure]:
    """The bytes of each image, or why there are none, in order; what failed before (when it was listed) is not asked for again.

    Images are read ahead as long as they are small, so that a bounded number of bytes is held: see `ahead`.

    Args:
        images: `pages.PAGE_SCHEMA` without the keys, as planned.
        max_bytes: of a larger image nothing is read where its size is known before.
    """
    for kind, some in groupby(images.to_pylist(), _kind):
        of_kind = list(some)
        if kind is _FAILED:
            yield from (ImageFailure(image["error_code"], image["error_message"]) for image in of_kind)
        else:
            yield from source_named(kind).read([place_of(image) for image in of_kind], max_bytes)


def _kind(image: Mapping[str, Any]) -> str | None:
    return _FAILED if image["error_code"] else image["image_source"]


def fetch_by_uri(uri: str, max_bytes: int | None = None, indexes: Indexes | None = None) -> bytes | ImageFailure:
    """The bytes of one image by what the table calls it; of a member of a tar file whose index is not kept, the headers are read first."""
    content: bytes | ImageFailure = ImageFailure(ErrorCode.NOT_FOUND, "there is no such object")
    if storage.is_canonical(uri):  # else it is no object's name, and what it holds of a row's or a member's may lead to any file
        (content,) = storage.read_many([uri], max_bytes)
    if not isinstance(content, ImageFailure):
        return content
    for source in SOURCES:
        place = source.find(uri, indexes)
        if place is not None:
            return next(iter(source.read([place], max_bytes)))
    return content
